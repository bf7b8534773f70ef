"""Processes for hubs that have started ahead: whose own dies goes on in one, and need not wait for a fresh one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

__all__ = ["MOST", "Spares"]

MOST = 3
"""How many a node keeps at most, where processes die faster than they start."""


@dataclass
class _Spare:
    """A process, its sign of life, and whether that has come."""

    actor: Any
    sign: Any
    is_up: bool = False


class Spares:
    """Processes that serve nobody yet: one a node, and one more each time that somebody found none that was up.

    `start`: starts one on a node, which takes a second or two.
    """

    def __init__(self, start: Callable[[str], Any]) -> None:
        self._start = start
        self._waiting: dict[str, list[_Spare]] = {}
        self._kept: dict[str, int] = {}
        self.wanted: set[str] = set()
        """The nodes on which there are fewer than are to wait."""

    def soonest(self) -> set[str]:
        """Give the nodes on which one is up; if there is none, those on which one has begun."""
        self._look()
        up = {node for node, waiting in self._waiting.items() if any(spare.is_up for spare in waiting)}
        return up or {node for node, waiting in self._waiting.items() if waiting}

    def take(self, node: str) -> Any:
        """Give a process on a node: one that waits there and is up, else the one that began first, else a fresh one."""
        waiting = self._waiting.get(node, [])
        chosen = next((spare for spare in waiting if spare.is_up), waiting[0] if waiting else None)
        if node in self._kept and not (chosen and chosen.is_up):
            self._kept[node] = min(self._kept[node] + 1, MOST)
        if chosen is None:
            return self._start(node)
        waiting.remove(chosen)
        return chosen.actor

    def want(self, node: str) -> None:
        """Have some wait on a node, as soon as there is time to start them."""
        if len(self._waiting.get(node, ())) < self._kept.setdefault(node, 1):
            self.wanted.add(node)

    def fill(self, busy: Collection[str]) -> None:
        """Start those that are wanted, but for nodes that are busy with the start of somebody who is waited for.

        Those of one node start beside each other: each is up sooner than if it had to wait for the others.
        """
        for node in self.wanted.difference(busy):
            waiting = self._waiting.setdefault(node, [])
            while len(waiting) < self._kept[node]:
                actor = self._start(node)
                waiting.append(_Spare(actor, actor.ping.remote()))
        self.wanted.intersection_update(busy)

    def leave(self, node: str) -> None:
        """Let go of a node that may be gone."""
        self.wanted.discard(node)
        for spare in self._waiting.pop(node, ()):
            ray.kill(spare.actor, no_restart=True)

    def close(self) -> None:
        """End them."""
        for node in list(self._waiting):
            self.leave(node)

    def _look(self) -> None:
        """See whose sign of life has come; who has died meanwhile waits no more."""
        starting = {spare.sign: (node, spare) for node, spare in self._all() if not spare.is_up}
        if not starting:
            return
        come, _ = ray.wait(list(starting), num_returns=len(starting), timeout=0, fetch_local=False)
        for sign in come:
            node, spare = starting[sign]
            try:
                ray.get(sign)
                spare.is_up = True
            except RayError:
                self._waiting[node].remove(spare)
                self.want(node)

    def _all(self) -> Iterator[tuple[str, _Spare]]:
        for node, waiting in self._waiting.items():
            for spare in waiting:
                yield node, spare
