"""Members behind links as workers, beside those of this process's own runtime: one driver for the supervisor."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hierfl.errors import RuntimeUnavailable
from hierfl.link.lane import Lane
from hierfl.link.served import HERE, link_device
from hierfl.link.service import Service
from hierfl.runtime.crew import BUILDING
from hierfl.runtime.driver import Done, Driver, Handle, Seat
from hierfl.runtime.gate import Link
from hierfl.runtime.jobs import HubSpec, Post, WorkerSpec

__all__ = ["LinkedDriver"]

LOOK_S = 0.5
TURN_S = 0.005
"""How long the links wait for news before it is the runtime's turn, while both have something to do."""


class LinkedDriver:
    """Carries calls to members over their lanes, and all others to the runtime `base`."""

    def __init__(
        self, base: Driver, open_links: Callable[[Callable[[Done], None], Driver], tuple[Service, Mapping[str, Lane]]]
    ) -> None:
        self.kind = base.kind
        self._base = base
        self._open_links = open_links
        self._done: queue.SimpleQueue[Done] = queue.SimpleQueue()
        self._lanes: Mapping[str, Lane] = {}
        self._service: Service | None = None
        self._next_ticket = -1
        self._under_way: set[int] = set()
        self._trains = True
        self._builder = ""
        self._ended = False

    @property
    def link(self) -> Link | None:
        """Nothing leases devices: they are this run's own."""
        return self._base.link

    def start(self, spec: WorkerSpec, num_hubs: int) -> tuple[Seat, ...]:
        """Start the runtime's workers, and listen for members. Errors: RuntimeUnavailable, LinkError."""
        seats = self._base.start(spec, num_hubs)
        self._builder = seats[0].worker
        self._service, self._lanes = self._open_links(self._done.put, self._base)
        links = tuple(Seat(path, link_device(path)) for path in self._lanes)
        self._trains = not spec.sites.keys() <= self._lanes.keys()
        return (*(self._here(seats) if self._trains else ()), *links)  # else the runtime's worker builds the model only

    def grow(self) -> tuple[Seat, ...]:
        """Start workers on devices that have come since."""
        return self._here(self._base.grow()) if self._trains else ()

    def start_hub(self, spec: HubSpec, post: Post) -> None:
        """Make a replica of a hub's aggregator, in the runtime."""
        self._base.start_hub(spec, post)

    def processes(self) -> Mapping[str, Sequence[str]]:
        """List the runtime's processes of hubs."""
        return self._base.processes()

    def ping(self, process: str) -> int:
        """Ask a process of the runtime."""
        ticket = self._base.ping(process)
        self._under_way.add(ticket)
        return ticket

    def machine(self, actor: str) -> str:
        """Name a replica's machine."""
        return self._base.machine(actor)

    def call(self, actor: str, method: str, *arguments: Any) -> int:
        """Call a member over its lane, all others in the runtime, where the model is built whoever is asked."""
        lane = self._lanes.get(actor)
        if lane is None or method in BUILDING:
            ticket = self._base.call(actor if lane is None else self._builder, method, *arguments)
            self._under_way.add(ticket)
            return ticket
        ticket, self._next_ticket = self._next_ticket, self._next_ticket - 1
        places = {"train": (1,), "train_keeping": (1,), "evaluate": (2,), "fine_tune": (2,)}.get(method, ())
        values = tuple(self._base.get(given) if n in places else given for n, given in enumerate(arguments))
        lane.call(ticket, method, values)
        return ticket

    def aside(self, worker: str, method: str, *arguments: Any) -> int:
        """Go past what a worker of the runtime is at work on; a member is asked in turn."""
        if worker in self._lanes:
            return self.call(worker, method, *arguments)
        ticket = self._base.aside(worker, method, *arguments)
        self._under_way.add(ticket)
        return ticket

    def take_back(self, worker: str, tickets: Sequence[int]) -> int:
        """Take back what a worker of the runtime has not begun; a member keeps what it was sent."""
        if worker in self._lanes:
            ticket, self._next_ticket = self._next_ticket, self._next_ticket - 1
            self._done.put(Done(ticket, worker, ()))
            return ticket
        ticket = self._base.take_back(worker, tickets)
        self._under_way.add(ticket)
        return ticket

    def wait(self, timeout_s: float) -> Sequence[Done]:
        """Wait for news of either side."""
        for lane in self._lanes.values():
            lane.look()
        found = [*self._take(0.0), *self._base.wait(0.0)]
        left_s = timeout_s
        while not found and left_s > 0:
            if not self._under_way:
                found = self._take(left_s)
                break
            found = [*self._take(TURN_S), *self._base.wait(0.0)]
            left_s -= TURN_S
        self._under_way.difference_update(done.ticket for done in found)
        return [self._of_builder(done) if done.actor == self._builder and not self._trains else done for done in found]

    def _of_builder(self, done: Done) -> Done:
        """A worker that is nobody's device has ended a call: where it died, no other will do its work."""
        if done.crashed is None:
            return done
        return replace(done, crashed=None, error=RuntimeUnavailable(f"what builds the model died: {done.crashed}"))

    def restart(self, actor: str) -> tuple[str, ...]:
        """Give up what a member was asked, or replace a process of the runtime."""
        if actor in self._lanes:
            self._lanes[actor].reset()
            return (actor,)
        return self._base.restart(actor)

    def put(self, value: Any) -> Handle:
        """Store a vector in the runtime."""
        return self._base.put(value)

    def get(self, handle: Handle) -> Any:
        """Fetch a vector from the runtime."""
        return self._base.get(handle)

    def finish(self) -> None:
        """The run has come to its end: members are told so when the driver closes."""
        self._ended = True

    def close(self) -> None:
        """Say farewell to the members and end the runtime."""
        try:
            if self._service is not None:
                said = "the federation has finished" if self._ended else "the hub is closing; it may come back"
                self._service.close(said, final=self._ended)
        finally:
            self._base.close()

    def _here(self, seats: Sequence[Seat]) -> tuple[Seat, ...]:
        """Let the runtime's devices take what may not leave this process."""
        return tuple(replace(seat, device=replace(seat.device, labels=seat.device.labels | {HERE})) for seat in seats)

    def _take(self, timeout_s: float) -> list[Done]:
        """Give what the lanes have, all that is there."""
        found: list[Done] = []
        try:
            found.append(self._done.get(timeout=timeout_s) if timeout_s > 0 else self._done.get_nowait())
            while True:
                found.append(self._done.get_nowait())
        except queue.Empty:
            return found
