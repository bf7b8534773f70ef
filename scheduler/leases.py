"""Devices leased to runs: which run may use which device now. What the device does meanwhile is the run's own decision.

Several federations share a cluster, each with a dispatcher of its own that knows its jobs. Here only the first job that
each would give to a device counts, by its policy's key, so that what is granted chunk by chunk is what one dispatcher
with all the jobs would have decided (two levels, as Hindman et al. 2011, "Mesos"; leases after Gray and Cheriton 1989).

A device that nobody else wants stays leased, without a word per chunk. Once another run wants it, its holder is told,
and gives it back when what runs there has ended: no work is preempted. So that tiny jobs do not make it go to and fro,
the holder has at least `slice_s` of it, as long as it has work for it. A minimum share of the device-seconds that
several runs wanted is each run's for certain (`scheduler.shares`). Runs with different policies have keys that do not
compare: the one that was granted a device the longest ago goes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from scheduler.guests import ANY, Beside, Guest, Guests, Model
from scheduler.shares import MIN_SHARE, WINDOW_S, Shares

__all__ = ["SLICE_S", "Granted", "LeaseDecision", "Leases", "Recall", "Want"]

SLICE_S = 0.25


@dataclass(frozen=True, slots=True)
class Want:
    """The first job that a run would give to a device: its policy's key, the smallest first, and predicted seconds.

    `model`: what it would train there, where others may do so beside it.
    """

    key: tuple[float, ...]
    seconds: float | None = None
    model: Model = ANY


@dataclass(frozen=True, slots=True)
class Granted:
    """Decision: a run has a device from now on; `number` tells this lease from all others.

    `places`: how many jobs it may run there at once; None: as many as the device has places.
    """

    run: str
    device: str
    number: int
    reason: str
    places: int | None = None


@dataclass(frozen=True, slots=True)
class Recall:
    """Decision: a run gives a device back, `after_s` seconds from now or once it has no work for it.

    What runs there ends first. Number 0: whatever lease of it the run thinks it has. `keep`: it keeps so many places,
    and the rest is given back as soon as no more jobs of it run there.
    """

    run: str
    device: str
    number: int
    after_s: float
    reason: str
    keep: int = 0


LeaseDecision: TypeAlias = Granted | Recall


@dataclass(eq=False, slots=True)
class _Lease:
    """A device in a run's hands. `wanted_s`: since when others want it; `booked_s`: what the run was charged so far."""

    run: str
    number: int
    since_s: float
    wanted_s: float | None = None
    booked_s: float = 0.0
    wanting: tuple[str, ...] = ()


@dataclass(eq=False, slots=True)
class _Run:
    """What a run wants; `left`: how many devices it has work for; `turn`: the number of its latest lease."""

    policy: str
    turn: int
    wants: Mapping[str, Want] = field(default_factory=dict)
    left: int = 0


_Queue: TypeAlias = list[tuple[tuple[float, ...], float, str]]
"""A run's free devices, the best last: (key, predicted seconds, device)."""


