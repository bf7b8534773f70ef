"""Asks the processes of hubs for a sign of life, and says who has fallen silent; see `tiers.pulse`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from hierfl.runtime.driver import Done, Driver
from tiers.pulse import Attention, Pulse

__all__ = ["Watch"]

LOOKS = 8
"""How often in the shortest lease the processes are looked at."""


class Watch:
    """The processes of a run's hubs. `lease_of`: the lease of a replica, in seconds, by its actor's name."""

    def __init__(self, driver: Driver, lease_of: Callable[[str], float]) -> None:
        self._driver = driver
        self._lease_of = lease_of
        self._attention = Attention(float("inf"))
        self._pulse = Pulse()
        self._known: dict[str, frozenset[str]] = {}
        self._asked: dict[str, int] = {}
        self._pings: dict[int, str] = {}
        self._next_s = float("-inf")

    @property
    def now(self) -> float:
        """The seconds for which the supervisor has paid attention, up to its last look."""
        return self._attention.now

    def serve(self, lease_s: float) -> None:
        """There is a hub with this lease: look often enough."""
        self._attention.step_s = min(self._attention.step_s, lease_s / LOOKS)

    def left_s(self, clock_s: float) -> float:
        """Give the seconds until the next look is due; none is before there is a hub."""
        if self._attention.step_s == float("inf"):
            return float("inf")
        return max(self._next_s - clock_s, 0.0)

    def due(self, clock_s: float) -> bool:
        """Say whether it is time to look, and let time pass."""
        if clock_s < self._next_s or self._attention.step_s == float("inf"):
            return False
        self._next_s = clock_s + self._attention.step_s
        self._attention.look(clock_s)
        return True

    def look(self) -> Iterator[tuple[str, float]]:
        """Yield each process that has been silent for too long, with the seconds; ask all others once more."""
        processes = self._driver.processes()
        for process, actors in processes.items():
            self._meet(process, actors)
        yield from self._pulse.silent(self.now).items()
        for process in processes:
            if process not in self._asked:
                ticket = self._asked[process] = self._driver.ping(process)
                self._pings[ticket] = process

    def owns(self, ticket: int) -> bool:
        """Say whether this is a ping's."""
        return ticket in self._pings

    def is_current(self, done: Done) -> bool:
        """Take the end of a ping; say whether it is of the process that is there now, not of one before it."""
        process = self._pings.pop(done.ticket)
        if self._asked.get(process) != done.ticket:
            return False
        del self._asked[process]
        return True

    def beat(self, process: str) -> tuple[str, ...]:
        """A process has given a sign of life; give its replicas if it is the first one."""
        return tuple(self._known[process]) if self._pulse.beat(process, self.now) else ()

    def renewed(self, actors: Collection[str]) -> None:
        """The process of these replicas is a fresh one."""
        for process, known in self._known.items():
            if not known.isdisjoint(actors):
                self._asked.pop(process, None)
                self._pulse.start(process, min(map(self._lease_of, known)), self.now)

    def _meet(self, process: str, actors: Sequence[str]) -> None:
        """Take note of a process that is new, or serves more than it did."""
        serves = frozenset(actors)
        if not serves or self._known.get(process) == serves:
            return
        lease_s = min(map(self._lease_of, serves))
        if process in self._known:
            self._pulse.narrow(process, lease_s)
        else:
            self._pulse.start(process, lease_s, self.now)
        self._known[process] = serves
