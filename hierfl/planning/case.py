"""A case: a tree on devices, ready to be simulated under any policy, with its own bound beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from hierfl.config.schema import RunConfig
from hierfl.errors import ConfigError
from hierfl.planning.costs import Knowledge, site_works
from hierfl.planning.devices import devices, rates, shared
from hierfl.planning.ran import Ran
from hierfl.planning.shape import Pauses, SiteWork, Took, asked, tree_bounds
from scheduler.bounds import Fleet, Task, price_bound
from scheduler.eligibility import usual_kind
from scheduler.idle import figures
from scheduler.views import Device
from scheduler.workload import eligible
from tiers.federation import Federation

__all__ = ["Case", "Figures", "case_of"]

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
class Case:
    """`took`: what each site takes in each round of its hub, on a device of speed 1; `speeds` by kind of device.

    `first`: the number of the first round; `seed`: the run's, for what participation policies draw; `is_log`: `took` is
    from a run, and a site that is missing there has sat the round out.
    """

    tree: Federation
    sites: Mapping[str, SiteWork]
    took: Took
    devices: tuple[Device, ...]
    rounds: int
    speeds: Mapping[str, float]
    rates: tuple[float, ...] = (1.0,)
    pauses: Pauses = field(default_factory=Pauses)
    first: int = 0
    seed: int = 0
    is_log: bool = False

    @cached_property
    def closes_early(self) -> bool:
        """Whether some hub need not wait for all."""
        return any(hub.participation.may_close_early for hub in self.tree.hubs.values())

    @cached_property
    def fleet(self) -> Fleet:
        """Give the devices as the bounds see them."""
        return Fleet(self.devices, tuple(self.speeds.get(device.kind, 1.0) for device in self.devices), self.rates)

    @cached_property
    def work_s(self) -> float:
        """Add up what all sites take in all rounds."""
        return sum(seconds for own in self.took.values() for seconds in own.values())

    @property
    def num_jobs(self) -> int:
        """Count the trainings."""
        return sum(map(len, self.took.values()))

    @cached_property
    def bounds_s(self) -> list[float]:
        """Bound each round, where hubs wait for all."""
        return tree_bounds(self.tree, self.sites, self.took, self.fleet, self.pauses.least_s())

    @property
    def bound_s(self) -> float:
        """Bound all rounds together, where hubs wait for all."""
        return sum(self.bounds_s)

    def seconds(self, hub: str, number: int, site: str) -> float | None:
        """Say what a site takes in a round of its hub; None if it sits the round out.

        A round of a run that did not ask a site, but another schedule would, takes what the site usually takes.
        """
        found = self.took.get((hub, number), {}).get(site)
        if found is not None or (self.is_log and not self.closes_early):
            return found
        return self.sites[site].seconds

    def round_bounds_s(self, ran: Ran) -> list[float]:
        """Bound each round of a run of this case; where hubs close early, by the work that was done in it."""
        return ran.work_bounds_s(self.fleet) if self.closes_early else self.bounds_s

    def figures(self, ran: Ran) -> Figures:
        """Sum up a run of this case, and of as many of its kind beside it as the run has roots."""
        num = len(ran.rounds)
        work_s = ran.work_s() if self.closes_early else num * self.work_s
        bound_s = sum(self.round_bounds_s(ran))
        if num > 1 and not self.closes_early:
            tasks = [Task(spent, self.sites[s].labels, self.sites[s].memory_bytes) for s, spent in self._all_took()]
            bound_s = max(bound_s, price_bound(tasks * num, self.fleet))
        names = [device.name for device in self.devices]
        speeds = {device.name: self.speeds.get(device.kind, 1.0) for device in self.devices}
        idle = figures(
            ran.busy_s(names),
            dict.fromkeys(names, ran.makespan_s),
            work_s=work_s,
            bound_s=bound_s,
            makespan_s=ran.makespan_s,
            speeds=speeds,
        )
        return Figures(ran.makespan_s / len(ran.rounds[0]), idle.idle, idle.floor, idle.efficiency)

    def marked(self, mark: str) -> Case:
        """Give the same case under a root of another name: `mark` is added to it."""
        cut = len(self.tree.root.name)

        def renamed(path: str) -> str:
            return f"{path[:cut]}{mark}{path[cut:]}"

        pauses = replace(
            self.pauses,
            opening_s={renamed(hub): seconds for hub, seconds in self.pauses.opening_s.items()},
            closing_s={renamed(hub): seconds for hub, seconds in self.pauses.closing_s.items()},
            gaps_s={(renamed(site), number): seconds for (site, number), seconds in self.pauses.gaps_s.items()},
        )
        took = {
            (renamed(hub), number): {renamed(site): seconds for site, seconds in own.items()}
            for (hub, number), own in self.took.items()
        }
        root = replace(self.tree.root, name=f"{self.tree.root.name}{mark}")
        sites = {renamed(site): work for site, work in self.sites.items()}
        return replace(self, tree=Federation(root), sites=sites, took=took, pauses=pauses)

    def _all_took(self) -> Iterator[tuple[str, float]]:
        return (pair for own in self.took.values() for pair in own.items())


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
        pauses=known.pauses,
        seed=config.seed,
    )


def _speeds(there: Iterable[Device], usual: str, known: Knowledge) -> dict[str, float]:
    """Give how much faster each kind of device is than the usual one."""
    assert known.estimates is not None
    durations = known.estimates.durations
    return {kind: durations.speed(kind, usual) for kind in sorted({device.kind for device in there})}
