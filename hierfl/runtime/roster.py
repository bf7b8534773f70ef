"""Who is there: workers, the devices that they serve, and the chunks of work that each has and has not answered."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from hierfl.runtime.driver import Seat
from hierfl.runtime.results import Group
from scheduler import Device, Job
from scheduler.dispatch import PREFETCH_S
from scheduler.eligibility import usual_kind

__all__ = ["Call", "Roster"]

LATE_S = 2 * PREFETCH_S
"""What is bound behind other work waits for that at most so long; it was thought to wait for half of it at most."""


@dataclass(frozen=True)
class Call:
    """A call that a worker has not answered yet.

    `jobs`: the chunk that ends with it; `work`: what it is about; `company`: the jobs beside it when it was made,
    `others` of them of other runs. `is_aside`: it goes past what the worker is at work on.
    """

    worker: str
    method: str
    group: Group | None
    jobs: tuple[Job, ...]
    work: tuple[Job, ...] = ()
    company: int = 0
    others: int = 0
    is_aside: bool = False


class Roster:
    """Workers by name. Several may serve one device, which then runs as many chunks at once.

    A worker is `ready` from its first answer on. Seconds are the caller's.
    """

    def __init__(self, seats: Iterable[Seat]) -> None:
        self.ready: set[str] = set()
        self._devices: dict[str, Device] = {}
        self._beside: dict[str, list[str]] = {}
        self._chunks: dict[str, list[tuple[Job, ...]]] = {}
        self._since: dict[str, float] = {}
        self._alone_since: dict[str, float] = {}
        self._usual: dict[frozenset[str], str] = {}
        for seat in seats:
            self.add(seat)

    @property
    def devices(self) -> Mapping[str, Device]:
        """Give each worker's device, of those that are not up yet too."""
        return self._devices

    def add(self, seat: Seat) -> None:
        """Take in a worker that is starting."""
        self._devices[seat.worker] = seat.device
        self._beside.setdefault(seat.device.name, []).append(seat.worker)
        self._chunks[seat.worker] = []
        self._usual.clear()

    def usual_kind(self, labels: frozenset[str]) -> str:
        """Name the kind of most devices that may take work with these labels."""
        if labels not in self._usual:
            there = {device.name: device for device in self._devices.values()}
            self._usual[labels] = usual_kind(there.values(), labels)
        return self._usual[labels]

    def give(self, device: str, jobs: tuple[Job, ...], now_s: float, holders: Set[str] = frozenset()) -> str:
        """Note that a device has been given a chunk; return which of its workers runs it: the least busy one.

        What has to wait for another chunk waits for a short one that is not late, where there is any. Among equals one
        of the `holders`, which have the data already.
        """
        ready = [worker for worker in self._beside[device] if worker in self.ready]

        def busy(name: str) -> tuple[int, bool, bool]:
            chunks = self._chunks[name]
            is_soon = not chunks or (all(map(_is_short, chunks)) and now_s - self._since[name] <= PREFETCH_S)
            return len(chunks), not is_soon, name not in holders

        worker = min(ready, key=busy)
        if not self._chunks[worker]:
            self._since[worker] = now_s
        self._chunks[worker].append(jobs)
        return worker

    def end(self, worker: str, jobs: tuple[Job, ...], now_s: float) -> bool:
        """Note that a worker has answered, and say whether that was a chunk of it: its next one runs from now on."""
        self._since[worker] = now_s
        if not jobs or jobs not in self._chunks[worker]:
            return False
        self._chunks[worker].remove(jobs)
        device = self._devices[worker].name
        if sum(1 for each in self._beside[device] if self._chunks[each]) == 1:
            self._alone_since[device] = now_s
        return True

    def late(self, now_s: float) -> list[str]:
        """List the workers that have not answered for longer than what others' work may wait for."""
        return [
            worker
            for worker, chunks in self._chunks.items()
            if chunks and worker in self.ready and now_s - self._since[worker] > LATE_S
        ]

    def chunks(self, worker: str) -> Sequence[tuple[Job, ...]]:
        """List the chunks that a worker has not answered, the running one first."""
        return tuple(self._chunks[worker])

    def take_back(self, worker: str, jobs: tuple[Job, ...]) -> None:
        """A worker has given a chunk back that it had not begun."""
        self._chunks[worker].remove(jobs)

    def lose(self, worker: str) -> list[tuple[Job, ...]]:
        """A worker is gone; return the chunks that it had, the running one first."""
        chunks, self._chunks[worker] = self._chunks[worker], []
        self.ready.discard(worker)
        return chunks

    def num_up(self, device: str) -> int:
        """Count the workers of a device that are ready."""
        return sum(worker in self.ready for worker in self._beside[device])

    def company(self, worker: str) -> int:
        """Count the other workers of this worker's device that are at work."""
        beside = self._beside[self._devices[worker].name]
        return 0 if len(beside) == 1 else sum(1 for other in beside if other != worker and self._chunks[other])

    def company_of(self, call: Call, others: int, now_s: float) -> tuple[int | None, float]:
        """Give the company that a call which ends now had all the time, None if it changed; and for how many seconds it
        was alone in the end, because its one companion was done. `others`: jobs of other runs that are there now.
        """
        left = self.company(call.worker)
        if (call.company, call.others) == (left + others, others):
            return call.company, 0.0
        since_s = self._alone_since.get(self._devices[call.worker].name)
        if (call.company, call.others, left, others) == (1, 0, 0, 0) and since_s is not None:
            return 1, now_s - since_s
        return None, 0.0

    def overdue(
        self,
        left: Callable[[str, tuple[Job, ...]], tuple[Job, ...]],
        allowed_s: Callable[[Job], float] | None,
        now_s: float,
    ) -> Iterator[tuple[str, tuple[Job, ...], float]]:
        """Give the workers whose running chunk has taken longer than its jobs may, with these and the seconds.

        `left`: those of a worker's chunk that it has not answered; `allowed_s`: for a job; infinite where there is no
        limit, None if there is none anywhere.
        """
        if allowed_s is None:
            return
        for worker, chunks in list(self._chunks.items()):
            if chunks and worker in self.ready:
                jobs = left(worker, chunks[0])
                limit_s = sum(map(allowed_s, jobs)) if jobs else math.inf
                if now_s - self._since[worker] > limit_s:
                    yield worker, jobs, limit_s


def _is_short(jobs: tuple[Job, ...]) -> bool:
    """Say whether a chunk is known to be over soon."""
    seconds = (math.inf if job.estimate_s is None or job.is_guess else job.estimate_s for job in jobs)
    return sum(seconds) <= PREFETCH_S
