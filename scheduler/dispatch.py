"""The ledger of devices and waiting work: work-conserving, a queue of depth two per device, jobs in chunks.

Short jobs of one group share a call, so that the cost of a call is small beside its work: a chunk holds at least
`CHUNK_MIN_S` of predicted work where there is as much, at most `CHUNK_MAX_S` (or one job), and never more than the
device's guided share of what waits (Polychronopoulos and Kuck 1987), so that devices end together.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from scheduler.policy import Policy
from scheduler.views import Assign, Job, JobKey

__all__ = ["CHUNK_MAX_S", "CHUNK_MIN_S", "DEPTH", "Dispatcher"]

CHUNK_MIN_S = 0.010
CHUNK_MAX_S = 0.100
DEPTH = 2


class Dispatcher:
    """Which device runs what next. Devices and jobs come and go; every call leaves the ledger consistent."""

    def __init__(self, policy: Policy, depth: int = DEPTH) -> None:
        self.policy = policy
        self.depth = depth
        self._devices: dict[str, list[tuple[Job, ...]]] = {}
        self._groups: dict[str, list[tuple[tuple[float, ...], int, Job]]] = {}
        self._waiting_s: dict[str, float] = {}
        self._count = 0

    @property
    def devices(self) -> tuple[str, ...]:
        """List the devices that may be given work."""
        return tuple(self._devices)

    def join(self, device: str) -> None:
        """A device may be given work from now on."""
        self._devices.setdefault(device, [])

    def leave(self, device: str) -> tuple[Job, ...]:
        """A device is gone; return the jobs that it had, which wait for nobody now."""
        return tuple(job for chunk in self._devices.pop(device, []) for job in chunk)

    def ask(self, jobs: Iterable[Job]) -> None:
        """Add work."""
        for job in jobs:
            heap = self._groups.setdefault(job.group, [])
            self._count += 1
            heapq.heappush(heap, (self.policy.priority(job), self._count, job))
            self._waiting_s[job.group] = self._waiting_s.get(job.group, 0.0) + (job.estimate_s or 0.0)

    def withdraw(self, group: str) -> tuple[JobKey, ...]:
        """Take back the waiting work of a group; return what was waiting."""
        self._waiting_s.pop(group, None)
        return tuple(job.key for _, _, job in self._groups.pop(group, []))

    def has_waiting(self, group: str) -> bool:
        """Say whether work of a group still waits for a device."""
        return group in self._groups

    def running(self, device: str) -> Sequence[tuple[Job, ...]]:
        """List the chunks that a device holds, the running one first."""
        return tuple(self._devices.get(device, ()))

    def done(self, device: str, jobs: Sequence[Job]) -> None:
        """A device has returned a chunk."""
        chunks = self._devices.get(device)
        if chunks is not None and tuple(jobs) in chunks:
            chunks.remove(tuple(jobs))

    def decide(self) -> list[Assign]:
        """Fill every free place: idle devices first, then the second place of busy ones."""
        decisions: list[Assign] = []
        for level in range(self.depth):
            for device, chunks in self._devices.items():
                if len(chunks) == level and self._groups:
                    decision = self._chunk(device)
                    chunks.append(decision.jobs)
                    decisions.append(decision)
        return decisions

    def _chunk(self, device: str) -> Assign:
        """Take the first job of all, and more of its group while the chunk is short."""
        group = min(self._groups, key=lambda name: self._groups[name][0])
        heap = self._groups[group]
        places = self.depth * max(1, len(self._devices))
        limit_s = min(CHUNK_MAX_S, max(CHUNK_MIN_S, self._waiting_s[group] / places))
        share = -(-len(heap) // len(self._devices))
        first = heapq.heappop(heap)[2]
        jobs, total_s = [first], first.estimate_s
        while heap and total_s is not None and len(jobs) < share:
            following = heap[0][2].estimate_s
            if following is None or total_s + following > limit_s:
                break
            jobs.append(heapq.heappop(heap)[2])
            total_s += following
        self._waiting_s[group] -= sum(job.estimate_s or 0.0 for job in jobs)
        if not heap:
            del self._groups[group], self._waiting_s[group]
        return Assign(device, tuple(jobs), self.policy.reason(first))
