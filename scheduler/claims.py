"""Claims: which of the waiting jobs goes to a free device where devices are unequal, without leaving any device idle.

Taken one by one, the most urgent job goes to the device that is free, however slow, though a faster one may be free in
time to end it earlier; a long job on a slow device then holds up its federation. So the jobs claim devices in order
of priority: each the one that completes it earliest, free or busy, after the claims before it (earliest finish time,
Topcuoglu et al. 2002, "HEFT"). The first that claims a free device has it. Where all would rather wait, the one that
loses least by not waiting goes, for no device idles while there is work for it.

While nothing is known of durations, the smallest jobs go first here: the largest of all on what turns out to be the
slowest device would hold up the whole round, and a small one tells as well how fast each kind is.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from scheduler.eligibility import Reach
from scheduler.shelves import Slot
from scheduler.views import Device, Job
from scheduler.waiting import Entry, Lane

__all__ = ["NUM_CLAIMS", "Claims", "Found", "least_wanted", "pools"]

NUM_CLAIMS = 64
"""So many jobs may rather wait before the one of them that loses least is taken."""

_Piles = dict[str, list[tuple[float, str]]]
"""The busy devices of a sort by the model that they have loaded: heaps of (seconds until free, name)."""


@dataclass(frozen=True, slots=True)
class Found:
    """A waiting job by its place in its lane, the free device that it gets, and how many before it rather wait.

    `is_probe`: it goes first for being small, so that the kind of device gets known.
    """

    lane: Lane
    place: int
    slot: Slot
    num_before: int = 0
    is_probe: bool = False


class Claims:
    """The claims of one moment.

    `sorts`: all devices, by sort and name; `predict(job, device)`: seconds, None if unknown; `load(model, device)`:
    seconds to load a model; `demand(sort)`: the waiting seconds per device.
    """

    def __init__(
        self,
        now_s: float,
        sorts: Mapping[int, Mapping[str, Slot]],
        predict: Callable[[Job, Device], float | None],
        load: Callable[[str, Device], float],
        demand: Callable[[int], float],
    ) -> None:
        self._now_s = now_s
        self._sorts = sorts
        self._predict = predict
        self._load = load
        self._demand = demand
        self._known: dict[tuple[int, str], float | None] = {}
        self._piles: dict[int, _Piles] = {}

    def first(self, lanes: Mapping[Lane, Sequence[Slot]], is_behind: Callable[[str], bool]) -> Found:
        """Find the job that gets a free device, and which; jobs of runs that are behind claim first.

        `lanes`: each with the free devices that it reaches, of those that are equal one will do.
        """
        self._piles = {}
        queue = [(not is_behind(lane.run), *lane.entries[0][:2], 0, lane) for lane in lanes]
        heapq.heapify(queue)
        num_claims = 0
        least: tuple[float, Found] | None = None
        while queue and num_claims < NUM_CLAIMS:
            is_ahead, _, _, place, lane = queue[0]
            entry = lane.entries[place]
            ends_s, slot = self._earliest(entry, lanes[lane])
            if self._takes_s(entry, slot) is None and self._is_uneven(lane.reach):
                return Found(lane, _smallest_unknown(lane, place), slot, num_claims, is_probe=True)
            found = Found(lane, place, slot, num_claims)
            claimed_s = self._claim(entry, lane.reach, slot, ends_s)
            if claimed_s is None:
                return found
            if least is None or ends_s - claimed_s < least[0]:
                least = ends_s - claimed_s, found
            num_claims, place = num_claims + 1, place + 1
            if place < len(lane.entries):
                heapq.heapreplace(queue, (is_ahead, *lane.entries[place][:2], place, lane))
            else:
                heapq.heappop(queue)
        assert least is not None, "a lane has work and a free device"
        return least[1]

    def _is_uneven(self, reach: Reach) -> bool:
        """Say whether there are several kinds among these devices."""
        alike = (self._sorts.get(sort) for sort in reach.sorts)
        return len({next(iter(slots.values())).device.kind for slots in alike if slots}) > 1

    def _earliest(self, entry: Entry, free: Sequence[Slot]) -> tuple[float, Slot]:
        """Find the free device that completes a job earliest, and in how many seconds; an unknown duration is none."""
        ends = [((self._takes_s(entry, slot) or 0.0) + self._loads_s(entry[2], slot, slot.warm), slot) for slot in free]
        soonest_s = min(ends_s for ends_s, _ in ends)
        return soonest_s, least_wanted([slot for ends_s, slot in ends if ends_s == soonest_s], self._demand)

    def _claim(self, entry: Entry, reach: Reach, free: Slot, ends_s: float) -> float | None:
        """Claim the busy device of a faster kind that completes a job earliest, if before `ends_s`; say when."""
        job, here_s = entry[2], self._takes_s(entry, free)
        best: tuple[float, str, int, str] | None = None
        for sort in sorted(reach.sorts) if here_s is not None else ():
            alike = self._sorts.get(sort)
            if not alike or sort == free.sort:
                continue
            there = next(iter(alike.values()))
            there_s = self._takes_s(entry, there)
            if there_s is None or here_s is None or there_s >= here_s:
                continue
            for warm, pile in self._busy(sort, alike).items():
                until_s, name = pile[0]
                claim = (until_s + there_s + self._loads_s(job, there, warm), name, sort, warm)
                if claim[0] < ends_s and (best is None or claim < best):
                    best = claim
        if best is None:
            return None
        until_s, name, sort, warm = best
        piles = self._piles[sort]
        heapq.heappop(piles[warm])
        if not piles[warm]:
            del piles[warm]
        heapq.heappush(piles.setdefault(job.model or warm, []), (until_s, name))
        return until_s

    def _busy(self, sort: int, alike: Mapping[str, Slot]) -> _Piles:
        """Give the devices of a sort that hold work, with when they will have done it and what claimed them."""
        piles = self._piles.get(sort)
        if piles is None:
            piles = self._piles[sort] = {}
            for name, slot in alike.items():
                left_s = slot.left_s(self._now_s, self._predict) if slot.chunks and not slot.is_paused else math.inf
                if left_s < math.inf:
                    piles.setdefault(slot.warm, []).append((left_s, name))
            for pile in piles.values():
                heapq.heapify(pile)
        return piles

    def _takes_s(self, entry: Entry, slot: Slot) -> float | None:
        """Predict a job on a device; asked once for each kind."""
        key = (entry[1], slot.device.kind)
        if key not in self._known:
            self._known[key] = self._predict(entry[2], slot.device)
        return self._known[key]

    def _loads_s(self, job: Job, slot: Slot, warm: str) -> float:
        """Give the time until a device that has `warm` loaded has the job's model."""
        return 0.0 if job.model in ("", warm) else self._load(job.model, slot.device)


def _smallest_unknown(lane: Lane, place: int) -> int:
    """Find the place of a lane's smallest job of unknown duration, from this place on."""
    unknown = [(job.size, turn, other) for other, (_, turn, job) in enumerate(lane.entries) if job.estimate_s is None]
    return min((each for each in unknown if each[2] >= place), default=(0, 0, place))[2]


def least_wanted(slots: Sequence[Slot], demand: Callable[[int], float]) -> Slot:
    """Choose among devices that are as good for a job: the one that least waits for, then by name."""
    if len(slots) == 1:
        return slots[0]
    return min(slots, key=lambda slot: (demand(slot.sort), slot.device.name))


def pools(lanes: Iterable[Lane]) -> list[list[Lane]]:
    """Part lanes so that no device is reached from two parts."""
    found: dict[int, list[Lane]] = {}
    for lane in lanes:
        pool = [lane]
        for other in {id(found[sort]): found[sort] for sort in sorted(lane.reach.sorts) if sort in found}.values():
            small, pool = sorted((other, pool), key=len)
            pool += small
            found |= dict.fromkeys((sort for each in small for sort in each.reach.sorts), pool)
        found |= dict.fromkeys(lane.reach.sorts, pool)
    return list({id(pool): pool for pool in found.values()}.values())
