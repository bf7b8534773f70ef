"""The ledger of devices and waiting work: work-conserving, residency and memory kept, jobs in chunks.

After every decision no device has a free place for which an eligible job waits. The job with the policy's smallest key
goes first, on the device that holds the fewest chunks and, among those, completes it earliest, a model that has to be
loaded included; among equals on the one that least waits for. Where devices are unequal and the policy says so, a job
may leave an idle device to one that loses less there (`scheduler.claims`).

Short jobs of one group share a call, so that the cost of a call is small beside its work: a chunk holds at least
`CHUNK_MIN_S` of predicted work where there is as much, at most `CHUNK_MAX_S` (or one job), and never more than the
device's guided share of what waits (Polychronopoulos and Kuck 1987), so that devices end together. What is over within
a call of `DEAL_S` for each is dealt out evenly, at once: calls that even out what is left would cost more than that.
Places of one device get a share each where their company saves what those calls cost, or has to be tried.

The second place of a busy device goes to short work only: running chunk and next one at most `PREFETCH_S` each. It
saves the gap between two calls, some 2 ms, which counts beside short work only; a long job bound to a busy device could
not go to another that falls idle first, and binding late is what balances the load (Ousterhout et al. 2013, "Sparrow").
Work of unknown duration is never bound early, nothing is bound behind a site that has never answered or a chunk that
should have been over (it may hang, whatever was predicted; nor is it company that a job might not gain by), and
nothing short overtakes what is next there and long.

An event costs what it changes: devices that changed are offered to the lanes that reach them, lanes with a new head to
the open devices. What `predict`, `load` and `gain` say is asked again then, and for all that waits at `refresh`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from scheduler.choice import Choice, Gain, Load, Predict, Saves
from scheduler.claims import Claims, Found, pools
from scheduler.eligibility import Residency, admitted_bytes, infeasible
from scheduler.holds import holds
from scheduler.leases import Want
from scheduler.policy import Policy
from scheduler.shares import MIN_SHARE, WINDOW_S, Shares
from scheduler.shelves import PREFETCH_S, Chunk, Shelves, Slot
from scheduler.views import Assign, Device, Job, JobKey
from scheduler.waiting import Lane, Waiting
from scheduler.worth import Total, Worth

__all__ = [
    "CHUNK_MAX_S",
    "CHUNK_MIN_S",
    "DEPTH",
    "MIN_SHARE",
    "PREFETCH_S",
    "WINDOW_S",
    "Dispatcher",
    "Gain",
    "Load",
    "Predict",
    "Saves",
    "Total",
]

CHUNK_MIN_S = 0.010
CHUNK_MAX_S = 0.100
DEAL_S = 0.020
DEPTH = 2

_Queue = list[tuple[tuple[float, ...], int, Lane]]
"""A heap of lanes by what their heads' keys are."""


