"""The named scenarios: as they are described, the same for a seed, and what the scheduler keeps on each."""

from __future__ import annotations

from statistics import fmean

import numpy as np
import pytest

from scheduler.bounds import workload_bound
from scheduler.forecast import Learned
from scheduler.outcome import Outcome
from scheduler.policies.chain_first import ChainFirst
from scheduler.policies.fifo import Fifo
from scheduler.policy import Policy
from scheduler.scenarios import ISIC, KITS, LIDC, SCENARIOS, several_share, workload
from scheduler.simulator import simulate
from scheduler.workload import Workload, draw, nominal, split_site

SEEDS = range(2)


def shares(work: Workload) -> list[float]:
    """Each site's share of its federation's work, the largest first."""
    sites = [site.duration_s for hub in work.federations[0].hubs for site in hub.sites]
    return sorted((duration / sum(sites) for duration in sites), reverse=True)


def run(work: Workload, policy: Policy, seed: int, in_sequence: bool = False) -> Outcome:
    actual = draw(work, np.random.default_rng(seed), 0.05)
    outcome = simulate(work, policy, actual, Learned(), in_sequence=in_sequence)
    assert outcome.bound_s <= outcome.makespan_s * (1 + 1e-9)
    return outcome


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_seed_gives_the_same_workload_and_another_seed_another_one(name: str) -> None:
    assert workload(name, 1) == workload(name, 1)
    assert workload(name, 1) != workload(name, 2)


@pytest.mark.parametrize(
    ("name", "num_sites", "largest"), [("fets-23", 23, 0.41), ("fets-23-own", 23, 0.41), ("fets-33", 33, 0.14)]
)
def test_hospitals_are_as_skewed_as_described(name: str, num_sites: int, largest: float) -> None:
    found = [shares(workload(name, seed)) for seed in range(20)]
    assert {len(each) for each in found} == {num_sites}
    assert all(each[0] == pytest.approx(largest) for each in found)
    spread = fmean(float(np.std(np.log(each[1:]), ddof=1)) for each in found)
    assert spread == pytest.approx(1.27 if num_sites == 23 else 1.13, rel=0.1)


@pytest.mark.parametrize(("name", "sizes"), [("isic", ISIC), ("lidc", LIDC), ("kits", KITS)])
def test_flamby_sizes_are_the_real_ones(name: str, sizes: tuple[int, ...]) -> None:
    assert shares(workload(name, 0)) == pytest.approx([size / sum(sizes) for size in sorted(sizes, reverse=True)])


def test_samples_tell_durations_as_well_as_was_measured() -> None:
    """The median site is 3.4% off its samples' line, the 90th percentile 13.7%: a log-sd of 0.08 lies between."""
    sites = [site for seed in range(20) for _, _, site in workload("fets-33", seed).sites()]
    off = np.abs(np.log([site.size / site.duration_s for site in sites if site.size > 20]))
    assert 0.034 < np.median(off) < 0.07 and 0.1 < np.quantile(off, 0.9) < 0.16


def test_splitting_a_site_keeps_the_work() -> None:
    (hub,) = workload("fets-23", 0).federations[0].hubs
    largest = max(hub.sites, key=lambda site: site.duration_s)
    split = split_site(hub, largest.name, 3, overhead=0.1)
    parts = [site for site in split.sites if site.name.startswith(largest.name + ".")]
    assert len(split.sites) == 25 and len(parts) == 3
    assert sum(site.duration_s for site in parts) == pytest.approx(1.1 * largest.duration_s)
    with pytest.raises(AssertionError, match="has no site"):
        split_site(hub, "nobody", 2)


def test_the_floor_of_a_hospital_with_a_device_each_and_the_levers_that_lower_it() -> None:
    """FeTS-like: about 90% idle with a device per hospital; pooling takes it to 39%, and with it either of splitting
    the two largest sites and a second federation to below 10%, with durations learned in the run."""
    floors = {}
    for name in ("fets-23-own", "fets-23"):
        work = workload(name, 0)
        bound_s = workload_bound(work, nominal(work))
        floors[name] = 1 - sum(nominal(work).values()) / (len(work.devices) * bound_s)
    assert floors["fets-23-own"] == pytest.approx(1 - 1 / (23 * 0.41), abs=0.001)
    assert floors["fets-23"] == pytest.approx(1 - 1 / (4 * 0.41), abs=0.001)
    for name, at_most in (("fets-23-own", 0.91), ("fets-23", 0.41), ("fets-23-split", 0.1), ("fets-23-two", 0.1)):
        assert all(run(workload(name, seed), ChainFirst(), seed).idle.idle <= at_most for seed in SEEDS), name


WORST = {"multi-fed-3": 0.92, "multi-fed-kappa": 0.92}
"""Where the worst seed that is held is not 0.95: a bad first round, before devices are known, under this noise."""

SEQUENCE = 2.0
"""How much faster than in sequence federations are that share devices, or 95% of what any schedule could be."""

ALL = range(20)
each_scenario = pytest.mark.parametrize("name", SCENARIOS)


def holds(name: str, seeds: range) -> None:
    """Efficiency, avoidable idle time and both baselines of a scenario."""
    works = [workload(name, seed) for seed in seeds]
    runs = [run(work, ChainFirst(), seed) for seed, work in zip(seeds, works, strict=True)]
    found = [outcome.idle.efficiency for outcome in runs]
    assert fmean(found) >= 0.98 and min(found) >= WORST.get(name, 0.95), (fmean(found), min(found))
    assert fmean(outcome.idle.avoidable for outcome in runs) <= 0.02
    for seed, work, outcome in zip(seeds, works, runs, strict=True):
        assert outcome.makespan_s <= 1.001 * run(work, Fifo(), seed).makespan_s, seed
    if several_share(works[0]):
        ends_s = [run(work, Fifo(), seed, True).makespan_s for seed, work in zip(seeds, works, strict=True)]
        pairs = list(zip(ends_s, runs, strict=True))
        limit = fmean(end_s / outcome.bound_s for end_s, outcome in pairs)
        assert fmean(end_s / outcome.makespan_s for end_s, outcome in pairs) >= min(SEQUENCE, 0.95 * limit)


@each_scenario
def test_two_seeds_reach_the_targets(name: str) -> None:
    holds(name, SEEDS)


@pytest.mark.slow
@each_scenario
def test_twenty_seeds_reach_the_targets(name: str) -> None:
    holds(name, ALL)
