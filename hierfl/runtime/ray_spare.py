"""A process for hubs that has started ahead: whose own dies goes on in it, and need not wait for a fresh one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray

__all__ = ["Spare"]


class Spare:
    """At most one process that serves nobody yet, by its node; `start`: starts one on a node, which takes a second.

    There is none before a process has died: most runs need none, and where one died more may.
    """

    def __init__(self, start: Callable[[str], Any]) -> None:
        self._start = start
        self._waiting: tuple[str, Any] | None = None

    def take(self, node: str) -> Any:
        """Give a process on a node: the one that waits there, if there is one, or a fresh one."""
        if self._waiting is None or self._waiting[0] != node:
            return self._start(node)
        (_, actor), self._waiting = self._waiting, None
        return actor

    def renew(self, node: str) -> None:
        """Have one wait on a node, where one has died just now."""
        if self._waiting is not None and self._waiting[0] == node:
            return
        self.close()
        self._waiting = node, self._start(node)

    def close(self) -> None:
        """End it."""
        if self._waiting is not None:
            ray.kill(self._waiting[1], no_restart=True)
        self._waiting = None
