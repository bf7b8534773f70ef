"""Which of the devices that may take a job gets it: the one that completes it earliest, its data and model at hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from scheduler.claims import Found, least_wanted
from scheduler.eligibility import admitted_bytes
from scheduler.holds import may_begin
from scheduler.shelves import PREFETCH_S, Shelves, Slot
from scheduler.views import Device, Job
from scheduler.waiting import Entry, Lane, LaneKey, Waiting
from scheduler.worth import Worth

__all__ = ["Choice", "Gain", "Load", "Predict", "Saves"]

Predict = Callable[[Job, Device], float | None]
"""Predicted seconds of a job on a device, equal for all devices of a kind; None if unknown."""

Load = Callable[[str, Device], float]
"""Seconds to load a model on a device, equal for all devices of a kind."""

Gain = Callable[[tuple[Job, ...], Job, Device], bool]
"""Whether a job should run beside these on a device, told by the models, the memory and the device's sort alone."""

Saves = Callable[[Job], Mapping[str, float]]
"""The devices that hold a job's data already, by name, and the seconds that each saves by that."""


class Choice:
    """Chooses among the open devices of a ledger. `heads`: lanes with a new head, which try every shelf.

    `worth`: what companies are worth, None where that does not matter.
    """

    def __init__(
        self,
        shelves: Shelves,
        waiting: Waiting,
        predict: Predict,
        load: Load,
        *,
        gain: Gain | None = None,
        saves: Saves | None = None,
    ) -> None:
        self.heads: dict[LaneKey, Lane] = {}
        self._shelves = shelves
        self._waiting = waiting
        self._predict = predict
        self._load = load
        self._gain = gain
        self._saves = saves
        self.worth: Worth | None = None
        self._firsts: dict[tuple[str | None, int, str | None], tuple[Lane, Entry]] = {}
        self._declined: dict[LaneKey, set[int]] = {}
        self._now_s = 0.0

    def begin(self, now_s: float) -> None:
        """A new moment: what went first before may not any more."""
        self._now_s = now_s
        self._firsts.clear()

    def again(self, are_new: bool) -> Iterator[Lane]:
        """Go through the lanes that were not worth a place and go first by now; all of them at new prices."""
        for key, sorts in list(self._declined.items()):
            lane = self._waiting.lane(key)
            if lane is None or are_new or any(self._is_next(lane, sort, None) for sort in sorts):
                del self._declined[key]
                if lane is not None:
                    yield lane

    def best(self, lane: Lane, level: int) -> Slot | None:
        """Find the open device that completes a lane's head earliest, the least wanted among equals."""
        best: list[Slot] = []
        soonest_s = math.inf
        seconds: dict[str, float | None] = {}
        for slot in self._open(lane, level):
            kind = slot.device.kind
            if kind not in seconds:
                seconds[kind] = self._predict(lane.head, slot.device)
            predicted, wait_s = seconds[kind], self.loading_s(lane.head, slot)
            ends_s = (predicted or 0.0) + wait_s
            if ends_s <= soonest_s and self._takes(slot, lane, predicted, wait_s):
                best = [*best, slot] if ends_s == soonest_s else [slot]
                soonest_s = ends_s
        return least_wanted(best, self._waiting.demand) if best else None

    def _open(self, lane: Lane, level: int) -> Iterable[Slot]:
        """List the open devices that a lane may try: the first of each shelf, or the changed ones for an old head."""
        slots = self._shelves.slots
        if lane.device is not None:
            slot = slots[lane.device]
            return (slot,) if slot.is_open and len(slot.chunks) == level else ()
        if lane.key in self.heads or lane.key in self._waiting.fresh:
            shelves = self._shelves.level(level).items()
            return [slots[names[0]] for (sort, *_), names in shelves if sort in lane.reach.sorts]
        return [slot for slot in self._shelves.fresh_at(level) if slot.sort in lane.reach.sorts]

    def _takes(self, slot: Slot, lane: Lane, predicted: float | None, wait_s: float) -> bool:
        """Say whether a device may take the head of a lane beside what it holds."""
        if not slot.chunks:
            return True
        if not slot.fits(admitted_bytes(lane.head.memory_bytes)):
            return False
        if slot.hold is not None and not may_begin(slot.hold, lane, slot, predicted, self._now_s):
            return False
        if slot.must_be_short:
            return (
                predicted is not None and predicted + wait_s <= PREFETCH_S and self._is_next(lane, slot.sort, lane.run)
            )
        beside = tuple(chunk.jobs[0] for chunk in slot.chunks if not chunk.is_overdue)  # what hangs is no company
        if self._gain is not None and beside and not self._gain(beside, lane.head, slot.device):
            return False
        if self.worth is None or not beside or self.worth.joins(beside, lane.head, slot.device):
            return True
        if self._is_next(lane, slot.sort, None):
            return True
        self._declined.setdefault(lane.key, set()).add(slot.sort)
        return False

    def places(self, slot: Slot, lane: Lane) -> int:
        """Count the places of a device that jobs of a lane would use at once: one where company is not worth it."""
        alone = slot.places > 1 and self._gain is not None and not self._gain((lane.head,), lane.head, slot.device)
        return 1 if alone else slot.places

    def _is_next(self, lane: Lane, sort: int, run: str | None) -> bool:
        """Say whether nothing of a run (None: any) that devices of this sort may take stands before a lane's head."""
        key = (run, sort, lane.device)
        found = self._firsts.get(key)
        if found is None or not found[0].entries or found[0].entries[0] is not found[1]:
            first = self._waiting.first(*key)
            found = self._firsts[key] = (first, first.entries[0])
        return found[0] is lane

    def loading_s(self, job: Job, slot: Slot) -> float:
        """Give the time until a device has the job's model."""
        return 0.0 if job.model in ("", slot.warm) else self._load(job.model, slot.device)

    def warmest(self, found: Found) -> Found:
        """Prefer a device that holds the job's data, by what it saves, unless more waits for it than for the other."""
        lane, best = found.lane, found.slot
        job = lane.entries[found.place][2]
        if self._saves is None or lane.device is not None or len(lane.reach) == 1:
            return found
        saved_s = self._saves(job)
        if not saved_s:
            return found
        wanted = self._waiting.demand(best.sort)
        soonest_s = self._ends_s(job, best)
        for name in sorted(saved_s):
            slot = self._shelves.slots.get(name)
            if slot is None or not slot.is_open or len(slot.chunks) != len(best.chunks):
                continue
            if slot.sort not in lane.reach.sorts or (
                slot.sort != best.sort and self._waiting.demand(slot.sort) > wanted
            ):
                continue
            ends_s = self._ends_s(job, slot) - saved_s[name]
            if ends_s < soonest_s and self._takes(
                slot, lane, self._predict(job, slot.device), self.loading_s(job, slot)
            ):
                best, soonest_s = slot, ends_s
        return replace(found, slot=best)

    def _ends_s(self, job: Job, slot: Slot) -> float:
        """Predict when a device that begins now would have done a job, its model loaded first."""
        return (self._predict(job, slot.device) or 0.0) + self.loading_s(job, slot)
