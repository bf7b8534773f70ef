"""A device in simulated time: calls queue for its places, load their model, share its speed, and end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from scheduler.views import Device, Job
from scheduler.workload import Workload

__all__ = ["Call", "SimDevice"]

At = Callable[[float, Callable[[], None]], None]


@dataclass(eq=False)
class Call:
    """A call under way; `work_s`: what it takes alone at speed 1, `left_s`: what of that is left since `since_s`,
    `company`: the calls beside it when it was given.
    """

    jobs: tuple[Job, ...]
    work_s: float
    memory_bytes: int
    gap_s: float = 0.0
    begun_s: float = 0.0
    trained_from_s: float | None = None
    left_s: float = 0.0
    since_s: float = 0.0
    turn: int = 0
    company: int = 0


class SimDevice:
    """One device; `at(time_s, act)` puts an event on the heap, `ended(device, call)` hears of calls that are done."""

    def __init__(
        self,
        device: Device,
        workload: Workload,
        at: At,
        ended: Callable[[SimDevice, Call], None],
    ) -> None:
        self.device = device
        self.speed = workload.speed(device)
        self.calls: list[Call] = []
        self.queue: list[Call] = []
        self.model = ""
        self._workload = workload
        self._at = at
        self._ended = ended
        self._gone = False

    def give(self, jobs: tuple[Job, ...], work_s: float, now_s: float, gap_s: float | None = None) -> None:
        """Take a call; it begins as soon as a place and its memory are free. `gap_s`: see `scheduler.simcrew.Gap`."""
        usual_s = self._workload.call_s
        call = Call(jobs, work_s, max(job.memory_bytes for job in jobs), usual_s if gap_s is None else gap_s)
        call.company = min(len(self.calls), self.device.places - 1)
        self.queue.append(call)
        self._begin(now_s)
        if gap_s is None and call in self.queue:
            call.gap_s = 0.0

    def drop(self) -> list[Call]:
        """Go; return the calls that are lost under way."""
        self._gone = True
        return self.calls

    def _begin(self, now_s: float) -> None:
        """Begin what may begin."""
        memory_bytes = self.device.memory_bytes
        while self.queue and len(self.calls) < self.device.places:
            call = self.queue[0]
            held = sum(other.memory_bytes for other in self.calls)
            if memory_bytes is not None and self.calls and held + call.memory_bytes > memory_bytes:
                break
            self.calls.append(self.queue.pop(0))
            call.begun_s = now_s
            model = call.jobs[0].model
            wait_s = call.gap_s + (self._workload.load_s.get(model, 0.0) if model != self.model else 0.0)
            self.model = model
            if wait_s > 0.0:
                self._at(now_s + wait_s, partial(self._train, call, now_s + wait_s))
            else:
                self._train(call, now_s)

    def _train(self, call: Call, now_s: float) -> None:
        """Train: the call's model is loaded."""
        if self._gone:
            return
        self._settle(now_s)
        call.trained_from_s, call.left_s, call.since_s = now_s, call.work_s, now_s
        self._retime(now_s)

    def _rate(self, num: int) -> float:
        """Give the speed of each of so many jobs at once."""
        return self.speed * self._workload.rate(num) / num

    def _training(self) -> list[Call]:
        """List the calls that train, rather than load."""
        return [call for call in self.calls if call.trained_from_s is not None]

    def _settle(self, now_s: float) -> None:
        """Take off what was done since the company last changed."""
        training = self._training()
        for call in training:
            call.left_s -= (now_s - call.since_s) * self._rate(len(training))
            call.since_s = now_s

    def _retime(self, now_s: float) -> None:
        """Put every end anew: the company has changed."""
        training = self._training()
        for call in training:
            call.turn += 1
            end_s = now_s + max(0.0, call.left_s) / self._rate(len(training))
            self._at(end_s, partial(self._end, call, call.turn, end_s))

    def _end(self, call: Call, turn: int, now_s: float) -> None:
        """End a call, unless its end was put off meanwhile."""
        if self._gone or call.turn != turn:
            return
        self._settle(now_s)
        self.calls.remove(call)
        self._retime(now_s)
        self._ended(self, call)
        self._begin(now_s)
