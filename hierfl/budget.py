"""What a run costs each site's records: planned before it starts, and spent after each of its rounds.

Every round counts as if every site took part in it, whoever participation leaves out: sampling sites buys nothing here.
So what is spent follows from the rounds that are done, and a run that is resumed, or goes on for longer, counts those
before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hierfl.accountant import epsilon, least_noise, most_often
from hierfl.config.schema import RunConfig
from hierfl.durable import put
from hierfl.errors import ConfigError, OutputError, Problem
from hierfl.learning.patients import PATIENT, spoken_units, unit_of
from hierfl.learning.privacy import Mechanism, Release
from hierfl.learning.task import Standardised
from hierfl.monitor.records import Scalars
from tiers.federation import is_within, parent, rounds_per_round

__all__ = [
    "EPSILON",
    "Cost",
    "check_budget",
    "costs",
    "counted_on",
    "keep_counts",
    "paid",
    "planned",
    "spent",
    "with_spent",
]

EPSILON = "epsilon"
"""What has been spent, among a node's figures."""

COUNTED = "privacy.json"
"""In a run's folder: training records by path, of sites with a mechanism."""

MOST_TOLD = 20
"""Sites that are told one by one."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a site pays for one round of the root, or of what asks it; in at most `rounds` of these.

    `allowed`: the most epsilon that its institution's own terms allow; None: any.
    """

    site: str
    mechanism: Mechanism
    release: Release
    first: int
    rounds: int
    num_samples: int
    """Records, or patients where the mechanism protects these."""
    allowed: float | None = None

    @property
    def units(self) -> str:
        """Name what its mechanism protects, to a person."""
        return f"{unit_of(self.mechanism)}s"

    @property
    def budget(self) -> float | None:
        """Give the most that it may pay: its mechanism's, or less where its own terms allow less; None: any."""
        bounds = [bound for bound in (self.mechanism.epsilon, self.allowed) if bound is not None]
        return min(bounds, default=None)

    @property
    def named_budget(self) -> str:
        """Name the budget to a person."""
        if self.budget is None or self.budget != self.allowed:
            return f"privacy.epsilon is {self.mechanism.epsilon:g}"
        return f"the terms of the institution allow an epsilon of {self.allowed:g}"

    @property
    def delta(self) -> float:
        """Give the site's delta."""
        return self.mechanism.delta

    def after(self, rounds_done: int) -> float:
        """Give the epsilon of all rounds of the root up to this one."""
        times = max(0, min(rounds_done - self.first + 1, self.rounds))
        return epsilon([replace(self.release, count=self.release.count * times)], self.delta)

    @property
    def epsilon(self) -> float:
        """Give the epsilon of the whole run."""
        return self.after(self.first + self.rounds)

    def __str__(self) -> str:
        """Say it to a person."""
        rate, steps = self.release.rate, self.release.count * self.rounds
        often = f"{steps:,} steps, each on {rate:.3g} of its {self.num_samples:,} {self.units}" if rate < 1 else ""
        often = often or f"{steps:,} steps on all of its {self.num_samples:,} {self.units}"
        noise = f"noise {self.release.noise_multiplier:g} times what one of them can do"
        return f"epsilon {self.epsilon:.3g} at delta {self.delta:g}: {often}, with {noise}"


def costs(config: RunConfig, num_samples: Mapping[str, int | None], top: str = "") -> dict[str, Cost]:
    """Give by path what sites with a mechanism pay for a round of the root, or for one that the hub above `top` asks.

    `num_samples`: training samples by path, or patients where these are protected; sites of none, or of an unknown
    number, are left out.
    """
    tree, found = config.federation, {}
    last = tree.root.rounds
    for path, site in config.sites.items():
        number = num_samples.get(path)
        if site.privacy is None or not number or (top and not is_within(path, top)):
            continue
        hub = parent(path)
        assert hub is not None
        rule = config.hubs[hub].strategy.objective()
        # hierfl's own topologies let every member train once in a round; others are refused (config.privacy)
        times = rounds_per_round(tree, hub) // rounds_per_round(tree, parent(top) or "")
        steps = rule.num_steps(site.training.num_steps(number)) * times
        release = site.privacy.release(site.training, number, steps)
        end = last + 1 if site.leaves_at is None else min(site.leaves_at, last + 1)
        found[path] = Cost(path, site.privacy, release, site.joins_at, max(0, end - site.joins_at), number)
    return found


def check_budget(config: RunConfig, num_samples: Mapping[str, int | None]) -> None:
    """Errors: ConfigError, naming every site whose run would cost more than its budget, and what would fit."""
    over = []
    for path, cost in costs(config, num_samples).items():
        budget = cost.mechanism.epsilon
        if budget is not None and cost.epsilon > budget:
            over.append((path, cost, budget))
    if not over:
        return
    problems = []
    for path, cost, budget in over[:MOST_TOLD]:
        problems.append(Problem(f"{path}: privacy.epsilon", f"is {budget:g}, and {_way_out(cost, budget)}"))
    more = [Problem("", f"and {len(over) - MOST_TOLD} more sites")] if len(over) > MOST_TOLD else []
    raise ConfigError([*problems, *more])


