"""The nodes of a Ray cluster, and which of them may be gone: Ray itself misses one a quarter of a minute after its end.

A node whose raylet takes no connection any more, or of whose processes nothing was heard, is in doubt until somebody
there gives a sign of life, or the doubt is old. A raylet that never took one says nothing: who knows what lies between.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray

__all__ = ["Nodes"]

CONNECT_S = 1.5
"""How long a raylet may take to accept a connection, which its kernel does: a millisecond, unless the first packet is
lost, which is sent again after one second.
"""

DOUBT_S = 30.0
"""How old a doubt grows. Ray has missed a node by then that is gone: one that it still knows and that takes connections
is there.
"""

MAX_AT_ONCE = 32
"""How many nodes that have come are looked at at once."""


class Nodes:
    """Nodes by Ray's ids. The run's own is beyond doubt."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._raylets: dict[str, tuple[str, int]] = {}
        self._reached: set[str] = set()
        self._doubted: dict[str, float] = {}

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
        self._doubted = {node: since_s for node, since_s in self._doubted.items() if node in nodes}
        self._let_lapse()
        return {node: name for node, name in nodes.items() if node not in self._doubted} or nodes

    def answers(self, node: str) -> bool:
        """Say whether a node's raylet takes connections as it did; it is in doubt if not."""
        if node not in self._doubted and node in self._reached and node != self.here and not self._connects(node):
            self._doubted[node] = time.monotonic()
        return node not in self._doubted

    def doubt(self, node: str) -> bool:
        """Nothing is heard of a process on a node; say whether the node is in doubt now."""
        if node != self.here:
            self._doubted[node] = time.monotonic()
        return node in self._doubted

    def trust(self, node: str) -> None:
        """Somebody on a node has given a sign of life."""
        self._doubted.pop(node, None)

    def name(self, node: str) -> str:
        """Name a node by its host, and by its own id where several have one host."""
        return self._names.get(node, node[:8])

    def _let_lapse(self) -> None:
        """End the doubts that are old: where no process of the run is any more, nobody will give a sign of life."""
        old_s = time.monotonic() - DOUBT_S
        for node in [node for node, since_s in self._doubted.items() if since_s <= old_s]:
            if node in self._reached and not self._connects(node):
                self._doubted[node] = time.monotonic()
            else:
                del self._doubted[node]

    def _connects(self, node: str) -> bool:
        try:
            socket.create_connection(self._raylets[node], timeout=CONNECT_S).close()
        except OSError:
            return False
        return True
