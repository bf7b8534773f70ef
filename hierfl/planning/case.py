"""A case: a tree on devices, ready to be simulated under any policy, with its own bound beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hierfl.config.schema import RunConfig
from hierfl.errors import ConfigError
from hierfl.planning.costs import Knowledge, site_works
from hierfl.planning.devices import devices, rates, shared
from hierfl.planning.shape import Shape, SiteWork, Took, asked, tree_bounds
from scheduler.bounds import Fleet, Task, price_bound
from scheduler.eligibility import usual_kind
from scheduler.eventlog import union_s
from scheduler.forecast import Forecast, Oracle
from scheduler.idle import figures
from scheduler.outcome import Outcome
from scheduler.policy import Policy
from scheduler.simulator import simulate
from scheduler.views import Device, JobKey
from scheduler.workload import Federation as Planned
from scheduler.workload import Workload, eligible
from tiers.federation import Federation

__all__ = ["Beside", "Case", "Figures", "case_of"]

MAX_ROUNDS = 10
MAX_JOBS = 2000
"""Jobs that are simulated by default: a second or so for each policy and lever."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a simulation says: seconds per round of the root, fractions of the devices' time."""

    round_s: float
    idle: float
    floor: float
    efficiency: float

    @property
    def avoidable(self) -> float:
        """Give the part of the idle time that a better order could avoid."""
        return max(0.0, self.idle - self.floor)

    def record(self) -> dict[str, Any]:
        """Give the figures for JSON."""
        return {
            "round_s": self.round_s,
            "idle": self.idle,
            "floor": self.floor,
            "avoidable": self.avoidable,
            "efficiency": self.efficiency,
        }


@dataclass(frozen=True)
class Beside:
    """Work of another federation on the same devices; `bound_s`: what it takes at least by itself."""

    federation: Planned
    actual: Mapping[JobKey, float]
    bound_s: float


