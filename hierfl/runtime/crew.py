"""The workers of a run: work is asked of the crew, the scheduler's dispatcher says who does what, results come back.

A worker keeps the sum of the sites that it trained for a hub's round; when no site of that round waits for a device
any more, every worker that holds a part of it is asked to hand it up. What a lost worker had not handed up is done
again by others: the same work gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from hierfl.errors import HierflError, RuntimeUnavailable
from hierfl.learning.state import Layout
from hierfl.runtime.driver import Done, Driver, Handle
from hierfl.runtime.jobs import Evaluated, Inventory, Order, SiteReport, TrainJob
from scheduler import Assign, Dispatcher, Durations, Job, Policy
from tiers.messages import Update

__all__ = [
    "Built",
    "Busy",
    "Crew",
    "Described",
    "Group",
    "HandedUp",
    "Measured",
    "Result",
    "SitesLost",
    "Trained",
    "WorkerLost",
]

MAX_ATTEMPTS = 3
"""How often a site's work is begun before its worker's death is held against it."""

MAX_RESTARTS = 5
"""How often one worker is replaced without having done anything in between, and how often a site's finished training
may be lost with a worker that had not handed it up."""


@dataclass(frozen=True)
class Group:
    """Work for the sites of one hub: train (`order` says for which round), evaluate or describe.

    `sizes`: units of work by site's path (optimizer steps, samples), for predictions; `names` of weights are paths.
    """

    name: str
    kind: str
    hub: str
    round_number: int
    sizes: Mapping[str, int]
    weights: Mapping[str, int] = field(default_factory=dict)
    order: Order | None = None
    model: Handle = None


@dataclass(frozen=True, slots=True)
class Built:
    """Result: a worker has built the model."""

    layout: Layout
    model: Handle


@dataclass(frozen=True, slots=True)
class Trained:
    """Result: a worker has trained these sites."""

    group: Group
    worker: str
    reports: tuple[SiteReport, ...]


@dataclass(frozen=True, slots=True)
class HandedUp:
    """Result: a worker has handed up its sum of a hub's round."""

    group: Group
    update: Update
    part: Handle


@dataclass(frozen=True, slots=True)
class Measured:
    """Result: a worker has measured these sites."""

    group: Group
    worker: str
    evaluated: Evaluated


@dataclass(frozen=True, slots=True)
class Described:
    """Result: a worker has counted what these sites have."""

    group: Group
    inventories: tuple[Inventory, ...]


@dataclass(frozen=True, slots=True)
class SitesLost:
    """Result: these sites will give nothing, each for a reason."""

    group: Group
    sites: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """Result: a worker died and was replaced; these sites' work is done again."""

    worker: str
    reason: str
    sites: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Busy:
    """Result: a worker was busy with a phase for these sites, in seconds since the epoch."""

    worker: str
    phase: str
    start_s: float
    end_s: float
    sites: tuple[str, ...]


Result: TypeAlias = Built | Trained | HandedUp | Measured | Described | SitesLost | WorkerLost | Busy


@dataclass(frozen=True)
class _Call:
    """A call that a worker has not answered yet."""

    worker: str
    method: str
    group: Group | None
    jobs: tuple[Job, ...]


