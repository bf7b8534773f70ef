"""Processes for hubs that have started ahead: whose own dies goes on in one, and need not wait for a fresh one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import ray

__all__ = ["Spares"]


class Spares:
    """At most one process a node that serves nobody yet; `start`: starts one on a node, which takes a second."""

    def __init__(self, start: Callable[[str], Any]) -> None:
        self._start = start
        self._waiting: dict[str, Any] = {}
        self.wanted: set[str] = set()
        """The nodes on which one is to wait, and does not yet."""

    def take(self, node: str) -> Any:
        """Give a process on a node: the one that waits there, if there is one, or a fresh one."""
        return self._waiting.pop(node) if node in self._waiting else self._start(node)

    def want(self, node: str) -> None:
        """Have one wait on a node, as soon as there is time to start it."""
        if node not in self._waiting:
            self.wanted.add(node)

    def fill(self, busy: Collection[str]) -> None:
        """Start those that are wanted, but for nodes that are busy with the start of somebody who is waited for."""
        for node in self.wanted.difference(busy):
            self._waiting[node] = self._start(node)
        self.wanted.intersection_update(busy)

    def leave(self, node: str) -> None:
        """Let go of a node that may be gone."""
        self.wanted.discard(node)
        if node in self._waiting:
            ray.kill(self._waiting.pop(node), no_restart=True)

    def close(self) -> None:
        """End them."""
        while self._waiting:
            ray.kill(self._waiting.popitem()[1], no_restart=True)