@dataclass(frozen=True)
class Case:
    """`took`: what each site takes in each round of its hub, on a device of speed 1; `speeds` by kind of device."""

    tree: Federation
    sites: Mapping[str, SiteWork]
    took: Took
    devices: tuple[Device, ...]
    rounds: int
    speeds: Mapping[str, float]
    rates: tuple[float, ...] = (1.0,)
    call_s: float = 0.0
    transfer_s: Mapping[str, float] | None = None

    @cached_property
    def shape(self) -> Shape:
        """Place the tree in the simulator's workload."""
        return Shape(self.tree, self.sites)

    @cached_property
    def actual(self) -> dict[JobKey, float]:
        """Give each job's seconds."""
        return {
            self.shape.key(site, number): seconds
            for (_, number), own in self.took.items()
            for site, seconds in own.items()
        }

    @cached_property
    def federation(self) -> Planned:
        """Give the simulator's federation."""
        return self.shape.federation(self.rounds, self.shape.pauses(self.transfer_s or {}))

    @cached_property
    def fleet(self) -> Fleet:
        """Give the devices as the bounds see them."""
        return Fleet(self.devices, tuple(self.speeds.get(device.kind, 1.0) for device in self.devices), self.rates)

    @cached_property
    def bounds_s(self) -> list[float]:
        """Bound each round."""
        return tree_bounds(self.tree, self.sites, self.took, self.fleet, self.shape.pauses(self.transfer_s or {}))

    @property
    def bound_s(self) -> float:
        """Bound all rounds together."""
        return sum(self.bounds_s)

    def simulate(self, policy: Policy, beside: Iterable[Beside] = (), *, forecast: Forecast | None = None) -> Outcome:
        """Run the case to its end, with others beside it; the scheduler knows the durations if no forecast is given."""
        others = list(beside)
        actual = {key: seconds for other in others for key, seconds in other.actual.items()} | self.actual
        federations = (self.federation, *(other.federation for other in others))
        work = Workload(federations, self.devices, self.speeds, self.rates, call_s=self.call_s)
        bound_s = self.bound_s
        if others:
            together = price_bound(self._tasks(work, actual), self.fleet)
            bound_s = max(bound_s, together, *(other.bound_s for other in others))
        return simulate(work, policy, actual, forecast or Oracle(work, actual), bound_s=bound_s)

    def figures(self, outcome: Outcome) -> Figures:
        """Sum up a run of this case."""
        round_s = outcome.ends_s[self.federation.name] / self.rounds
        return Figures(round_s, outcome.idle.idle, outcome.idle.floor, outcome.idle.efficiency)

    def figures_within(self, outcome: Outcome) -> Figures:
        """Sum up a run of this case until its own last barrier, where others beside it went on."""
        end_s = outcome.ends_s[self.federation.name]
        spans: dict[str, list[tuple[float, float]]] = {device.name: [] for device in self.devices}
        for span in outcome.log:
            if span.phase == "train":
                spans[span.actor].append((span.start_s, span.end_s))
        busy_s = {name: union_s(own, [(0.0, end_s)]) for name, own in spans.items()}
        speeds = {device.name: self.speeds.get(device.kind, 1.0) for device in self.devices}
        work_s = sum(speeds[name] * busy for name, busy in busy_s.items())
        bound_s = max(self.bound_s, work_s / sum(speeds.values()))
        allocated_s = dict.fromkeys(busy_s, end_s)
        found = figures(busy_s, allocated_s, work_s=work_s, bound_s=bound_s, makespan_s=end_s, speeds=speeds)
        return Figures(end_s / self.rounds, found.idle, found.floor, found.efficiency)

    def rounds_s(self, outcome: Outcome) -> list[float]:
        """List what each round of the root took in a simulation."""
        name, steps = self.federation.name, self.shape.lock_step
        spans = [span.end_s - span.start_s for span in outcome.log if (span.actor, span.phase) == (name, "round")]
        return [sum(spans[first : first + steps]) for first in range(0, len(spans), steps)]

    @staticmethod
    def _tasks(work: Workload, actual: Mapping[JobKey, float]) -> list[Task]:
        """Give all jobs as the bounds see them."""
        where = {f"{fed.name}/{hub.name}/{site.name}": (hub.labels, site) for fed, hub, site in work.sites()}
        return [Task(spent, where[path][0], where[path][1].memory_bytes) for (_, path), spent in actual.items()]


def case_of(config: RunConfig, known: Knowledge, rounds: int | None = None) -> Case:
    """Make the case of a configuration whose number of devices is fixed; by default a few rounds.

    Errors: ConfigError where steps are unknown, or no device can hold a site's memory.
    """
    there = shared(devices(config.runtime), known.estimates)
    usual = usual_kind(there)
    works = site_works(config, known, usual)
    for path, work in works.items():
        if not any(eligible(work.labels, work.memory_bytes, device) for device in there):
            need = f"{work.memory_bytes / 2**30:.2f} GiB of memory, as measured by {known.source}"
            raise ConfigError(f"{path} needs {need}, and no device that may take it has that; see memory_gib")
    tree = config.federation
    if rounds is None:
        num_jobs = sum(len(sites) for _, _, sites in asked(tree, works, 1, config.seed))
        rounds = min(MAX_ROUNDS, tree.root.rounds, max(1, MAX_JOBS // max(1, num_jobs)))
    took = {
        (hub, number): {site: works[site].seconds for site in sites}
        for hub, number, sites in asked(tree, works, rounds, config.seed)
        if sites
    }
    speeds = {} if known.estimates is None else _speeds(there, usual, known)
    return Case(
        *(tree, works, took, there, rounds, speeds, rates(there, known.estimates)),
        call_s=known.call_s,
        transfer_s=known.transfer_s,
    )


def _speeds(there: Iterable[Device], usual: str, known: Knowledge) -> dict[str, float]:
    """Give how much faster each kind of device is than the usual one."""
    assert known.estimates is not None
    durations = known.estimates.durations
    return {kind: durations.speed(kind, usual) for kind in sorted({device.kind for device in there})}