def planned(config: RunConfig, num_samples: Mapping[str, int | None]) -> dict[str, str]:
    """Say by path what the whole run costs sites; at the root what is promised, and what is not."""
    private = [path for path, site in config.sites.items() if site.privacy is not None]
    if not private:
        return {}
    found = costs(config, num_samples)
    told = sorted(found.values(), key=lambda cost: -cost.epsilon)[:MOST_TOLD]
    said = {cost.site: f"privacy: {cost}" for cost in told}
    unknown = [path for path in private if num_samples.get(path) is None]
    units = spoken_units(config.sites[path].privacy for path in private)
    root = [f"privacy of single {units}: {len(private)} of {len(config.sites)} sites"]
    if found:
        root[0] += f", epsilon at most {told[0].epsilon:.3g}"
    if unknown:
        root.append(f"{len(unknown)} sites' {units} are not counted yet; what they pay is told at the run's start")
    loose = [cost for cost in found.values() if cost.delta * cost.num_samples >= 1]
    if loose:
        root.append(
            f"delta {loose[0].delta:g} promises nothing to {loose[0].num_samples:,} {loose[0].units}: far below 1 / n"
        )
    return {config.federation.root.name: "; ".join([*root, *_limits(config)]), **said}


def counted_on(
    config: RunConfig, num_samples: Mapping[str, int | None], num_patients: Mapping[str, int | None] | None = None
) -> dict[str, int | None]:
    """Give by path what privacy is counted on: training samples, or patients where these are protected, whose number
    nobody knows before data are loaded.
    """
    patients, found = num_patients or {}, dict(num_samples)
    for path, site in config.sites.items():
        if unit_of(site.privacy) == PATIENT and found.get(path):
            found[path] = patients.get(path)
    return found


def _limits(config: RunConfig) -> Iterator[str]:
    """Say what noise does not cover, and on what it rests."""
    has_patients = any(unit_of(site.privacy) == PATIENT for site in config.sites.values())
    numbers = f"numbers of samples{' and of patients' if has_patients else ''}"
    uncovered = [numbers, "measurements on test records", "how long a site takes", "errors"]
    if isinstance(config.task, Standardised) and config.task.standardise != "none":
        uncovered.insert(0, f"the features' mean and deviation (standardise: {config.task.standardise})")
    if config.statistics is not None:
        uncovered.insert(0, "the statistics of the records")
    yield f"not covered: {', '.join(uncovered)}"
    if config.is_served:
        yield "of a member that is a hub, its own process counts what is paid below it"
    else:
        what = "`hierfl run` simulates it" if config.links else "this is a simulation"
        yield f"{what}: its noise follows from the seed, and hides nothing from who knows that"


def spent(found: Mapping[str, Cost], rounds_done: int) -> dict[str, float]:
    """Give the epsilon after some rounds by path, of sites and of the hubs above them: the largest below."""
    told: dict[str, float] = {}
    for path, cost in found.items():
        value = cost.after(rounds_done)
        node: str | None = path
        while node is not None:
            told[node] = max(value, told.get(node, 0.0))
            node = parent(node)
    return told


def with_spent(metrics: Mapping[str, Scalars], found: Mapping[str, Cost], rounds_done: int) -> Mapping[str, Scalars]:
    """Put what was spent among the nodes' figures."""
    told = spent(found, rounds_done)
    return {path: {**own, EPSILON: told[path]} if path in told else own for path, own in metrics.items()}


def paid(found: Mapping[str, Cost], rounds_done: int) -> dict[str, object]:
    """Write what each site has paid; empty where none has a mechanism."""
    if not found:
        return {}
    sites = {
        path: {
            "epsilon": cost.after(rounds_done),
            "epsilon_planned": cost.epsilon,
            "unit": unit_of(cost.mechanism),
            "delta": cost.delta,
            "noise_multiplier": cost.release.noise_multiplier,
            "sampling_rate": cost.release.rate,
            "steps_per_round": cost.release.count,
        }
        for path, cost in found.items()
    }
    return {"privacy": {"epsilon": max(cost.after(rounds_done) for cost in found.values()), "sites": sites}}


def keep_counts(folder: Path, found: Mapping[str, Cost]) -> dict[str, int]:
    """Note in a run's folder on how many records its privacy is counted; give that of all sites that ever were counted.

    One that has left, or cannot be loaded now, has paid for the rounds before all the same.

    Errors: ConfigError where a run that is taken up again has other numbers: what was paid before would be another.
    """
    file, counts = folder / COUNTED, {path: cost.num_samples for path, cost in found.items()}
    try:
        before: dict[str, int] = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(before, dict) or any(type(number) is not int for number in before.values()):
            raise ValueError("it does not give a number of records, or patients, for each site")
    except FileNotFoundError:
        before = {}
    except (OSError, ValueError) as error:
        way = "put it back as it was, or start a run of its own with `hierfl run`"
        raise OutputError(f"{file}, on which the run's privacy is counted, cannot be read: {error}; {way}") from error
    wrong = [path for path, number in counts.items() if before.get(path, number) != number]
    if wrong:
        path = wrong[0]
        raise ConfigError(
            f"{path} has {counts[path]:,} training {found[path].units}, and what it pays for privacy is counted on"
            f" {before[path]:,}; a run keeps them to its end; for others, start a run of its own with `hierfl run`"
        )
    if counts.keys() - before.keys():
        try:
            put(file, json.dumps({**before, **counts}, indent=1) + "\n")
        except OSError as error:
            raise OutputError(f"{file} cannot be written: {error.strerror or error}") from error
    return {**before, **counts}


def _way_out(cost: Cost, budget: float) -> str:
    """Say what a run costs, and what would fit into the budget."""
    rounds = most_often(cost.release, cost.delta, budget, cost.rounds)
    noise = least_noise(replace(cost.release, count=cost.release.count * cost.rounds), cost.delta, budget)
    ways = [f"{rounds} rounds fit"] if rounds else []
    ways += [f"noise_multiplier {noise:g} does"] if noise is not None else []
    ways += ["fewer local steps and a smaller batch_size cost less"] if not ways else []
    return (
        f"the run costs {cost.epsilon:.3g} ({cost.rounds} rounds of {cost.release.count} steps); {', or '.join(ways)}"
    )
