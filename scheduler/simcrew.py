"""The dispatcher and its devices under a clock that jumps: what a simulation of any shape of rounds is built on.

Events lie on a heap; all that happens at one moment is heard before anything is decided, and then the dispatcher fills
the devices. Who asks for what, and when, is the caller's.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Protocol, TypeAlias

from scheduler.dispatch import DEPTH, Dispatcher
from scheduler.eventlog import Decision, Span
from scheduler.forecast import Forecast
from scheduler.policy import Policy
from scheduler.simdevice import Call, SimDevice
from scheduler.views import Assign, Device, Job
from scheduler.workload import Actual, Workload

__all__ = ["Company", "Ended", "Gap", "SimCrew"]

Ended = Callable[[tuple[Job, ...]], None]
"""Hears of the jobs of a call that has ended; their device is free, and what they took is learned."""

Gap: TypeAlias = Callable[[tuple[Job, ...]], float | None]
"""What goes by before the work of a call, in seconds, whatever its device was at before; None: as usual."""


class Company(Protocol):
    """Learns durations, and what jobs do beside each other, as a run does."""

    def gains(self, running: Sequence[Job], job: Job, device: Device) -> bool:
        """Say whether a job should join others on a device."""

    def total(self, models: Sequence[str], device: Device) -> float | None:
        """Give the total rate of jobs of these models at once; None if it was not measured."""

    def learn(
        self, kind: str, work: Mapping[str, tuple[float, float]], device: Device, company: int | None
    ) -> float | None:
        """Learn from a chunk of work, size and seconds by site, beside so many others; None: they changed."""


class SimCrew:
    """Devices in simulated time. `actual`: what each job takes alone at speed 1, known once it is asked for.

    `gap`: of a call as it was measured; without one `workload.call_s`, and nothing where calls follow at once.
    `company`: learns which jobs share a device, and durations in place of `forecast`; without one all do that may.
    `number`: a group's round, from 1, for the log. Of `workload` only the devices and their costs matter.
    """

    def __init__(
        self,
        workload: Workload,
        policy: Policy,
        actual: Actual,
        forecast: Forecast,
        *,
        ended: Ended,
        number: Callable[[str], int],
        gap: Gap = lambda jobs: None,
        company: Company | None = None,
        depth: int = DEPTH,
    ) -> None:
        self.now_s = 0.0
        self.num_events = 0
        self.log: list[Span] = []
        self.decisions: list[Decision] = []
        self.devices: dict[str, SimDevice] = {}
        self.present: dict[str, list[tuple[float, float]]] = {device.name: [] for device in workload.devices}
        self.dispatcher = Dispatcher(
            *(policy, depth, lambda job, device: forecast.predict(job, device.kind), self._load),
            gain=None if company is None else company.gains,
            total=(lambda models, device: workload.rate(len(models))) if company is None else company.total,
        )
        self._company = company
        self._workload = workload
        self._actual = actual
        self._forecast = forecast
        self._hear = ended
        self._number = number
        self._gap = gap
        self._known = {device.name: device for device in workload.devices}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._ticks = count()

    @property
    def is_over(self) -> bool:
        """Whether nothing is to happen any more."""
        return not self._heap

    def at(self, time_s: float, act: Callable[[], None]) -> None:
        """Let something happen at a time."""
        heapq.heappush(self._heap, (time_s, next(self._ticks), act))

    def advance(self) -> None:
        """Go to the next moment and hear all that happens then."""
        self.now_s = self._heap[0][0]
        while self._heap and self._heap[0][0] == self.now_s:
            self.num_events += 1
            heapq.heappop(self._heap)[2]()

    def ask(self, jobs: Iterable[Job]) -> None:
        """Ask for work; it is given out at the next decision."""
        self.dispatcher.ask(jobs)

    def decide(self) -> list[Assign]:
        """Let the dispatcher fill the devices."""
        found = self.dispatcher.decide(self.now_s)
        for assign in found:
            self.decisions.append(Decision(self.now_s, assign, self._number(assign.jobs[0].group)))
            work_s = sum(self._actual[job.key] for job in assign.jobs)
            self.devices[assign.device].give(assign.jobs, work_s, self.now_s, self._gap(assign.jobs))
        return found

    def join(self, name: str) -> None:
        """A device comes; one that is there stays as it is."""
        if name not in self.devices:
            self.devices[name] = SimDevice(self._known[name], self._workload, self.at, self._ended)
            self.present[name].append((self.now_s, float("inf")))
            self.dispatcher.join(self._known[name])

    def leave(self, name: str) -> tuple[Job, ...]:
        """A device goes; return what it was at, which counts as idle time."""
        device = self.devices.pop(name, None)
        if device is None:
            return ()
        came_s, _ = self.present[name].pop()
        self.present[name].append((came_s, self.now_s))
        for call in device.drop():
            self._say(name, "lost", call.begun_s, self.now_s, call)
        return self.dispatcher.leave(name)

    def _load(self, model: str, device: Device) -> float:
        """Give the seconds that a device takes to load a model."""
        return self._workload.load_s.get(model, 0.0)

    def _ended(self, device: SimDevice, call: Call) -> None:
        """A call has ended: hear what it took, and tell the caller."""
        name = device.device.name
        assert call.trained_from_s is not None
        if call.trained_from_s > call.begun_s:
            self._say(name, "load", call.begun_s, call.trained_from_s, call)
        self._say(name, "train", call.trained_from_s, self.now_s, call)
        self.dispatcher.done(name, call.jobs)
        self._learn(device, call)
        self._hear(call.jobs)

    def _learn(self, device: SimDevice, call: Call) -> None:
        """Learn what a call's jobs took."""
        took_s = {job: self._actual[job.key] / device.speed for job in call.jobs}
        if self._company is None:
            for job, seconds in took_s.items():
                self._forecast.observe(job, device.device.kind, seconds)
        else:
            work = {job.name: (float(job.size), seconds) for job, seconds in took_s.items()}
            self._company.learn(
                "train", work, device.device, call.company if call.company == len(device.calls) else None
            )

    def _say(self, device: str, phase: str, start_s: float, end_s: float, call: Call) -> None:
        """Log a span of a call."""
        sites = tuple(job.name for job in call.jobs)
        self.log.append(Span(device, phase, start_s, end_s, sites, self._number(call.jobs[0].group)))
