"""Members behind links as workers, beside those of this process's own runtime: one driver for the supervisor.

Where a hub has no centre, they are places, too: what is asked of a place goes to its member as a message, and vectors
go from member to member. What of them this process needs itself is brought before it is called.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hierfl.errors import RuntimeUnavailable
from hierfl.link.calls import FIRST_VECTORS, PlaceCall
from hierfl.link.commits import COMMITTED, Commits
from hierfl.link.errands import PLACE
from hierfl.link.lane import Lane
from hierfl.link.remote import is_remote
from hierfl.link.served import HERE, link_device
from hierfl.link.service import Service
from hierfl.link.shelf import Shelf
from hierfl.link.taking import Deferred, Taker
from hierfl.runtime.asking import BUILDING
from hierfl.runtime.driver import Done, Driver, Handle, Seat
from hierfl.runtime.gate import Link
from hierfl.runtime.jobs import HubSpec, Post, WorkerSpec
from hierfl.runtime.places import PLACE as AT
from tiers.federation import parent

__all__ = ["WOKEN", "LinkedDriver"]

LOOK_S = 0.5
_MODELS: Mapping[str, Collection[int]] = {"train": (1,), "train_keeping": (1,), "evaluate": (2,), "fine_tune": (2,)}
"""Which argument of a worker's methods is a model."""

WOKEN = Done(0, "")
"""Is no call's end: something has come that a call waits for."""

TURN_S = 0.005
"""How long the links wait for news before it is the runtime's turn, while both have something to do."""


