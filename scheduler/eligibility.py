"""Which device may run which job: it carries all of the job's labels (residency) and has the memory.

Devices that are alike but for their names are of one sort, jobs with the same sorts have one reach; the dispatcher asks
per reach, so that ten thousand jobs on five hundred devices cost a few sets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from scheduler.views import Device, Job, JobKey

__all__ = ["Reach", "Residency", "admitted_bytes", "can_take", "infeasible", "nameless", "usual_kind"]


MOST_NAMED = 5
"""Devices that a reason names one by one."""


def can_take(device: Device, job: Job) -> bool:
    """Say whether a device that is empty may run the job."""
    return job.labels <= device.labels and (device.memory_bytes is None or job.memory_bytes <= device.memory_bytes)


def usual_kind(devices: Iterable[Device], labels: frozenset[str] = frozenset()) -> str:
    """Name the kind of most devices that carry the labels, the first of them where there are as many.

    Where none carries them all count; no devices are an assertion.
    """
    there = list(devices)
    assert there, "no device, no usual kind"
    kinds = [device.kind for device in there if labels <= device.labels] or [device.kind for device in there]
    return max(kinds, key=kinds.count)


@lru_cache(maxsize=1024)
def nameless(device: Device) -> Device:
    """Give what a device is but for its name: those that are equal so are of one sort."""
    return replace(device, name="")


def admitted_bytes(memory_bytes: int) -> int:
    """Round what a job takes beside others up, by at most 1/64, so that thousands of sites need few sizes."""
    shift = max(0, memory_bytes.bit_length() - 7)
    return -(-memory_bytes >> shift) << shift


def infeasible(jobs: Iterable[Job], devices: Iterable[Device], absent: Iterable[Device] = ()) -> Mapping[JobKey, str]:
    """Name the jobs that none of the devices may ever run, each with those of the `absent` that might, or else with the
    label or the memory that is missing.
    """
    here, away = (sorted(found, key=lambda device: device.name) for found in (devices, absent))
    reasons: dict[tuple[frozenset[str], int], str | None] = {}
    found = {}
    for job in jobs:
        need = (job.labels, job.memory_bytes)
        if need not in reasons:
            reasons[need] = None if any(can_take(device, job) for device in here) else _why_not(job, here, away)
        reason = reasons[need]
        if reason is not None:
            found[job.key] = reason
    return found


def _why_not(job: Job, devices: Sequence[Device], absent: Sequence[Device]) -> str:
    """Say who is not there, or what the job lacks, and who comes nearest."""
    able = [device.name for device in absent if can_take(device, job)]
    if able:
        more = f" and {len(able) - MOST_NAMED} more" if len(able) > MOST_NAMED else ""
        return f"{', '.join(able[:MOST_NAMED])}{more} {'is' if len(able) == 1 else 'are'} not there"
    if not devices:
        return "no device has joined"
    carriers = [device for device in devices if job.labels <= device.labels]
    if not carriers:
        nearest = min(devices, key=lambda device: len(job.labels - device.labels))
        missing = _listed(job.labels - nearest.labels)
        needs = _listed(job.labels)
        return f"needs labels {{{needs}}}; no device carries them (nearest: {nearest.name} lacks {missing})"
    largest = max(carriers, key=lambda device: device.memory_bytes or 0)
    among = f" that carries {{{_listed(job.labels)}}}" if job.labels else ""
    return (
        f"needs {job.memory_bytes / 1e9:.3g} GB; no device{among} has as much"
        f" (largest: {largest.name} with {(largest.memory_bytes or 0) / 1e9:.3g} GB)"
    )


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(sorted(labels))


class Reach:
    """The devices that may run jobs of one kind, among those that are there."""

    def __init__(self, sorts: frozenset[int], names: Iterable[str], shares_memory: bool) -> None:
        self.sorts = sorts
        self.shares_memory = shares_memory
        """Whether jobs run beside each other somewhere in it and what memory they take matters."""
        self._names = set(names)
        self._sorted: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self._names)

    def change(self, name: str, is_there: bool) -> None:
        """Note that a device has come or gone."""
        self._sorted = None
        if is_there:
            self._names.add(name)
        else:
            self._names.discard(name)

    def names(self) -> tuple[str, ...]:
        """List the devices, sorted."""
        if self._sorted is None:
            self._sorted = tuple(sorted(self._names))
        return self._sorted


class Residency:
    """Sorts of devices and reaches of jobs.

    `epoch` grows when a sort is new, which outdates every reach; `num_changes` with every device that comes or goes.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.num_changes = 0
        self.kinds: list[str] = []
        """The kind of device by sort."""
        self.is_uneven = False
        """Whether there have been devices of several kinds."""
        self.shares_memory = False
        """Whether there have been devices whose memory jobs share."""
        self._sorts: dict[Device, int] = {}
        self._capacities: list[int] = []
        self._here: dict[str, int] = {}
        self._by_need: dict[tuple[frozenset[str], int], Reach] = {}
        self._by_sorts: dict[frozenset[int], Reach] = {}

    def join(self, device: Device) -> int:
        """Count a device in; return its sort."""
        alike = nameless(device)
        if alike not in self._sorts:
            self._sorts[alike] = len(self._sorts)
            self.kinds.append(device.kind)
            self.is_uneven |= device.kind != self.kinds[0]
            self.shares_memory |= device.places > 1 and device.memory_bytes is not None
            self.epoch += 1
            self._capacities = sorted({d.memory_bytes for d in self._sorts if d.memory_bytes is not None})
            self._by_need, self._by_sorts = {}, {}
        sort = self._sorts[alike]
        self._here[device.name] = sort
        self._change(device.name, sort, True)
        return sort

    def leave(self, name: str) -> None:
        """Count a device out."""
        self._change(name, self._here.pop(name), False)

    def reach(self, job: Job) -> Reach:
        """Give the job's reach; the same object for all jobs whose devices are the same."""
        need = (job.labels, bisect_left(self._capacities, job.memory_bytes))
        found = self._by_need.get(need)
        if found is None:
            sorts = frozenset(sort for device, sort in self._sorts.items() if can_take(device, job))
            found = self._by_sorts.get(sorts)
            if found is None:
                names = [name for name, sort in self._here.items() if sort in sorts]
                shares = any(d.places > 1 and d.memory_bytes is not None for d, s in self._sorts.items() if s in sorts)
                found = self._by_sorts[sorts] = Reach(sorts, names, shares)
            self._by_need[need] = found
        return found

    def _change(self, name: str, sort: int, is_there: bool) -> None:
        self.num_changes += 1
        for reach in self._by_sorts.values():
            if sort in reach.sorts:
                reach.change(name, is_there)