class Crew:
    """Keeps workers fed and their results in order."""

    def __init__(self, driver: Driver, workers: Iterable[str], policy: Policy, *, preaggregate: bool) -> None:
        self.driver = driver
        self.workers = tuple(workers)
        self.durations = Durations()
        self._dispatcher = Dispatcher(policy)
        for worker in self.workers:
            self._dispatcher.join(worker)
        self._preaggregate = preaggregate
        self._calls: dict[int, _Call] = {}
        self._groups: dict[str, Group] = {}
        self._held: dict[tuple[str, str], list[str]] = {}
        self._due: set[tuple[str, str]] = set()
        self._attempts: dict[tuple[str, str], int] = {}
        self._wasted: dict[tuple[str, str], int] = {}
        self._restarts: dict[str, int] = {}
        self._prepared: tuple[Any, ...] | None = None

    def owns(self, ticket: int) -> bool:
        """Say whether a call was the crew's."""
        return ticket in self._calls

    def build(self) -> None:
        """Ask a worker for the model as the run's seed makes it."""
        self._call(self.workers[0], "initial", None, ())

    def prepare(self, layout: Any, scale: Any) -> None:
        """Tell every worker, now and after a restart, the layout and the features' mean and deviation."""
        self._prepared = (layout, scale)
        for worker in self.workers:
            self._call(worker, "prepare", None, (), layout, scale)

    def ask(self, group: Group) -> None:
        """Ask for the work of a group."""
        self._groups[group.name] = group
        self._queue(group, group.sizes)

    def withdraw(self, group_name: str) -> None:
        """Let a group's waiting work go, and drop what is still handed up for it."""
        self._dispatcher.withdraw(group_name)
        group = self._groups.pop(group_name, None)
        for worker, name in [key for key in self._held if key[1] == group_name]:
            del self._held[worker, name]
            if group is not None:
                self._call(worker, "collect", None, (), group.hub, group.round_number)

    def pump(self) -> None:
        """Give free devices work, and ask for sums whose sites are all on their way."""
        for decision in self._dispatcher.decide():
            self._assign(decision)
        for worker, name in list(self._due):
            if not self._dispatcher.has_waiting(name):
                self._collect(worker, name)

    def handle(self, done: Done) -> Iterator[Result]:
        """Take the end of a call; yield what it means, in order. Errors: HierflError that is no single site's."""
        call = self._calls.pop(done.ticket)
        if done.crashed is not None:
            yield from self._lost_worker(call, done.crashed)
            return
        self._dispatcher.done(call.worker, call.jobs)
        if done.error is not None:
            raise done.error
        self._restarts.pop(call.worker, None)
        if call.method == "prepare":
            if done.value is not None:
                raise HierflError(f"{call.worker} builds another model than the federation's: {done.value}")
            return
        if call.method == "initial":
            yield Built(done.value, done.beside[0])
        group = call.group
        if group is None or group.name not in self._groups:
            return
        if call.method != "collect" or done.value is not None:
            phase = {"describe": "load", "collect": "transfer"}.get(call.method, call.method)
            sites = tuple(job.name for job in call.jobs) or (group.hub,)
            yield Busy(call.worker, phase, done.started_s, done.ended_s, sites)
        yield from self._result(call, group, done)

    def _result(self, call: _Call, group: Group, done: Done) -> Iterator[Result]:
        """Turn a call's reply into results."""
        match call.method:
            case "train":
                yield from self._trained(call, group, done.value)
            case "collect":
                if done.value is not None:
                    handed = {f"{group.hub}/{share.member}" for share in done.value.shares}
                    key = (call.worker, group.name)
                    self._held[key] = [site for site in self._held.get(key, ()) if site not in handed]
                    yield HandedUp(group, done.value, done.beside[0])
            case "evaluate":
                for site, duration_s in done.value.durations.items():
                    self.durations.observe("evaluate", site, group.sizes[site], duration_s)
                yield Measured(group, call.worker, done.value)
            case "describe":
                yield Described(group, done.value)

    def _trained(self, call: _Call, group: Group, reports: tuple[SiteReport, ...]) -> Iterator[Result]:
        """Learn from reports; tell which sites gave nothing."""
        failed = {report.site: report.error for report in reports if report.error is not None}
        held = self._held.get((call.worker, group.name), [])
        for report in reports:
            if report.error is None:
                self.durations.observe("train", report.site, group.sizes[report.site], report.duration_s)
            elif report.site in held:
                held.remove(report.site)
        yield Trained(group, call.worker, reports)
        if failed:
            yield SitesLost(group, failed)

    def _queue(self, group: Group, sites: Iterable[str]) -> None:
        """Put sites into the dispatcher's queue, with what they are thought to take.

        A site under which a worker has died counts as unknown, so that it shares a call with no other.
        """
        sizes = group.sizes
        for order, site in enumerate(sites):
            suspect = (group.name, site) in self._attempts
            estimate_s = None if suspect else self.durations.predict(group.kind, site, sizes[site])
            self._dispatcher.ask([Job(group.name, site, sizes[site], estimate_s, order)])

    def _assign(self, decision: Assign) -> None:
        """Send a chunk of work to its worker."""
        group = self._groups[decision.jobs[0].group]
        worker, jobs = decision.device, decision.jobs
        sites = tuple(job.name for job in jobs)
        if any(name == group.name for name, _ in self._attempts):
            for _, name in [key for key in self._held if key[0] == worker]:
                self._collect(worker, name)  # workers have died of this group: what is next takes no others' work along
        if group.kind == "describe":
            self._call(worker, "describe", group, jobs, sites)
        elif group.kind == "evaluate":
            self._call(worker, "evaluate", group, jobs, group.hub, sites, group.model)
        else:
            self._train(worker, group, jobs, sites)

    def _train(self, worker: str, group: Group, jobs: tuple[Job, ...], sites: tuple[str, ...]) -> None:
        """Send training; without pre-aggregation each site's update is handed up by itself."""
        assert group.order is not None
        weighed = tuple((site, group.weights[site]) for site in sites)
        each = [weighed] if self._preaggregate else [(pair,) for pair in weighed]
        for number, part in enumerate(each):
            job = TrainJob(group.hub, group.round_number, part, group.order.opening, group.order.objective)
            self._held.setdefault((worker, group.name), []).extend(site for site, _ in part)
            last = jobs if number == len(each) - 1 else ()
            self._call(worker, "train", group, last, job, group.model)
            if not self._preaggregate:
                self._collect(worker, group.name)
        if self._preaggregate:
            self._due.add((worker, group.name))

    def _collect(self, worker: str, name: str) -> None:
        """Ask a worker for its sum; its earlier calls come first."""
        self._due.discard((worker, name))
        group = self._groups.get(name)
        if group is not None:
            self._call(worker, "collect", group, (), group.hub, group.round_number)

    def _call(self, worker: str, method: str, group: Group | None, jobs: tuple[Job, ...], *arguments: Any) -> None:
        """Make a call and remember what it was."""
        ticket = self.driver.call(worker, method, *arguments)
        self._calls[ticket] = _Call(worker, method, group, jobs)

    def _lost_worker(self, lost: _Call, reason: str) -> Iterator[Result]:
        """Replace a dead worker; what it had not handed up is done again, unless it may be what killed it."""
        worker = lost.worker
        self._restarts[worker] = self._restarts.get(worker, 0) + 1
        if self._restarts[worker] > MAX_RESTARTS:
            raise RuntimeUnavailable(f"{worker} died {MAX_RESTARTS + 1} times in a row: {reason}")
        running = self._dispatcher.running(worker)
        suspects = {(job.group, job.name) for job in running[0]} if running else set()
        again = {(job.group, job.name) for job in self._dispatcher.leave(worker)}
        held = {(key[1], site) for key, sites in self._held.items() if key[0] == worker for site in sites}
        self._waste(worker, held - again, reason)
        again |= held
        self._held = {key: sites for key, sites in self._held.items() if key[0] != worker}
        self._due = {key for key in self._due if key[0] != worker}
        building = lost.method == "initial" or any(
            call.method == "initial" for call in self._calls.values() if call.worker == worker
        )
        self._calls = {ticket: call for ticket, call in self._calls.items() if call.worker != worker}
        self.driver.restart(worker)
        if building:
            self.build()
        self._dispatcher.join(worker)
        if self._prepared is not None:
            self._call(worker, "prepare", None, (), *self._prepared)
        yield WorkerLost(worker, reason, tuple(sorted(site for _, site in again)))
        yield from self._again(again, suspects, reason)

    def _waste(self, worker: str, trained: set[tuple[str, str]], reason: str) -> None:
        """Count the training that is lost with a worker. Errors: RuntimeUnavailable if it is lost again and again."""
        for key in trained:
            self._wasted[key] = self._wasted.get(key, 0) + 1
            if self._wasted[key] > MAX_RESTARTS:
                raise RuntimeUnavailable(
                    f"{worker} died with the training of {key[1]}, lost so {self._wasted[key]} times: {reason}"
                )

    def _again(self, keys: set[tuple[str, str]], suspects: set[tuple[str, str]], reason: str) -> Iterator[Result]:
        """Queue work once more; give a site up whose worker died under it too often."""
        for name in sorted({name for name, _ in keys}):
            group = self._groups.get(name)
            if group is None:
                continue
            sites = [site for site in group.sizes if (name, site) in keys]
            for site in sites:
                if (name, site) in suspects:
                    self._attempts[name, site] = self._attempts.get((name, site), 0) + 1
            given_up = {
                site: f"its worker died {MAX_ATTEMPTS} times while it trained: {reason}"
                for site in sites
                if self._attempts.get((name, site), 0) >= MAX_ATTEMPTS
            }
            self._queue(group, [site for site in sites if site not in given_up])
            if given_up:
                yield SitesLost(group, given_up)

    def finish(self, group_name: str) -> None:
        """Forget a group whose work is all accounted for."""
        self._groups.pop(group_name, None)
        self._attempts = {key: count for key, count in self._attempts.items() if key[0] != group_name}
        self._wasted = {key: count for key, count in self._wasted.items() if key[0] != group_name}
        self._held = {key: sites for key, sites in self._held.items() if key[1] != group_name}
        self._due = {key for key in self._due if key[1] != group_name}
