"""The scheduler in simulated time: the dispatcher and the policies of the live run, under a clock that jumps.

Events lie on a heap; all that happens at one moment is heard before anything is decided, and then the dispatcher fills
the devices. A hub asks for its sites' work, has its barrier `transfer_s` after the last of them has ended, and goes on
to its next round; the last hub's barrier is the federation's, and the next global round begins. The same workload,
durations, policy and changes of devices give the same decisions and the same log, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from scheduler.bounds import workload_bound
from scheduler.dispatch import DEPTH
from scheduler.eventlog import Span
from scheduler.forecast import Forecast
from scheduler.outcome import Change, Outcome, settle
from scheduler.outlook import Outlook
from scheduler.policy import Policy
from scheduler.simcrew import SimCrew
from scheduler.simdevice import Call, SimDevice
from scheduler.stand import HubStand, Running, Stand
from scheduler.views import Job, JobKey
from scheduler.workload import Actual, Federation, Hub, Workload, cohort, group_name, site_path

__all__ = ["Advise", "Simulation", "simulate"]

Advise = Callable[[Stand], Policy | None]
"""Asked when a global round begins; a policy that it gives is used from then on."""


@dataclass(eq=False)
class _HubRun:
    """A hub's progress: rounds done, counted through; the open one's jobs, those that wait, how many are not back."""

    federation: Federation
    hub: Hub
    number: int = 0
    jobs: list[Job] = field(default_factory=list)
    waiting: dict[str, None] = field(default_factory=dict)
    num_out: int = 0
    asked_s: float = 0.0
    ended_s: float = 0.0
    barrier_s: float | None = None

    @property
    def path(self) -> str:
        return f"{self.federation.name}/{self.hub.name}"

    @property
    def is_open(self) -> bool:
        return self.num_out > 0 or self.barrier_s is not None


def simulate(
    workload: Workload,
    policy: Policy,
    actual: Actual,
    forecast: Forecast,
    *,
    depth: int = DEPTH,
    in_sequence: bool = False,
    changes: Sequence[Change] = (),
    advise: Advise | None = None,
    bound_s: float | None = None,
) -> Outcome:
    """Run a workload to its end.

    `actual`: what jobs take; `forecast`: what the scheduler thinks they take; `in_sequence`: a federation begins when
    the one before has ended; `bound_s`: the workload's bound, if it is known already.
    """
    run = Simulation(
        workload, policy, actual, forecast, depth=depth, in_sequence=in_sequence, changes=changes, advise=advise
    )
    while run.step():
        pass
    return run.outcome(workload_bound(workload, actual) if bound_s is None else bound_s)


class Simulation:
    """One run under way; `stand`: where to begin, if not at the beginning."""

    def __init__(
        self,
        workload: Workload,
        policy: Policy,
        actual: Actual,
        forecast: Forecast,
        *,
        depth: int = DEPTH,
        in_sequence: bool = False,
        changes: Sequence[Change] = (),
        advise: Advise | None = None,
        stand: Stand | None = None,
    ) -> None:
        self.workload = workload
        self.actual = actual
        self.forecast = forecast
        self.ends_s: dict[str, float] = {}
        self._advise = advise
        self._in_sequence = in_sequence
        self._outlook = Outlook(workload, forecast)
        self._crew = SimCrew(
            *(workload, policy, actual, forecast),
            ended=self._ended,
            number=lambda group: self._groups[group].number + 1,
            depth=depth,
        )
        self._orders = count()
        self._hubs = [_HubRun(federation, hub) for federation in workload.federations for hub in federation.hubs]
        self._groups: dict[str, _HubRun] = {}
        self._asked_s: dict[str, float] = {}
        self._is_new_round = False
        self._num_unknown, self._num_learned = 0, 0
        for change in sorted(changes, key=lambda change: change.time_s):
            act = partial(self._crew.join if change.joins else self._leave, change.device)
            self._crew.at(change.time_s, act)
        self._resume(Stand(_first_devices(workload, changes)) if stand is None else stand)

    @property
    def now_s(self) -> float:
        """Say how late it is."""
        return self._crew.now_s

    @property
    def num_events(self) -> int:
        """Count what has happened so far."""
        return self._crew.num_events

    def step(self) -> bool:
        """Hear all that happens next at one moment, and decide; say whether the run goes on."""
        if len(self.ends_s) == len(self.workload.federations):
            return False
        assert not self._crew.is_over, f"no device is left for {sorted(run.path for run in self._hubs if run.waiting)}"
        self._crew.advance()
        self._decide()
        return True

    def outcome(self, bound_s: float) -> Outcome:
        """Give the figures of a run that is over."""
        return settle(self.workload, self.actual, self._crew, self.ends_s, bound_s)

    def stand(self) -> Stand:
        """Say where the run stands, with what is predicted of the jobs under way."""
        running: dict[str, list[Running]] = {}
        for name, device in self._crew.devices.items():
            for call in (*device.calls, *device.queue):
                left_s = self._left_s(device, call)
                for job in call.jobs:
                    running.setdefault(job.group, []).append(Running(job.name, name, left_s / len(call.jobs)))
        hubs = {
            run.path: HubStand(
                run.number,
                tuple(run.waiting),
                tuple(running.get(group_name(run.federation, run.hub, run.number), ())),
                None if run.barrier_s is None else run.barrier_s - self.now_s,
            )
            for run in self._hubs
        }
        return Stand(tuple(self._crew.devices), hubs, frozenset(self._asked_s), frozenset(self.ends_s), self.now_s)

    def _left_s(self, device: SimDevice, call: Call) -> float:
        """Predict what is left of a call: at least a twentieth of it."""
        kind = device.device.kind
        whole_s = sum(self.forecast.predict(job, kind) or 0.0 for job in call.jobs)
        spent_s = 0.0 if call.trained_from_s is None else self.now_s - call.trained_from_s
        return max(whole_s - spent_s, 0.05 * whole_s)

    def _resume(self, stand: Stand) -> None:
        """Begin where a run stands: first what is under way, each on its device, then what waits."""
        jobs: dict[str, Job] = {}
        for federation in self.workload.federations:
            opened: list[_HubRun] = []
            sites: set[str] = set()
            for run in self._of(federation):
                found = stand.hubs.get(run.path, HubStand())
                run.number = found.number
                sites.update(found.waiting, (running.site for running in found.running))
                if found.waiting or found.running:
                    opened.append(run)
                elif found.barrier_in_s is not None:
                    self._close(run, found.barrier_in_s)
            if opened:
                jobs.update((job.name, job) for job in self._open(opened, sites))
        for name in stand.devices:
            self._crew.join(name)
            under_way = [r.site for hub in stand.hubs.values() for r in hub.running if r.device == name]
            for site in under_way:
                self._crew.ask([jobs.pop(site)])
                self._decide()
        self._crew.ask(jobs.values())
        self._decide()
        for federation in self.workload.federations:
            if federation.name in stand.ended:
                self.ends_s[federation.name] = 0.0
            elif federation.name in stand.begun:
                self._asked_s[federation.name] = 0.0
                self._meet(federation)
            elif not self._in_sequence:
                self._crew.at(federation.start_s, partial(self._begin, federation))
        if self._in_sequence:
            self._next_in_sequence()

    def _begin(self, federation: Federation) -> None:
        """Begin a federation's next global round."""
        self._asked_s[federation.name] = self.now_s
        self._is_new_round = True
        self._crew.ask(self._open(self._of(federation)))

    def _next_in_sequence(self) -> None:
        """Begin the first federation that has not begun, no sooner than it may."""
        following = (fed for fed in self.workload.federations if fed.name not in {*self._asked_s, *self.ends_s})
        if (federation := next(following, None)) is not None:
            self._crew.at(max(self.now_s, federation.start_s), partial(self._begin, federation))

    def _open(self, runs: Sequence[_HubRun], only: Collection[str] | None = None) -> list[Job]:
        """Open the next round of hubs of one federation, with `only` for these sites; give their jobs."""
        federation = runs[0].federation
        opened = []
        for run in runs:
            takes_part = (site for site, _ in cohort(federation, run.hub, run.number, self.actual))
            sites = [s for s in takes_part if only is None or site_path(federation, run.hub, s) in only]
            opened.append((run.hub, run.number, sites))
        found = self._outlook.jobs(federation, opened, self._orders)
        for run, jobs in zip(runs, found, strict=True):
            self._groups[group_name(federation, run.hub, run.number)] = run
            run.jobs, run.asked_s, run.num_out = jobs, self.now_s, len(jobs)
            self._num_unknown += sum(job.estimate_s is None for job in jobs)
            run.waiting = dict.fromkeys(job.name for job in jobs)
            if not jobs:
                self._close(run, run.hub.transfer_s)
        return [job for jobs in found for job in jobs]

    def _close(self, run: _HubRun, in_s: float) -> None:
        """All of a hub's sites have ended: its barrier comes."""
        run.ended_s, run.barrier_s = self.now_s, self.now_s + in_s
        self._crew.at(run.barrier_s, partial(self._barrier, run))

    def _barrier(self, run: _HubRun) -> None:
        """A hub's round is over."""
        run.barrier_s = None
        run.number += 1
        members = tuple(site_path(run.federation, run.hub, site) for site in run.hub.sites)
        self._crew.log.append(Span(run.path, "aggregate", run.ended_s, self.now_s, (run.path,), run.number))
        self._crew.log.append(Span(run.path, "round", run.asked_s, self.now_s, members, run.number))
        if run.number % run.hub.rounds:
            self._crew.ask(self._open([run]))
        else:
            self._meet(run.federation)

    def _meet(self, federation: Federation) -> None:
        """Begin a federation's next global round, or end it, once all its hubs have met."""
        runs = self._of(federation)
        done = {run.number // run.hub.rounds for run in runs}
        if len(done) > 1 or any(run.is_open or run.number % run.hub.rounds for run in runs):
            return
        (number,) = done
        if number:
            asked_s = self._asked_s[federation.name]
            paths = tuple(run.path for run in runs)
            self._crew.log.append(Span(federation.name, "round", asked_s, self.now_s, paths, number))
        if number < federation.rounds:
            self._begin(federation)
            return
        self.ends_s[federation.name] = self.now_s
        if self._in_sequence:
            self._next_in_sequence()

    def _of(self, federation: Federation) -> list[_HubRun]:
        """List a federation's hubs."""
        return [run for run in self._hubs if run.federation is federation]

    def _decide(self) -> None:
        """Let the dispatcher fill the devices; when a global round has begun, ask for a better policy first."""
        if self._is_new_round and self._advise is not None:
            policy = self._advise(self.stand())
            if policy is not None:
                self._crew.dispatcher.use(policy)
        self._is_new_round = False
        for assign in self._crew.decide():
            for job in assign.jobs:
                del self._groups[job.group].waiting[job.name]

    def _ended(self, jobs: tuple[Job, ...]) -> None:
        """A call has ended: count its sites back."""
        for job in jobs:
            run = self._groups[job.group]
            run.num_out -= 1
            if run.num_out == 0:
                self._close(run, run.hub.transfer_s)
        self._num_learned += 1
        if self._num_learned <= self._num_unknown and self._num_learned & (self._num_learned - 1) == 0:
            self._renew()

    def _renew(self) -> None:
        """Predict anew what waits, after 1, 2, 4 ... calls: what was asked before them knew nothing."""
        renewed: dict[JobKey, Job] = {}
        for federation in self.workload.federations:
            runs = [run for run in self._of(federation) if run.num_out]
            found = self._outlook.renew(federation, [(run.hub, run.number, run.jobs) for run in runs])
            for run, jobs in zip(runs, found, strict=True):
                run.jobs = jobs
                renewed.update((job.key, job) for job in jobs)
        self._crew.dispatcher.refresh(lambda job: renewed[job.key])

    def _leave(self, name: str) -> None:
        """A device goes; what it was at is done again."""
        again = self._crew.leave(name)
        for job in again:
            self._groups[job.group].waiting[job.name] = None
        self._crew.ask(again)


def _first_devices(workload: Workload, changes: Sequence[Change]) -> tuple[str, ...]:
    """List the devices that are there from the beginning: all but those whose first change is to come."""
    first: dict[str, bool] = {}
    for change in sorted(changes, key=lambda change: change.time_s):
        first.setdefault(change.device, change.joins)
    return tuple(device.name for device in workload.devices if not first.get(device.name, False))
