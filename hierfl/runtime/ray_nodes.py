"""The nodes of a Ray cluster, and which of them may be gone: Ray itself misses one a quarter of a minute after its end.

A node whose raylet takes no connection any more, or of whose processes nothing was heard, is in doubt until somebody
there gives a sign of life. A raylet that never took one says nothing: who knows what lies between.
"""

from __future__ import annotations

import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray

__all__ = ["Nodes"]

CONNECT_S = 1.0
"""How long a raylet may take to accept a connection, which its kernel does: a millisecond, unless it is very busy."""

MAX_AT_ONCE = 32
"""How many nodes that have come are looked at at once."""


class Nodes:
    """Nodes by Ray's ids. The run's own is beyond doubt."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._raylets: dict[str, tuple[str, int]] = {}
        self._reached: set[str] = set()
        self._doubted: set[str] = set()

    @property
    def here(self) -> str:
        """Give the run's own node."""
        return str(ray.get_runtime_context().get_node_id())

    def there(self) -> dict[str, str]:
        """Give the nodes that are there now, each with its host's name: those beyond doubt, if there are any."""
        known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        alive = [node for node in known if node["Alive"]]
        nodes: dict[str, str] = {node["NodeID"]: node["NodeManagerHostname"] for node in alive}
        often = Counter(nodes.values())
        self._names |= {node: name if often[name] == 1 else f"{name} ({node[:8]})" for node, name in nodes.items()}
        raylets = {node["NodeID"]: (node["NodeManagerAddress"], node["NodeManagerPort"]) for node in alive}
        new, self._raylets = sorted(raylets.keys() - self._raylets.keys()), raylets
        self._reached &= raylets.keys()
        if new:
            with ThreadPoolExecutor(len(new[:MAX_AT_ONCE])) as at_once:
                self._reached.update(
                    node for node, took in zip(new, at_once.map(self._connects, new), strict=True) if took
                )
        self._doubted &= nodes.keys()
        return {node: name for node, name in nodes.items() if node not in self._doubted} or nodes

    def answers(self, node: str) -> bool:
        """Say whether a node's raylet takes connections as it did; it is in doubt if not."""
        if node not in self._doubted and node in self._reached and node != self.here and not self._connects(node):
            self._doubted.add(node)
        return node not in self._doubted

    def doubt(self, node: str) -> bool:
        """Nothing is heard of a process on a node; say whether the node is in doubt now."""
        if node != self.here:
            self._doubted.add(node)
        return node in self._doubted

    def trust(self, node: str) -> None:
        """Somebody on a node has given a sign of life."""
        self._doubted.discard(node)

    def name(self, node: str) -> str:
        """Name a node by its host, and by its own id where several have one host."""
        return self._names.get(node, node[:8])

    def _connects(self, node: str) -> bool:
        try:
            socket.create_connection(self._raylets[node], timeout=CONNECT_S).close()
        except OSError:
            return False
        return True