class Leases:
    """Who holds what. Runs and devices come and go; after `decide` no device is free that a run has work for.

    `min_share`: of its equal share over `window_s` seconds, what a run gets for certain while it wants; `slice_s`: how
    long a run keeps a device that others want, if it has work for it. Seconds are the caller's, and never go back.
    """

    def __init__(self, min_share: float = MIN_SHARE, window_s: float = WINDOW_S, slice_s: float = SLICE_S) -> None:
        self.slice_s = slice_s
        self._shares = Shares(min_share, window_s)
        self._leases: dict[str, _Lease | None] = {}
        self._runs: dict[str, _Run] = {}
        self._number = 0
        self._parting: set[int] = set()
        self._told: list[LeaseDecision] = []
        self.guests = Guests()

    @property
    def devices(self) -> tuple[str, ...]:
        """List the devices that may be leased."""
        return tuple(self._leases)

    @property
    def runs(self) -> tuple[str, ...]:
        """List the runs, in the order in which they registered."""
        return tuple(self._runs)

    def holder(self, device: str) -> str | None:
        """Name the run that has a device, if any has."""
        lease = self._leases.get(device)
        return None if lease is None else lease.run

    def offer(self, device: str) -> None:
        """A device may be leased from now on."""
        self._leases.setdefault(device, None)

    def withdraw(self, device: str) -> None:
        """A device is gone; its lease ends with it."""
        self._leases.pop(device, None)
        self.guests.withdraw(device)

    def register(
        self, run: str, policy: str = "", holds: Iterable[str] = (), now_s: float = 0.0, after: int = 0
    ) -> None:
        """Take in a run. `policy`: keys compare between runs of one policy; `holds`: what it had before this ledger.

        What another run holds by now, it is told to give back. `after`: the highest number of a lease that it knows;
        all that begin now have higher ones, so that what it says of an earlier ledger's leases is of none of this one.
        """
        assert run not in self._runs, f"{run} has registered before"
        self._number = max(self._number, after)
        self._runs[run] = _Run(policy, self._number)
        for device in holds:
            if device in self._leases and self._leases[device] is None:
                self._lease(run, device, now_s, "it had the device before")
            else:
                self._told.append(Recall(run, device, 0, 0.0, "another run has it"))

    def leave(self, run: str, now_s: float = 0.0) -> None:
        """A run is over; what it held is free."""
        self._runs.pop(run, None)
        for device, lease in self._leases.items():
            self.guests.exit(device, run, now_s)
            if lease is not None and lease.run == run:
                self._leases[device] = None
                self._promote(device, now_s)

    def want(self, run: str, wants: Mapping[str, Want], num_jobs: int) -> None:
        """Say what a run would do with each device that it has not; it has `num_jobs` jobs for all of them together."""
        self._runs[run].wants, self._runs[run].left = dict(wants), num_jobs

    def release(self, run: str, device: str, number: int, now_s: float) -> None:
        """A run gives a device back; a lease that it has not, by its number, is ignored."""
        guest = self.guests.of(device).get(run)
        if guest is not None and guest.number == number:
            self.guests.exit(device, run, now_s)
            return
        lease = self._leases.get(device)
        if lease is None or (lease.run, lease.number) != (run, number):
            return
        if lease.wanted_s is not None:
            self._shares.give(now_s, run, now_s - lease.wanted_s - lease.booked_s, lease.wanting)
        self._leases[device] = None
        self._promote(device, now_s)

    def beside(self, run: str, said: Beside, now_s: float) -> None:
        """A run tells of devices that it shares."""
        for rate in said.rates:
            self.guests.observe(run, rate, now_s)
        for device in said.short:
            self.guests.out_of_memory(device)
        for device, number in said.narrowed.items():
            lease = self._leases.get(device)
            if lease is not None and (lease.run, lease.number) == (run, number):
                self.guests.open(device, run)

    def decide(self, now_s: float) -> list[LeaseDecision]:
        """Lease every free device that a run wants, and recall those that other runs want; tell it in order."""
        self._shares.forget(now_s)
        self._grant(now_s)
        self._share(now_s)
        self._recall(now_s)
        told, self._told = self._told, []
        return told

    def _grant(self, now_s: float) -> None:
        """Lease what is free, each time to the run that is behind or has the first job, on its fastest device."""
        queues = {run: self._queue(run) for run in self._runs}
        while True:
            live = {run: queue for run, queue in queues.items() if self._advance(run, queue)}
            if not live:
                return
            behind = [run for run in live if self._shares.behind(run)] if len(live) > 1 else []
            comparable = len({self._runs[run].policy for run in live}) == 1
            run = min(behind or live, key=lambda run: self._rank(run, live[run], comparable))
            _, _, device = live[run].pop()
            rivals = self._wanting(device, run)
            if behind and len(behind) < len(live):
                reason = "it is below its minimum share"
            elif rivals:
                reason = f"its work goes first of {len(rivals) + 1} runs'"
            else:
                reason = "no other run wants it"
            seconds = self._runs[run].wants[device].seconds
            self._runs[run].left -= 1
            lease = self._lease(run, device, now_s, reason)
            if rivals and not self._coming(device, run):
                lease.wanted_s, lease.wanting = now_s, (run, *rivals)
                lease.booked_s = self.slice_s if seconds is None else seconds
                self._shares.give(now_s, run, lease.booked_s, lease.wanting)
                self._tell_back(device, lease, self.slice_s, rivals)

    def _share(self, now_s: float) -> None:
        """Let runs be guests on devices that others hold, where that pays, and end what does not."""
        for device, lease in self._leases.items():
            if lease is None:
                continue
            parting = self.guests.must_part(device)
            if parting is not None and parting.number not in self._parting:
                self._parting.add(parting.number)
                reason = f"it gains nothing beside {lease.run}"
                self._told.append(Recall(parting.run, device, parting.number, 0.0, reason))
            coming = self._coming(device, lease.run)
            if coming and self.guests.ask(device):
                said = f"{coming[0]} may share it"
                self._told.append(Recall(lease.run, device, lease.number, 0.0, said, keep=1))
            elif coming and self.guests.is_open(device):
                self._admit(coming[0], device, lease, now_s)
            elif not coming and self.guests.close(device, now_s) and lease.wanted_s is None:
                said = "it is alone there again"
                self._told.append(Granted(lease.run, device, lease.number, said))

    def _coming(self, device: str, host: str) -> list[str]:
        """List the runs that should be guests on a device, those first whose work goes first."""
        wanting = self._wanting(device, host) if self.guests.has_room(device) else ()
        may = [run for run in wanting if self.guests.may_enter(device, run, self._runs[run].wants[device].model)]
        comparable = len({self._runs[run].policy for run in may}) == 1
        return sorted(
            may, key=lambda run: (self._runs[run].wants[device].key if comparable else (), self._runs[run].turn)
        )

    def _admit(self, run: str, device: str, lease: _Lease, now_s: float) -> None:
        """Let a run use one place of a device beside its host, which keeps its own though it was told to go."""
        if lease.wanted_s is not None:
            self._shares.give(now_s, lease.run, now_s - lease.wanted_s - lease.booked_s, lease.wanting)
            lease.wanted_s, lease.booked_s, lease.wanting = None, 0.0, ()
            self._told.append(Granted(lease.run, device, lease.number, f"{run} shares it", places=1))
        self._number += 1
        self._runs[run].turn = self._number
        self._runs[run].left -= 1
        self.guests.enter(device, Guest(run, self._number, self._runs[run].wants[device].model), now_s)
        self._told.append(Granted(run, device, self._number, f"it shares the device with {lease.run}", places=1))

    def _promote(self, device: str, now_s: float) -> None:
        """A device's host has gone: the first of its guests is host now."""
        guests = self.guests.leave(device, now_s)
        if not guests:
            return
        first = guests[0]
        self.guests.exit(device, first.run, now_s)
        self._number += 1
        self._leases[device] = _Lease(first.run, self._number, now_s)
        self.guests.host(device, first.run, first.model, now_s, is_open=True)
        said = "its host has left"
        self._told.append(Granted(first.run, device, self._number, said, places=1))

    def _recall(self, now_s: float) -> None:
        """Tell the holders of devices that other runs have begun to want, and are not to share."""
        for device, lease in self._leases.items():
            if lease is not None and lease.wanted_s is None and not self._coming(device, lease.run):
                rivals = self._wanting(device, lease.run)
                if rivals:
                    lease.wanted_s, lease.wanting = now_s, (lease.run, *rivals)
                    self._tell_back(device, lease, max(0.0, lease.since_s + self.slice_s - now_s), rivals)

    def _queue(self, run: str) -> _Queue:
        """Order the free devices that a run wants: the best, last, has its first job, and is the fastest for it."""
        wants = self._runs[run].wants
        free = (device for device in wants if device in self._leases and self._leases[device] is None)
        return sorted(((wants[device].key, wants[device].seconds or 0.0, device) for device in free), reverse=True)

    def _advance(self, run: str, queue: _Queue) -> bool:
        """Drop what is free no more; say whether the run still has a device to take and work for it."""
        while queue and self._leases[queue[-1][2]] is not None:
            queue.pop()
        return bool(queue) and self._runs[run].left > 0

    def _rank(self, run: str, queue: _Queue, comparable: bool) -> tuple[tuple[float, ...], int]:
        """Order runs by their first jobs where these compare, else by how long ago they were granted a device."""
        return (queue[-1][0] if comparable else (), self._runs[run].turn)

    def _wanting(self, device: str, but: str) -> Sequence[str]:
        """List the runs that have work for a device, but for one of them and its guests."""
        inside = {but, *self.guests.of(device)}
        return [
            run for run, state in self._runs.items() if run not in inside and state.left > 0 and device in state.wants
        ]

    def _lease(self, run: str, device: str, now_s: float, reason: str) -> _Lease:
        """Put a device into a run's hands."""
        self._number += 1
        self._runs[run].turn = self._number
        lease = self._leases[device] = _Lease(run, self._number, now_s)
        want = self._runs[run].wants.get(device)
        self.guests.host(device, run, want.model if want is not None else ANY, now_s)
        self._told.append(Granted(run, device, self._number, reason))
        return lease

    def _tell_back(self, device: str, lease: _Lease, after_s: float, rivals: Sequence[str]) -> None:
        """Tell a holder until when it may keep a device."""
        reason = f"{', '.join(rivals)} want{'s' if len(rivals) == 1 else ''} it"
        self._told.append(Recall(lease.run, device, lease.number, after_s, reason))
