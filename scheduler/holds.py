"""Holds: a large job that goes first gets a device, though small ones would keep each of them filled.

Where jobs share a device, one that takes more than half of its memory fits only once most of the others there have
ended, and a work-conserving ledger gives their places to small jobs as they fall free: the large one, however urgent,
waits for work to run out, and its federation ends last, on devices that it cannot fill. So the job that goes first of
all that reach its devices has the one that is free for it soonest held, as in backfilling (EASY, Lifka 1995; Mu'alem
and Feitelson 2001): beside what runs there only such jobs begin as leave it its memory and a place, or are predicted to
have ended by then. A held device is never idle, for it is at work until it is free for the job.

At most half of the devices hold large jobs at a time, by this rule: the others are filled by what fills them best.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from scheduler.shelves import Chunk, Slot
from scheduler.waiting import Lane, LaneKey

__all__ = ["Hold", "holds", "may_begin"]


@dataclass(frozen=True, slots=True)
class Hold:
    """A place and memory of one device, for the head of a lane."""

    lane: LaneKey
    memory_bytes: int


def holds(lanes: Iterable[Lane], sorts: Mapping[int, Mapping[str, Slot]], now_s: float) -> dict[str, Hold]:
    """Say which devices are held, and for whom; `sorts`: all devices, by sort and name."""
    found: dict[str, Hold] = {}
    for lane in _first(lanes):
        slots = [slot for sort in sorted(lane.reach.sorts) for slot in sorts.get(sort, {}).values()]
        if lane.device is not None or not all(_is_large(lane.memory_bytes, slot) for slot in slots):
            continue
        num_large = sum(any(_is_large(chunk.memory_bytes, slot) for chunk in slot.chunks) for slot in slots)
        if 2 * num_large >= max(2, len(slots)) or any(_has_room(lane.memory_bytes, slot) for slot in slots):
            continue
        busy = [slot for slot in slots if slot.chunks and not slot.is_paused]
        if busy:
            soonest = min(busy, key=lambda slot: (_free_in_s(lane.memory_bytes, slot, now_s), slot.device.name))
            found[soonest.device.name] = Hold(lane.key, lane.memory_bytes)
    return found


def may_begin(hold: Hold, lane: Lane, slot: Slot, seconds: float | None, now_s: float) -> bool:
    """Say whether the head of a lane, of predicted seconds, may begin on a device that is held."""
    if lane.key == hold.lane:
        return True
    assert slot.device.memory_bytes is not None
    stay = list(_staying(hold.memory_bytes, slot))
    left_bytes = slot.device.memory_bytes - hold.memory_bytes - sum(chunk.memory_bytes for chunk in stay)
    if lane.memory_bytes <= left_bytes and len(stay) + 2 <= slot.places:
        return True
    return seconds is not None and seconds <= _free_in_s(hold.memory_bytes, slot, now_s) < math.inf


def _first(lanes: Iterable[Lane]) -> Iterator[Lane]:
    """Go through the lanes before whose heads no other goes that reaches a device of theirs."""
    taken: set[int] = set()
    for lane in sorted(lanes, key=lambda lane: lane.entries[0][:2]):
        if taken.isdisjoint(lane.reach.sorts):
            yield lane
        taken |= lane.reach.sorts


def _is_large(memory_bytes: int, slot: Slot) -> bool:
    """Say whether a job takes more than half of a device that others share."""
    capacity = slot.device.memory_bytes
    return capacity is not None and slot.device.places > 1 and 2 * memory_bytes > capacity


def _has_room(memory_bytes: int, slot: Slot) -> bool:
    """Say whether a job may begin on a device now."""
    return not slot.is_paused and len(slot.chunks) < slot.places and slot.fits(memory_bytes)


def _staying(memory_bytes: int, slot: Slot) -> Iterator[Chunk]:
    """Go through the chunks of a device beside which so much memory and a place are free, the smallest first."""
    assert slot.device.memory_bytes is not None
    left_bytes, num_left = slot.device.memory_bytes - memory_bytes, slot.places - 1
    for chunk in sorted(slot.chunks, key=lambda chunk: chunk.memory_bytes):
        left_bytes, num_left = left_bytes - chunk.memory_bytes, num_left - 1
        if left_bytes < 0 or num_left < 0:
            return
        yield chunk


def _free_in_s(memory_bytes: int, slot: Slot, now_s: float) -> float:
    """Predict when so much memory and a place will be free on a device, in seconds of work that is alone there.

    What runs beside others is taken to go on as slowly as it may: at its share of one job's rate.
    """
    stay = {id(chunk) for chunk in _staying(memory_bytes, slot)}
    left_s = 0.0
    for chunk in slot.chunks:
        if id(chunk) not in stay:
            spent_s = 0.0 if chunk.begun_s is None else (now_s - chunk.begun_s) / min(len(slot.chunks), slot.places)
            left_s = max(left_s, (math.inf if chunk.seconds is None else chunk.seconds) - spent_s)
    return left_s