class Dispatcher:
    """Which device runs what next. Devices and jobs come and go; every call leaves the ledger consistent.

    `depth`: chunks that a device may hold per place, where they are short; `min_share`: of its equal share of the
    device-seconds over `window_s` seconds, what a run gets for certain while it has work.
    """

    def __init__(
        self,
        policy: Policy,
        depth: int = DEPTH,
        predict: Predict | None = None,
        load: Load | None = None,
        *,
        gain: Gain | None = None,
        saves: Saves | None = None,
        total: Total | None = None,
        min_share: float = MIN_SHARE,
        window_s: float = WINDOW_S,
    ) -> None:
        self.depth = depth
        self._predict = predict or (lambda job, device: job.estimate_s)
        self._load = load or (lambda model, device: 0.0)
        self._residency = Residency()
        self._waiting = Waiting(policy, self._residency)
        self._shelves = Shelves()
        self._shares = Shares(min_share, window_s, patience=1.0)
        self._choice = Choice(self._shelves, self._waiting, self._predict, self._load, gain=gain, saves=saves)
        self._worth = None if total is None else Worth(total, self._predict)

    @property
    def policy(self) -> Policy:
        """The policy that orders what waits."""
        return self._waiting.policy

    @property
    def devices(self) -> tuple[str, ...]:
        """List the devices that may be given work, in the order in which they joined."""
        return tuple(self._shelves.slots)

    def device(self, name: str) -> Device:
        """Give a device that is there."""
        return self._shelves.slots[name].device

    def join(self, device: Device) -> None:
        """A device may be given work from now on; one that is there stays as it is."""
        if device.name not in self._shelves.slots:
            self._shelves.place(Slot(device, self._residency.join(device), self.depth))
            self._devices_changed()

    def leave(self, device: str) -> tuple[Job, ...]:
        """A device is gone; return the jobs that it had, which wait for nobody now."""
        slot = self._shelves.remove(device)
        if slot is None:
            return ()
        self._residency.leave(device)
        self._devices_changed()
        self._waiting.free(device)
        return tuple(job for chunk in slot.chunks for job in chunk.jobs)

    def pause(self, device: str, is_paused: bool = True) -> None:
        """Give a device nothing more until it is taken up again; it counts as there, and ends what it has."""
        slot = self._shelves.slots.get(device)
        if slot is not None and slot.is_paused != is_paused:
            slot.is_paused = is_paused
            self._shelves.place(slot)

    def limit(self, device: str, places: int | None, by: str = "") -> None:
        """Use so many of a device's places from now on, None for all; what it has ends where it is.

        `by`: who says so; of what several say the least holds.
        """
        slot = self._shelves.slots.get(device)
        if slot is not None and slot.limits.get(by) != places:
            assert places is None or places > 0, f"{device} with {places} places: pause it, or let it leave"
            slot.limits[by] = places
            self._shelves.place(slot)

    def firsts(self, devices: Iterable[str]) -> Mapping[str, Want]:
        """Give what each of these devices, paused ones too, would be given first; no job waits for those left out."""
        self._waiting.settle()
        found: dict[str, Want] = {}
        lanes: dict[int, list[Lane]] = {}
        for device in devices:
            slot = self._shelves.slots.get(device)
            if slot is None:
                continue
            if slot.sort not in lanes:
                lanes[slot.sort] = sorted(self._waiting.of_sort(slot.sort), key=lambda lane: lane.entries[0][:2])
            lane = next((lane for lane in lanes[slot.sort] if lane.device in (None, device)), None)
            if lane is not None:
                found[device] = Want(lane.entries[0][0], self._predict(lane.head, slot.device))
        return found

    @property
    def num_waiting(self) -> int:
        """Count the jobs that wait."""
        return sum(len(lane.entries) for lane in self._waiting.lanes())

    def ask(self, jobs: Iterable[Job]) -> None:
        """Add work."""
        for job in jobs:
            self._waiting.ask(self._open(job))

    def withdraw(self, group: str) -> tuple[JobKey, ...]:
        """Take back the waiting work of a group; return what was waiting."""
        return self._waiting.withdraw(group)

    def has_waiting(self, group: str) -> bool:
        """Say whether work of a group still waits for a device."""
        return group in self._waiting

    def running(self, device: str) -> Sequence[tuple[Job, ...]]:
        """List the chunks that a device holds, in the order in which they were given."""
        slot = self._shelves.slots.get(device)
        return () if slot is None else tuple(chunk.jobs for chunk in slot.chunks)

    def done(self, device: str, jobs: Sequence[Job]) -> None:
        """A device has returned a chunk; what nobody waits for is ignored."""
        for slot, chunk in self._shelves.holding(device, jobs):
            slot.chunks.remove(chunk)
            self._shelves.place(slot)

    def overdue(self, device: str, jobs: Sequence[Job]) -> None:
        """A short chunk should have been over, whenever it was thought to begin: nothing waits behind it any more."""
        for slot, chunk in self._shelves.holding(device, jobs):
            if chunk.is_short:
                chunk.is_overdue = True
                self._shelves.place(slot)

    def use(self, policy: Policy) -> None:
        """Order what waits by another policy."""
        self._waiting.reorder(policy)

    def refresh(self, renew: Callable[[Job], Job]) -> None:
        """Take what was learned into account: renew every waiting job's `estimate_s` and `chain_s`, and order anew."""
        self._waiting.refresh(lambda job: self._open(renew(job)))

    def refusals(self, others: Iterable[Device] = (), absent: Iterable[Device] = ()) -> Mapping[JobKey, str]:
        """Name the waiting jobs that none of the devices, nor of these others, may ever take, with what is missing: as
        of `infeasible`.
        """
        self._waiting.settle()
        stuck = [job for lane in self._waiting.lanes() if not len(lane.reach) for _, _, job in lane.entries]
        return infeasible(stuck, [*(slot.device for slot in self._shelves.slots.values()), *others], absent)

    def decide(self, now_s: float = 0.0) -> list[Assign]:
        """Fill every free place, those of the emptiest devices first; `now_s` is any clock that never goes back."""
        self._waiting.settle()
        if not self._waiting and not self._shelves.fresh:
            return []
        self._shares.forget(now_s)
        self._choice.begin(now_s)
        self._shelves.tick(now_s)
        self._hold(now_s)
        self._retry(are_new=self._weigh())
        if not self._waiting:  # what is new of the devices is news to nobody
            self._shelves.fresh.clear()
            return []
        decisions: list[Assign] = []
        while self._waiting.fresh or self._shelves.fresh:
            self._choice.heads, self._waiting.fresh = self._waiting.fresh, {}
            level = 0
            while self._waiting and level < self._shelves.num_levels:
                if self._shelves.level(level):
                    decisions += self._fill_level(level, now_s)
                level += 1
            self._shelves.fresh.clear()
            self._retry(are_new=False)
        return decisions

    def _devices_changed(self) -> None:
        if self._worth is not None:
            self._worth.is_stale = True

    def _open(self, job: Job) -> Job:
        """Take note of work where what it is worth may matter."""
        if self._worth is not None and self._residency.shares_memory:
            self._worth.ask(job)
        return job

    def _weigh(self) -> bool:
        """Put prices on open work, where jobs share memory and the policy says so; say whether they are new."""
        is_on = self._residency.shares_memory and getattr(self.policy, "weighs", False)
        self._choice.worth = self._worth if is_on else None
        if self._choice.worth is None or not self._choice.worth.is_stale:
            return not is_on
        slots = self._shelves.slots.values()
        runs = {lane.run for lane in self._waiting.lanes()} | {c.jobs[0].run for slot in slots for c in slot.chunks}
        return self._choice.worth.settle(runs, (slot.device for slot in slots))

    def _retry(self, are_new: bool) -> None:
        """Offer what was not worth a place anew, where it may be by now."""
        self._waiting.fresh.update((lane.key, lane) for lane in self._choice.again(are_new))

    def _hold(self, now_s: float) -> None:
        """Hold devices for large jobs that go first, where jobs share memory and the policy says so."""
        if self._residency.shares_memory:
            lanes = self._waiting.lanes() if getattr(self.policy, "holds", False) else ()
            self._shelves.hold(holds(lanes, self._shelves.sorts, now_s))

    def _fill_level(self, level: int, now_s: float) -> list[Assign]:
        """Give the open devices that hold `level` chunks one more each."""
        if level == 0 and self._residency.is_uneven and getattr(self.policy, "claims", False):
            return self._settle(now_s)
        return self._fill(level, self._asking(level), now_s)

    def _settle(self, now_s: float) -> list[Assign]:
        """Give the idle devices a chunk each: by claims where jobs may choose between kinds of devices."""
        decisions: list[Assign] = []
        for pool in pools(lane for lane in self._asking(0) if self._idle(lane)):
            if len({self._residency.kinds[sort] for lane in pool for sort in lane.reach.sorts}) == 1:
                decisions += self._fill(0, pool, now_s)
                continue
            claims = Claims(now_s, self._shelves.sorts, self._predict, self._load, self._waiting.demand)
            while lanes := {lane: slots for lane in pool if lane.entries and (slots := self._idle(lane))}:
                runs = sorted({lane.run for lane in lanes})
                behind = {run for run in runs if len(runs) > 1 and self._shares.behind(run)}
                found = self._choice.warmest(claims.first(lanes, behind.__contains__))
                decisions.append(self._give(found, now_s, runs, found.lane.run in behind))
        return decisions

    def _idle(self, lane: Lane) -> Sequence[Slot]:
        """List the idle devices that a lane reaches, one for all that are equal."""
        shelves = self._shelves.level(0).items()
        return [self._shelves.slots[names[0]] for (sort, *_), names in shelves if sort in lane.reach.sorts]

    def _fill(self, level: int, lanes: Iterable[Lane], now_s: float) -> list[Assign]:
        """Give the open devices that hold `level` chunks one more each, as far as these lanes have work for them."""
        queues: dict[str, _Queue] = {}
        for lane in lanes:
            _push(queues.setdefault(lane.run, []), lane)
        offers = {run: self._offer(queue, level) for run, queue in queues.items()}
        decisions: list[Assign] = []
        while live := {run: offer for run, offer in offers.items() if offer is not None}:
            behind = [run for run in live if self._shares.behind(run)] if len(live) > 1 else []
            run = min(behind or live, key=lambda run: self._urgency(live[run]))
            decisions.append(self._give(live[run], now_s, list(live), bool(behind)))
            heapq.heappop(queues[run])
            if live[run].lane.entries:
                _push(queues[run], live[run].lane)
            for other, offer in live.items():
                if offer.slot is live[run].slot:
                    offers[other] = self._offer(queues[other], level)
        return decisions

    def _urgency(self, offer: Found) -> tuple[Any, ...]:
        """Order the runs' offers: by the policy's key, but beside other jobs by what fills the memory best first.

        A small job finds a place at any time; in the place of a large one it wastes what no other can use.
        """
        fills = offer.slot.chunks and not offer.slot.must_be_short and getattr(self.policy, "claims", False)
        return (-offer.lane.memory_bytes if fills else 0, *offer.lane.entries[0][:2])

    def _offer(self, queue: _Queue, level: int) -> Found | None:
        """Find the first lane of a run that a device of this level takes; drop those that none does."""
        while queue and self._shelves.level(level):
            lane = queue[0][2]
            slot = self._choice.best(lane, level)
            if slot is not None:
                return self._choice.warmest(Found(lane, 0, slot))
            heapq.heappop(queue)
        return None

    def _asking(self, level: int) -> Iterable[Lane]:
        """List the lanes with news for this level: their heads are new, or devices that they reach."""
        names = {slot.device.name: slot.sort for slot in self._shelves.fresh_at(level)}
        lanes = {lane.key: lane for lane in self._waiting.reaching(names)}
        if self._shelves.level(level):
            lanes |= {key: lane for key, lane in (self._choice.heads | self._waiting.fresh).items() if lane.entries}
        return lanes.values()

    def _give(self, found: Found, now_s: float, waiting: Sequence[str], is_behind: bool) -> Assign:
        """Give a device a chunk, and book it."""
        slot, lane = found.slot, found.lane
        chunk = self._chunk(slot, lane, found.place)
        slot.chunks.append(chunk)
        self._shelves.begin(slot, now_s)
        was_held = slot.hold is not None and slot.hold.lane == lane.key
        if was_held:
            self._hold(now_s)
        slot.warm = chunk.jobs[0].model or slot.warm
        self._shelves.place(slot)
        self._shares.give(now_s, lane.run, chunk.seconds, waiting)
        reason = self.policy.reason(chunk.jobs[0])
        if found.num_before:
            reason = f"{found.num_before} before it end sooner on faster devices; {reason}"
        if was_held:
            reason = f"the device was held for it; {reason}"
        if found.is_probe:
            reason = f"the smallest first, until it is known how fast devices are; {reason}"
        if is_behind:
            reason = f"{lane.run or 'this run'} is below its minimum share; {reason}"
        return Assign(slot.device.name, chunk.jobs, reason)

    def _chunk(self, slot: Slot, lane: Lane, place: int) -> Chunk:
        """Take a job out of a lane, and those that follow it while the chunk is short."""
        each = self._choice.places(slot, lane)
        places, num_now = each * lane.num_devices, self._shelves.num_in_turn(slot, lane.device, lane.reach.sorts, each)
        is_dealt = lane.waiting_s <= num_now * DEAL_S
        share = -(-len(lane.entries) // (num_now if is_dealt else places))
        limit_s = lane.waiting_s / (num_now if is_dealt else self.depth * places)
        limit_s = min(CHUNK_MAX_S, max(CHUNK_MIN_S, limit_s))
        counted = 0.5 if is_dealt else 1.0  # what is dealt out comes as near an even share as it may, above it too
        jobs = [self._waiting.take(lane, place)]
        seconds = self._predict(jobs[0], slot.device)
        total_s = None if seconds is None else seconds + self._choice.loading_s(jobs[0], slot)
        while len(lane.entries) > place and total_s is not None and len(jobs) < share and not jobs[-1].is_alone:
            following = self._predict(lane.entries[place][2], slot.device)
            if following is None or total_s + counted * following > limit_s or lane.entries[place][2].is_alone:
                break
            jobs.append(self._waiting.take(lane, place))
            total_s += following
        return Chunk(tuple(jobs), total_s, admitted_bytes(max(job.memory_bytes for job in jobs)))


def _push(queue: _Queue, lane: Lane) -> None:
    key, turn, _ = lane.entries[0]
    heapq.heappush(queue, (key, turn, lane))
