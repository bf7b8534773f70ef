"""Before a round of the root other orders are tried in simulated time; the winner orders this round.

A trial sees the round as the scheduler does: every hub's sites as often as the hub has rounds within the root's, on the
devices that are there, with durations as they are predicted now. Barriers of hubs below hubs are left out. Where a
trial could not pay, or could not be trusted, there is none: rounds shorter than a hundred trials, too many jobs for
one, hubs that do not wait for all their members, or ask one after another, devices that are shared with other runs,
whose orders would not compare.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hierfl.config.schema import RunConfig
from hierfl.held import held_policy
from hierfl.runtime.crew import Crew
from hierfl.runtime.foresight import batch_size
from hierfl.runtime.scribe import Scribe
from scheduler import Device, Job, Policy
from scheduler.policies.chain_first import ChainFirst
from scheduler.rollout import BUDGET_S, Choice, choose, rules_for
from scheduler.stand import Stand
from scheduler.workload import Federation as Planned
from scheduler.workload import Hub as PlannedHub
from scheduler.workload import Site as PlannedSite
from scheduler.workload import Workload, eligible, site_path
from tiers.federation import Federation, rounds_per_round

__all__ = ["MAX_JOBS", "Need", "Trials", "stage", "try_orders"]

MAX_JOBS = 200
"""Jobs of a round beyond which to set up a trial takes longer than the trial may."""

MIN_ROUND_S = 100 * BUDGET_S

Predict = Callable[[str, str], float | None]
"""A site's seconds, by its path and a kind of device; None if unknown."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a site's training needs: optimizer steps, what a device must carry, bytes (0 if unknown)."""

    steps: int
    labels: frozenset[str] = frozenset()
    memory_bytes: int = 0


@dataclass(frozen=True)
class _Foreseen:
    """The predictions of a run as a simulation asks for them; nothing is learned in it."""

    paths: Mapping[str, str]
    seconds: Predict

    def predict(self, job: Job, kind: str) -> float | None:
        """Predict a site's seconds; `paths` tells which site it is."""
        return self.seconds(self.paths[job.name], kind)

    def observe(self, job: Job, kind: str, duration_s: float) -> None:
        """Nothing happens in a trial that tells of the world."""


def stage(
    tree: Federation, needs: Mapping[str, Need], devices: Sequence[Device], rates: tuple[float, ...], predict: Predict
) -> Workload | str:
    """Set up one round of the root for a trial; in words why not, where there can be none."""
    hubs: list[PlannedHub] = []
    num_jobs, least_s = 0, 0.0
    for path in tree.hubs:
        if tree.hubs[path].participation.may_close_early:
            return f"{path} does not wait for all"
        if tree.hubs[path].topology.sequential:
            return f"{path} asks its members one after another"
        rounds = rounds_per_round(tree, path)
        by_labels: dict[frozenset[str], list[PlannedSite]] = {}
        for site in (member for member in tree.members(path) if member in needs):
            need = needs[site]
            able = [device for device in devices if eligible(need.labels, need.memory_bytes, device)]
            seconds = predict(site, able[0].kind) if able else None
            if not seconds:
                return "not all durations are known yet"
            num_jobs, least_s = num_jobs + rounds, least_s + rounds * seconds / len(devices)
            made = PlannedSite(site, seconds, need.steps, need.memory_bytes)
            by_labels.setdefault(need.labels, []).append(made)
        for labels, sites in by_labels.items():
            name = path if len(by_labels) == 1 else f"{path} [{', '.join(sorted(labels))}]"
            hubs.append(PlannedHub(name, tuple(sites), rounds, labels))
    if num_jobs > MAX_JOBS:
        return f"{num_jobs} jobs a round are too many for a trial"
    if least_s < MIN_ROUND_S:
        return f"a round of {least_s:.2g} s is too short for a trial"
    return Workload((Planned(tree.root.name, tuple(hubs)),), tuple(devices), rates=rates)


