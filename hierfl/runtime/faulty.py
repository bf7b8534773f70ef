"""A driver that lets faults happen: what it starts says its steps, and what passes may be struck."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from hierfl.runtime.driver import Done, Driver, Handle, Seat, is_further
from hierfl.runtime.gate import Link
from hierfl.runtime.jobs import HubSpec, Outcome, Post, WorkerSpec
from hierfl.runtime.points import Points
from hierfl.runtime.way import Way
from hierfl.runtime.witness import Signed
from tiers.messages import Begin, Update

__all__ = ["FaultyDriver"]


class Supervisor(Protocol):
    """Hears of the steps of the run's own process."""

    def reached(self, step: str, round_number: int, nth: int = 1) -> None:
        """It has reached a step of a round of the root, counted from 0."""

    def look(self) -> None:
        """Say what has happened."""


class FaultyDriver:
    """Carries calls as `base` does, over a way on which they may be struck.

    `points`: makes what a process says its steps to, by the number of its replica from 1.
    """

    def __init__(
        self, base: Driver, root: str, supervisor: Supervisor, way: Way, points: Callable[[int], Points]
    ) -> None:
        self.kind = base.kind
        self._base = base
        self._root = root
        self._supervisor = supervisor
        self._way = way
        self._points = points
        self._round = 0
        self._seen: dict[tuple[str, int, str], int] = {}
        self._arriving: dict[int, int] = {}

    @property
    def link(self) -> Link | None:
        """Give the base's."""
        return self._base.link

    def start(self, spec: WorkerSpec, num_hubs: int) -> tuple[Seat, ...]:
        """Start workers that say what they reach."""
        return self._base.start(replace(spec, points=self._points(1)), num_hubs)

    def grow(self) -> tuple[Seat, ...]:
        """Start workers on devices that have come."""
        return self._base.grow()

    def enter(self, epoch: int) -> None:
        """Go on with another tree."""
        self._base.enter(epoch)

    def start_hub(self, spec: HubSpec, post: Post) -> None:
        """Make a replica of a hub's aggregator that says what it reaches."""
        self._base.start_hub(replace(spec, points=self._points(post.replica + 1)), post)

    def processes(self) -> Mapping[str, Sequence[str]]:
        """List the processes of hubs."""
        return self._base.processes()

    def ping(self, process: str) -> int:
        """Ask a process for a sign of life."""
        return self._way.ping(process)

    def machine(self, actor: str) -> str:
        """Name a replica's machine."""
        return self._base.machine(actor)

    def call(self, actor: str, method: str, *arguments: Any) -> int:
        """Call a method; the run reaches a step before some. What replicas are told counts once, at the first."""
        if method == "begin" and actor == self._root:
            event = arguments[0]
            assert isinstance(event, Begin)
            self._round = event.round_number
            self._seen.clear()
            self._supervisor.reached("open", self._round)
        if method != "arrive" or is_further(actor):
            return self._way.call(actor, method, arguments)
        nth = self._nth(actor, arguments[0])
        self._supervisor.reached("before_accept", self._round, nth)
        ticket = self._way.call(actor, method, arguments)
        self._arriving[ticket] = nth
        return ticket

    def aside(self, worker: str, method: str, *arguments: Any) -> int:
        """Call a worker's method past what it is at work on."""
        return self._base.aside(worker, method, *arguments)

    def take_back(self, worker: str, tickets: Sequence[int]) -> int:
        """Take back calls that have not begun."""
        return self._base.take_back(worker, tickets)

    def wait(self, timeout_s: float) -> Sequence[Done]:
        """Wait for calls to end; the run reaches a step after some."""
        found = self._way.through(list(self._base.wait(self._way.left_s(timeout_s))))
        self._supervisor.look()
        for done in found:
            self._ended(done)
        return found

    def restart(self, actor: str, *, silent: bool = False) -> tuple[str, ...]:
        """Replace a lost actor's process."""
        actors = self._base.restart(actor, silent=silent)
        self._way.renewed(actors)
        return actors

    def put(self, value: Any) -> Handle:
        """Store a vector."""
        return self._base.put(value)

    def get(self, handle: Handle) -> Any:
        """Fetch a vector."""
        return self._base.get(handle)

    def close(self) -> None:
        """End every actor."""
        self._base.close()

    def _ended(self, done: Done) -> None:
        """Let the run reach what a call's end means."""
        nth = self._arriving.pop(done.ticket, None)
        said = done.value.outcome if isinstance(done.value, Signed) else done.value
        if not isinstance(said, Outcome):
            return
        if nth is not None:
            self._supervisor.reached("after_accept", self._round, nth)
        if done.actor == self._root and said.closed:
            self._supervisor.reached("closed", self._round)
        if done.actor == self._root and said.finished is not None:
            self._supervisor.reached("published", self._round)

    def _nth(self, hub: str, update: Update) -> int:
        """Count the updates of the root's round; one that is handed over again has the number that it had."""
        key = (hub, update.round_number, update.shares[0].member)
        return self._seen.setdefault(key, len(self._seen) + 1)
