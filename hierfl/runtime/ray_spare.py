"""Processes for hubs that have started ahead: whose own dies goes on in one, and need not wait for a fresh one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray

__all__ = ["Spares"]


class Spares:
    """At most one process a node that serves nobody yet; `start`: starts one on a node, which takes a second.

    There is none on a node before a process has died there: most runs need none, and where one died more may.
    """

    def __init__(self, start: Callable[[str], Any]) -> None:
        self._start = start
        self._waiting: dict[str, Any] = {}

    def take(self, node: str) -> Any:
        """Give a process on a node: the one that waits there, if there is one, or a fresh one."""
        return self._waiting.pop(node) if node in self._waiting else self._start(node)

    def renew(self, node: str) -> None:
        """Have one wait on a node, where one has died just now."""
        if node not in self._waiting:
            self._waiting[node] = self._start(node)

    def close(self) -> None:
        """End them."""
        while self._waiting:
            ray.kill(self._waiting.popitem()[1], no_restart=True)