def try_orders(
    policy: ChainFirst,
    tree: Federation,
    needs: Mapping[str, Need],
    devices: Sequence[Device],
    rates: tuple[float, ...],
    predict: Predict,
    clock: Callable[[], float],
) -> tuple[Policy, Choice]:
    """Choose the order of a round; the policy's own stays unless another is predicted to gain more than 1%."""
    rules = rules_for(policy)
    own = next(iter(rules))
    staged = stage(tree, needs, devices, rates, predict)
    if isinstance(staged, str):
        return policy, Choice(own, staged, {})
    stand = Stand(tuple(device.name for device in devices))
    paths = {site_path(*found): found[2].name for found in staged.sites()}
    choice = choose(staged, _Foreseen(paths, predict), stand, rules, own, clock=clock)
    return rules[choice.rule], choice


class Trials:
    """Lets the crew follow another order for a round where a trial says so, and says so too."""

    def __init__(
        self, config: RunConfig, crew: Crew, scribe: Scribe, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._config = config
        self._crew = crew
        self._scribe = scribe
        self._clock = clock
        self._policy = config.runtime.policy or ChainFirst()
        self._rule = ""
        self._times = {path: rounds_per_round(config.federation, path) for path in config.federation.hubs}

    def begin(self, steps: Mapping[str, int], seconds: Mapping[str, float | None]) -> None:
        """A round of the root begins. `steps`: optimizer steps by site that trains; `seconds` predicted for each on the
        usual kind of device.
        """
        policy = self._policy
        if not isinstance(policy, ChainFirst) or not policy.rollout or self._crew.gate.held_s() is not None:
            return
        devices = list({device.name: device for device in self._crew.devices.values()}.values())
        adopted, choice = self._choose(policy, steps, seconds, devices)
        is_other = adopted is not policy
        if choice.rule != self._rule and (is_other or self._rule):
            said = f"orders this round: {choice.reason}" if is_other else f"orders again: {choice.reason}"
            self._scribe.notice("info", self._config.federation.root.name, f"{choice.rule} {said}")
            self._crew.use(held_policy(adopted))
        self._rule = choice.rule if is_other else ""

    def _choose(
        self,
        policy: ChainFirst,
        steps: Mapping[str, int],
        seconds: Mapping[str, float | None],
        devices: Sequence[Device],
    ) -> tuple[Policy, Choice]:
        """Choose an order; rounds of many small sites are mostly too short, and a trial of them is not even set up."""
        if self._is_short(seconds, len(devices)):
            return policy, Choice(next(iter(rules_for(policy))), "a round is too short for a trial", {})
        return try_orders(
            *(policy, self._config.federation, self._needs(steps), devices, self._rates(devices)),
            *(self._seconds_of(steps), self._clock),
        )

    def _is_short(self, seconds: Mapping[str, float | None], num_devices: int) -> bool:
        """Say whether a round is by far too short: what is predicted may be half of what it takes."""
        work_s = math.fsum(self._times[site.rpartition("/")[0]] * (found or 0.0) for site, found in seconds.items())
        return None not in seconds.values() and 2.0 * work_s < MIN_ROUND_S * num_devices

    def _needs(self, steps: Mapping[str, int]) -> dict[str, Need]:
        """Say what each site's training needs."""
        sites, found = self._config.sites, {}
        for site, num in steps.items():
            need_bytes = self._crew.estimates.need_bytes(batch_size(sites, site))
            found[site] = Need(num, sites[site].labels, need_bytes)
        return found

    def _rates(self, devices: Iterable[Device]) -> tuple[float, ...]:
        """Give the total rates of the kind of device that gains least by company."""
        curves = [self._crew.estimates.rates(device) for device in devices]
        return min(curves, key=lambda curve: (curve[-1] / len(curve), len(curve)))

    def _seconds_of(self, steps: Mapping[str, int]) -> Predict:
        """Predict a site's training by its path."""
        return lambda site, kind: self._crew.estimates.predict("train", site, steps[site], kind)
