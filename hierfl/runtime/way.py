"""What is said to hubs, on its way there and back: handed over twice, changed, or held up for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hierfl.fault import MESSAGE, Moment, Plan
from hierfl.learning.compression import Packed
from hierfl.runtime.driver import Done, Driver, hub_of
from hierfl.runtime.points import Claims
from hierfl.runtime.sums import Part
from tiers.messages import Update

__all__ = ["Way", "garbled"]

FIRST_TICKET = 1 << 40
"""Tickets of what waits here: far from those of drivers."""


@dataclass
class _Handed:
    """An update that is about to be handed to a replica of a hub."""

    way: Way
    actor: str
    arguments: tuple[Any, ...]
    copies: int = 0

    def repeat(self, copies: int) -> None:
        """Hand it over so many times more."""
        self.copies += copies

    def garble(self, bit: int) -> None:
        """Change one bit of what goes there; what the sender has stays."""
        update, part = self.arguments
        driver = self.way.driver
        self.arguments = update, driver.put(garbled(driver.get(part), bit))

    def cut_off(self, for_s: float) -> None:
        """Hold up all that is said to the replica, and all that it answers."""
        self.way.cut_off(self.actor, for_s)


@dataclass(frozen=True)
class _Waiting:
    """Something to be said once the way is open again."""

    ticket: int
    actor: str
    say: Callable[[], int]


class Way:
    """Between the run's supervisor and its hubs. `now`: a clock that does not go back."""

    def __init__(self, driver: Driver, plan: Plan, claims: Claims, now: Callable[[], float] = time.monotonic) -> None:
        self.driver = driver
        self._plan = plan.of(MESSAGE)
        self._claims = claims
        self._now = now
        self._nth: dict[tuple[str, int], dict[str, int]] = {}
        self._until: dict[str, float] = {}
        self._waiting: list[_Waiting] = []
        self._answers: list[Done] = []
        self._named: dict[int, int] = {}
        self._next = FIRST_TICKET

    def call(self, actor: str, method: str, arguments: tuple[Any, ...]) -> int:
        """Call a method of an actor, or keep that until the way is open."""
        copies = 0
        if method == "arrive" and self._plan.faults:
            handed = self._strike(actor, arguments)
            arguments, copies = handed.arguments, handed.copies
        call = self.driver.call
        ticket = self._say(actor, lambda: call(actor, method, *arguments))
        for _ in range(copies):
            self._say(actor, lambda: call(actor, method, *arguments))  # whoever asked knows nothing of these
        return ticket

    def ping(self, process: str) -> int:
        """Ask a process for a sign of life."""
        return self._say(process, lambda: self.driver.ping(process))

    def cut_off(self, actor: str, for_s: float) -> None:
        """Hold up all that is said to an actor, and all that it answers, signs of life too."""
        until = self._now() + for_s
        for name in self._beside([actor]):
            self._until[name] = max(self._until.get(name, 0.0), until)

    def left_s(self, timeout_s: float) -> float:
        """Give the seconds for which to wait at most."""
        return max(0.0, min([timeout_s, *(until - self._now() for until in self._until.values())]))

    def through(self, found: Sequence[Done]) -> list[Done]:
        """Give what comes through of what has been answered; say what has waited long enough."""
        now = self._now()
        for name in [name for name, until in self._until.items() if until <= now]:
            del self._until[name]
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if one.actor in self._until:
                self._waiting.append(one)
            else:
                self._named[one.say()] = one.ticket
        answers = [*self._answers, *found]
        self._answers = [done for done in answers if done.actor in self._until]
        through = [done for done in answers if done.actor not in self._until]
        return [replace(done, ticket=self._named.pop(done.ticket, done.ticket)) for done in through]

    def renewed(self, actors: Iterable[str]) -> None:
        """Fresh processes are in the place of these: nothing is on its way to them, and it is open."""
        gone = self._beside(actors)
        for name in gone:
            self._until.pop(name, None)
        self._waiting = [one for one in self._waiting if one.actor not in gone]
        self._answers = [done for done in self._answers if done.actor not in gone]

    def _beside(self, actors: Iterable[str]) -> set[str]:
        """Add the processes in which actors are."""
        found = set(actors)
        return found | {process for process, within in self.driver.processes().items() if found & set(within)}

    def _say(self, actor: str, say: Callable[[], int]) -> int:
        if actor not in self._until:
            return say()
        self._next += 1
        self._waiting.append(_Waiting(self._next, actor, say))
        return self._next

    def _strike(self, actor: str, arguments: tuple[Any, ...]) -> _Handed:
        """Let happen what is due to an update."""
        handed, (hub, replica) = _Handed(self, actor, arguments), hub_of(actor)
        update = arguments[0]
        assert isinstance(update, Update)
        nths = self._nth.setdefault((actor, update.round_number), {})
        nth = nths.setdefault(update.shares[0].member, len(nths) + 1)
        moment = Moment(hub, "before_accept", update.round_number + 1, nth, replica + 1)
        for fault in self._plan.due(moment):
            if self._claims.claim(fault, moment):
                fault.what.strike(handed)
        return handed


def garbled(part: Part, bit: int) -> Part:
    """Copy an update with one bit changed."""
    if isinstance(part, Packed):
        name = min(part.code)
        return replace(part, code={**part.code, name: _flipped(part.code[name], bit)})
    return replace(part, floats=_flipped(part.floats, bit))


def _flipped(vector: Any, bit: int) -> Any:
    """Copy a vector with one bit changed, counted over all of its bytes from the first."""
    copy = np.array(vector)
    content = copy.reshape(-1).view(np.uint8)
    content[bit // 8 % content.size] ^= np.uint8(1 << (bit % 8))
    return copy
