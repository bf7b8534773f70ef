"""The devices and what they hold, on shelves: devices that are equal for any job to come stand together.

A shelf's devices are of one sort, hold as many chunks, with the same models and memory, and have the same model warm.
A job is offered to the first of a shelf, by name, for all of it.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scheduler.views import Device, Job

if TYPE_CHECKING:
    from scheduler.holds import Hold

__all__ = ["PREFETCH_S", "Chunk", "Shelves", "Slot"]

PREFETCH_S = 0.2
"""The longest chunk, in predicted seconds, that waits at a device or is waited for there."""

ShelfKey = tuple[int, str, int, tuple[tuple[str, int], ...], str]
"""(sort, warm model, places, models and bytes in use where jobs run beside each other, its name if it is held)."""


@dataclass(eq=False, slots=True)
class Chunk:
    """What a device was given in one call; `seconds`: predicted, loading included; `memory_bytes`: as admitted.

    `begun_s`: when it got to a place, None while it waits at the device; `is_overdue`: it should have been over;
    `is_guess`: a site is among its own that has never answered.
    """

    jobs: tuple[Job, ...]
    seconds: float | None
    memory_bytes: int
    begun_s: float | None = None
    is_overdue: bool = False
    is_guess: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_guess = any(job.is_guess for job in self.jobs)

    @property
    def is_short(self) -> bool:
        """Whether it is known to be over soon."""
        if self.seconds is None or self.seconds > PREFETCH_S or self.is_overdue:
            return False
        return not self.is_guess

    @property
    def patience_s(self) -> float:
        """Seconds after which it should be over: a short one soon, another one at twice what it was thought to take."""
        if self.seconds is None or self.is_guess:
            return math.inf
        return PREFETCH_S if self.is_short else PREFETCH_S + 2.0 * self.seconds


@dataclass(eq=False)
class Slot:
    """A device that is there, its chunks in the order in which they were given, and the model loaded last.

    While it is paused it takes nothing more. `limits`: how many of its places may be used, None for all; `hold`: for
    whom it is kept.
    """

    device: Device
    sort: int
    depth: int
    chunks: list[Chunk] = field(default_factory=list)
    warm: str = ""
    is_paused: bool = False
    limits: dict[str, int | None] = field(default_factory=dict)
    hold: Hold | None = None

    @property
    def places(self) -> int:
        """How many jobs may run at once now."""
        return min((most for most in self.limits.values() if most is not None), default=self.device.places)

    @property
    def is_open(self) -> bool:
        """Whether it may take another chunk: a place is free, or short work at a place may be followed."""
        if self.is_paused:
            return False
        places = self.places
        short = sum(chunk.is_short for chunk in self.chunks[:places])
        return len(self.chunks) < places + (self.depth - 1) * short

    @property
    def must_be_short(self) -> bool:
        """Whether the next chunk waits for another one to end."""
        return len(self.chunks) >= self.places

    def fits(self, memory_bytes: int) -> bool:
        """Say whether the chunks that may run at once still fit together: the largest, one per place."""
        capacity = self.device.memory_bytes
        if capacity is None:
            return True
        held = sorted((memory_bytes, *(chunk.memory_bytes for chunk in self.chunks)), reverse=True)
        return sum(held[: self.places]) <= capacity

    def left_s(self, now_s: float, predict: Callable[[Job, Device], float | None]) -> float:
        """Predict when it will be done with what it holds, shared evenly by its places; infinite if unknown."""
        total_s = 0.0
        for chunk in self.chunks:
            seconds = chunk.seconds
            if seconds is None:
                seconds = sum(math.inf if (each := predict(job, self.device)) is None else each for job in chunk.jobs)
            total_s += max(0.0, seconds - (0.0 if chunk.begun_s is None else now_s - chunk.begun_s))
        return total_s / self.places

    def shelf(self) -> ShelfKey:
        """Give the shelf on which it stands."""
        if self.device.places == 1:
            return (self.sort, self.warm, 1, (), "")
        used = sorted((chunk.jobs[0].model, chunk.memory_bytes) for chunk in self.chunks)
        return (self.sort, self.warm, self.places, tuple(used), self.device.name if self.hold is not None else "")


class Shelves:
    """All devices by name, and the open ones by the number of chunks that they hold."""

    def __init__(self) -> None:
        self.slots: dict[str, Slot] = {}
        self.fresh: dict[str, Slot] = {}
        """Devices that have changed since this was last emptied."""
        self.sorts: dict[int, dict[str, Slot]] = {}
        """All devices by sort and name."""
        self._ends: list[tuple[float, int, Slot, Chunk]] = []
        """A heap of chunks by when they should be over."""
        self._num_begun = 0
        self._levels: list[dict[ShelfKey, list[str]]] = []
        self._stands: dict[str, tuple[int, ShelfKey]] = {}

    @property
    def num_levels(self) -> int:
        """One more than the most chunks that an open device has ever held."""
        return len(self._levels)

    def level(self, num_chunks: int) -> Mapping[ShelfKey, list[str]]:
        """Give the open devices that hold so many chunks: names, sorted, by shelf."""
        return self._levels[num_chunks]

    def fresh_at(self, num_chunks: int) -> list[Slot]:
        """List the open devices among the fresh ones that hold so many chunks."""
        return [slot for slot in self.fresh.values() if len(slot.chunks) == num_chunks and slot.is_open]

    def num_in_turn(self, slot: Slot, device: str | None, sorts: Collection[int], each: int) -> int:
        """Count the places that are given a chunk before any is given another: this device's, and those of its like.

        `device`: the only one that may take the work, None for all of `sorts`; `each`: how many of a device's places
        are of use to it.
        """
        own = len(slot.chunks)
        if device is not None:
            return _num_left(slot.places, own, own, each)
        return sum(
            len(names) * _num_left(places, own, level, each)
            for level in range(own, self.num_levels)
            for (sort, _, places, *_), names in self._levels[level].items()
            if sort in sorts
        )

    def holding(self, device: str, jobs: Sequence[Job]) -> list[tuple[Slot, Chunk]]:
        """Find the chunk of these jobs at a device; nothing where either is gone."""
        slot, sought = self.slots.get(device), tuple(jobs)
        if slot is None:
            return []
        return [(slot, chunk) for chunk in slot.chunks if chunk.jobs == sought][:1]

    def place(self, slot: Slot) -> None:
        """Put a device where it belongs now."""
        name = slot.device.name
        self.slots[name] = self.sorts.setdefault(slot.sort, {})[name] = slot
        self._take_off(name)
        self.fresh[name] = slot
        if slot.is_open:
            level, key = len(slot.chunks), slot.shelf()
            while len(self._levels) <= level:
                self._levels.append({})
            insort(self._levels[level].setdefault(key, []), name)
            self._stands[name] = (level, key)

    def begin(self, slot: Slot, now_s: float) -> None:
        """Note when what is at a device's places by now has got there."""
        for chunk in slot.chunks[: slot.places]:
            if chunk.begun_s is None:
                chunk.begun_s = now_s
                if chunk.patience_s < math.inf:
                    self._num_begun += 1
                    heapq.heappush(self._ends, (now_s + chunk.patience_s, self._num_begun, slot, chunk))

    def tick(self, now_s: float) -> None:
        """Take in how late it is: behind a chunk that should have been over nothing waits, and it keeps nobody off."""
        while self._ends and self._ends[0][0] < now_s:
            _, _, slot, chunk = heapq.heappop(self._ends)
            if chunk in slot.chunks and self.slots.get(slot.device.name) is slot:
                chunk.is_overdue = True
                self.place(slot)
        for slot in self.fresh.values():
            self.begin(slot, now_s)

    def hold(self, holds: Mapping[str, Hold]) -> None:
        """Hold these devices, and no others."""
        for name, slot in self.slots.items():
            if slot.hold != holds.get(name):
                slot.hold = holds.get(name)
                self.place(slot)

    def remove(self, name: str) -> Slot | None:
        """Take a device away, if it is there."""
        self._take_off(name)
        self.fresh.pop(name, None)
        slot = self.slots.pop(name, None)
        if slot is not None:
            del self.sorts[slot.sort][name]
        return slot

    def _take_off(self, name: str) -> None:
        stands = self._stands.pop(name, None)
        if stands is None:
            return
        level, key = stands
        names = self._levels[level][key]
        del names[bisect_left(names, name)]
        if not names:
            del self._levels[level][key]


def _num_left(places: int, level: int, num: int, each: int) -> int:
    """Count the places of a device with `num` chunks that get one before one with `level` gets one in a new turn."""
    if each == 1:
        return int(num == level)
    return places - num % places if num // places == level // places else 0