class LinkedDriver:
    """Carries calls to `members` over their lanes, and all others to the runtime `base`.

    `open_links`: lets members come; `at_once`: when the runtime starts, else when the first of them is called. `taker`:
    brings what members hold; `num_sites`: counts the sites below a node.
    """

    def __init__(
        self,
        base: Driver,
        members: Sequence[str],
        open_links: Callable[[Callable[[Done], None], Driver], tuple[Service, Mapping[str, Lane]]],
        taker: Taker,
        num_sites: Callable[[str], int],
        tell: Callable[[str, str, str], None],
        *,
        at_once: bool = True,
    ) -> None:
        self.kind = base.kind
        self._base = base
        self._members = tuple(members)
        self._at_once = at_once
        self._open_links = open_links
        self._done: queue.SimpleQueue[Done] = queue.SimpleQueue()
        self._lanes: Mapping[str, Lane] = {}
        self._service: Service | None = None
        self._next_ticket = -1
        self._under_way: dict[int, int] = {}
        self._taker = taker
        self._num_sites = num_sites
        self._shelf = Shelf()
        self._deferred = Deferred(taker, self._call_here, lambda: self._done.put(WOKEN))
        self._commits = Commits(self._new_ticket, self._at_place, self._done.put, tell)
        self._trains = True
        self._builder = ""
        self._farewell = ""
        self._epoch = 0

    @property
    def link(self) -> Link | None:
        """Nothing leases devices: they are this run's own."""
        return self._base.link

    def start(self, spec: WorkerSpec, num_hubs: int) -> tuple[Seat, ...]:
        """Start the runtime's workers, and listen for members. Errors: RuntimeUnavailable, LinkError."""
        seats = self._base.start(spec, num_hubs)
        self._builder = seats[0].worker
        if self._at_once:
            self._listen()
        links = tuple(Seat(path, link_device(path)) for path in self._members)
        self._trains = not spec.sites.keys() <= set(self._members)
        own = self._seated(seats) if self._trains else ()  # else the runtime's worker builds the model only
        return (*own, *links)

    def grow(self) -> tuple[Seat, ...]:
        """Start workers on devices that have come since."""
        return self._seated(self._base.grow()) if self._trains else ()

    def enter(self, epoch: int) -> None:
        """Ask the members of this epoch's tree; those that have left for good are told so."""
        self._epoch = epoch
        self._base.enter(epoch)
        for lane in self._lanes.values():
            lane.enter(epoch)

    def start_hub(self, spec: HubSpec, post: Post) -> None:
        """Make a replica of a hub's aggregator, in the runtime."""
        self._base.start_hub(spec, post)

    def processes(self) -> Mapping[str, Sequence[str]]:
        """List the runtime's processes of hubs."""
        return self._base.processes()

    def ping(self, process: str) -> int:
        """Ask a process of the runtime."""
        return self._own(self._base.ping(process))

    def machine(self, actor: str) -> str:
        """Name a replica's machine."""
        return self._base.machine(actor)

    def call(self, actor: str, method: str, *arguments: Any) -> int:
        """Call a member over its lane, all others in the runtime, where the model is built whoever is asked."""
        path = actor.removeprefix(AT)
        is_member = path in self._members
        if not is_member or method in BUILDING:
            actor = self._builder if is_member else actor
            if not self._deferred.holds(actor, arguments):
                return self._own(self._base.call(actor, method, *arguments))
            ticket = self._new_ticket()
            self._deferred.add(ticket, actor, method, arguments)
            return ticket
        self._listen()
        ticket = self._new_ticket()
        at_place = range(FIRST_VECTORS.get(method, 0), len(arguments))
        vectors = _MODELS.get(method, ()) if path == actor else at_place
        values = tuple(self._here(one) if n in vectors else one for n, one in enumerate(arguments))
        if path == actor:
            self._lanes[path].call(ticket, method, values)
        elif method in COMMITTED:
            beside = [one for one in self._lanes if parent(one) == parent(path) and one != path]
            self._commits.begin(ticket, path, beside, method, values)
        else:
            self._at_place(ticket, path, method, values)
        return ticket

    def aside(self, worker: str, method: str, *arguments: Any) -> int:
        """Go past what a worker of the runtime is at work on; a member is asked in turn."""
        if worker in self._members:
            return self.call(worker, method, *arguments)
        return self._own(self._base.aside(worker, method, *arguments))

    def take_back(self, worker: str, tickets: Sequence[int]) -> int:
        """Take back what a worker of the runtime has not begun; a member keeps what it was sent."""
        if worker in self._members:
            ticket = self._new_ticket()
            self._done.put(Done(ticket, worker, ()))
            return ticket
        return self._own(self._base.take_back(worker, tickets))

    def wait(self, timeout_s: float) -> Sequence[Done]:
        """Wait for news of either side."""
        for lane in self._lanes.values():
            lane.look()
        found = [*self._take(0.0), *self._of_base()]
        left_s = timeout_s
        while not found and left_s > 0:
            if not self._under_way:
                found = self._take(left_s)
                break
            found = [*self._take(TURN_S), *self._of_base()]
            left_s -= TURN_S
        return [self._of_builder(done) if done.actor == self._builder and not self._trains else done for done in found]

    def _of_builder(self, done: Done) -> Done:
        """A worker that is nobody's device has ended a call: where it died, no other will do its work."""
        if done.crashed is None:
            return done
        return replace(done, crashed=None, error=RuntimeUnavailable(f"what builds the model died: {done.crashed}"))

    def restart(self, actor: str, *, silent: bool = False) -> tuple[str, ...]:
        """Give up what a member was asked, or replace a process of the runtime."""
        if actor.removeprefix(AT) in self._lanes:
            if actor in self._lanes:
                self._lanes[actor].reset()
            return (actor,)
        return self._base.restart(actor, silent=silent)

    def put(self, value: Any) -> Handle:
        """Store a vector in the runtime; what a member holds stays there."""
        return value if is_remote(value) else self._base.put(value)

    def get(self, handle: Handle) -> Any:
        """Fetch a vector from the runtime, or from the member that holds it."""
        return self._taker.value(handle) if is_remote(handle) else self._base.get(handle)

    def finish(self, said: str = "the federation has finished") -> None:
        """The run has come to its end: members are told so when the driver closes."""
        self._farewell = said

    def close(self) -> None:
        """Say farewell to the members and end the runtime."""
        try:
            self._deferred.close()
            if self._service is not None:
                said = self._farewell or "the hub is closing; it may come back"
                self._service.close(said, final=bool(self._farewell))
            for spool in {lane.spool for lane in self._lanes.values()}:
                spool.close()
        finally:
            self._base.close()

    def _listen(self) -> None:
        """Let members come, unless they may. Errors: LinkError; those of `open_links`."""
        if self._service is None:
            self._service, self._lanes = self._open_links(self._done.put, self._base)
            for lane in self._lanes.values():
                lane.enter(self._epoch)

    def _at_place(self, ticket: int, path: str, method: str, arguments: tuple[Any, ...]) -> None:
        """Ask a member's place."""
        hub = parent(path) or ""
        call = PlaceCall.of(hub, method, arguments, self._shelf.payload, self._num_sites(hub))
        self._lanes[path].call(ticket, PLACE, (call,))

    def _here(self, given: Any) -> Any:
        """Give a vector of the runtime's; what lies elsewhere stays there."""
        return given if given is None or is_remote(given) else self._base.get(given)

    def _new_ticket(self) -> int:
        ticket, self._next_ticket = self._next_ticket, self._next_ticket - 1
        return ticket

    def _own(self, ticket: int) -> int:
        """Note a call to the runtime."""
        self._under_way[ticket] = ticket
        return ticket

    def _call_here(self, ticket: int, actor: str, method: str, arguments: tuple[Any, ...]) -> None:
        """Make a call to the runtime that has waited for vectors."""
        self._under_way[self._base.call(actor, method, *arguments)] = ticket

    def _of_base(self) -> list[Done]:
        """Give the ends of calls to the runtime, by the tickets that whoever made them has."""
        return [replace(done, ticket=self._under_way.pop(done.ticket, done.ticket)) for done in self._base.wait(0.0)]

    def _seated(self, seats: Sequence[Seat]) -> tuple[Seat, ...]:
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
            pass
        failed = self._deferred.go_on()
        found = [*found, *(Done(ticket, actor, error=error) for ticket, actor, error in failed)]
        return [one for done in found if done is not WOKEN for one in self._commits.heard(done)]
