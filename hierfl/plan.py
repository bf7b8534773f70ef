"""`hierfl plan`: what a round would take under each policy, how idle the devices would be, and what would change that.

A configuration is simulated with the policies themselves, on the devices that it declares (or that are there), with
durations that were measured or are guessed; every idle figure stands beside the floor that no schedule can beat. With
`replay` the log of a run is simulated instead, durations as they were, and compared with what the run took.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from hierfl.config.schema import RunConfig
from hierfl.errors import ConfigError, OutputError
from hierfl.kinds import load, names
from hierfl.planning.case import Case, Figures, case_of
from hierfl.planning.costs import SECONDS_PER_STEP, Knowledge, from_estimates, from_log
from hierfl.planning.devices import devices, settle
from hierfl.planning.lever import LEAST_TIME, Lever
from hierfl.planning.levers import find_levers
from hierfl.planning.log import Log, read_log
from hierfl.planning.shape import Shape, SiteWork, rounds_per_round
from hierfl.tree import describe
from scheduler.eligibility import usual_kind
from scheduler.forecast import Learned
from scheduler.idle import figures
from scheduler.outcome import Outcome
from scheduler.policies.chain_first import ChainFirst
from scheduler.policy import Policy
from tiers.federation import parent

__all__ = ["Plan", "Ranked", "Replay", "RoundTimes", "knowledge", "plan", "replay"]


@dataclass(frozen=True)
class Ranked:
    """A policy's figures; `is_configured`: it is the run's own."""

    policy: str
    is_configured: bool
    figures: Figures

    def record(self) -> dict[str, Any]:
        """Give the row for JSON."""
        return {"policy": self.policy, "is_configured": self.is_configured, **self.figures.record()}


@dataclass(frozen=True)
class Plan:
    """What a configuration is predicted to do; the figures of all `simulated` rounds, levers the best first."""

    name: str
    counts: Mapping[str, int]
    simulated: int
    devices: Mapping[str, int]
    devices_from: str
    durations: str
    is_guess: bool
    policies: tuple[Ranked, ...]
    levers: tuple[Lever, ...]
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Give the plan for JSON."""
        return {
            "name": self.name,
            **self.counts,
            "simulated_rounds": self.simulated,
            "devices": dict(self.devices),
            "devices_from": self.devices_from,
            "durations": self.durations,
            "durations_are_guessed": self.is_guess,
            "policies": [row.record() for row in self.policies],
            "levers": [lever.record() for lever in self.levers],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class RoundTimes:
    """A round as it ran, simulated under the run's policy, and what no schedule could beat; in seconds."""

    live_s: float
    simulated_s: float
    bound_s: float


@dataclass(frozen=True)
class Replay:
    """A run beside its simulation under each policy; `num_jobs` trainings of `work_s` seconds together."""

    run_dir: Path
    rounds: int
    num_jobs: int
    work_s: float
    live: Ranked
    policies: tuple[Ranked, ...]
    times: tuple[RoundTimes, ...]
    notes: tuple[str, ...] = ()

    @property
    def fidelity(self) -> float:
        """Give the simulated time under the run's policy over the run's, less 1."""
        return _excess(self.times)

    @property
    def later_fidelity(self) -> float | None:
        """Give the same without the first round, in which workers warm up; None if there is no other."""
        return _excess(self.times[1:]) if len(self.times) > 1 else None

    def record(self) -> dict[str, Any]:
        """Give the replay for JSON; times of all rounds together."""
        rows = {"live": self.live, **{row.policy: row for row in self.policies}}
        return {
            "run_dir": str(self.run_dir),
            "rounds": self.rounds,
            "num_jobs": self.num_jobs,
            "work_s": self.work_s,
            "policy": self.live.policy,
            "fidelity": self.fidelity,
            "fidelity_without_first_round": self.later_fidelity,
            "times": [asdict(times) for times in self.times],
            "makespans_s": {name: row.figures.round_s * self.rounds for name, row in rows.items()},
            "live": self.live.record(),
            "policies": [row.record() for row in self.policies],
            "notes": list(self.notes),
        }


def _excess(times: Sequence[RoundTimes]) -> float:
    return sum(one.simulated_s for one in times) / sum(one.live_s for one in times) - 1.0


def knowledge(
    config: RunConfig,
    *,
    estimates: Path | None = None,
    run_dir: Path | None = None,
    seconds_per_step: float | None = None,
) -> Knowledge:
    """Find out what is known of durations; at most one of the three is given.

    None given: the configuration's `runtime.estimates` if that file is there, else a guess. Errors: ConfigError,
    OutputError.
    """
    given = {"--estimates": estimates, "--run": run_dir, "--seconds-per-step": seconds_per_step}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)} all say what training takes; give one of them")
    if run_dir is not None:
        return from_log(read_log(run_dir))
    if seconds_per_step is not None and not 0 < seconds_per_step < float("inf"):
        raise ConfigError(f"--seconds-per-step {seconds_per_step:g}: a number above 0 is needed")
    kept = Path(config.runtime.estimates) if config.runtime.estimates else None
    if estimates is not None or (seconds_per_step is None and kept is not None and kept.is_file()):
        found = estimates if estimates is not None else kept
        assert found is not None
        return from_estimates(found, config.task_kind)
    return Knowledge(seconds_per_step=seconds_per_step or SECONDS_PER_STEP)


def plan(
    config: RunConfig, known: Knowledge | None = None, *, num_devices: int | None = None, rounds: int | None = None
) -> Plan:
    """Predict a run of a configuration. Errors: ConfigError; RuntimeUnavailable if a cluster cannot be asked."""
    known = knowledge(config) if known is None else known
    for option, number in {"--devices": num_devices, "--rounds": rounds}.items():
        if number is not None and number < 1:
            raise ConfigError(f"{option} {number}: 1 or more")
    config, devices_from = settle(config, num_devices)
    case = case_of(config, known, rounds)
    policies = _policies(config)
    configured = next(iter(policies))
    outcomes = {name: case.simulate(policy) for name, policy in policies.items()}
    rows = [Ranked(name, name == configured, case.figures(found)) for name, found in outcomes.items()]
    levers = find_levers(config, known, case, policies[configured], outcomes[configured])
    tree = config.federation
    return Plan(
        config.name,
        {"sites": len(tree.sites), "hubs": len(tree.hubs), "rounds": tree.root.rounds},
        case.rounds,
        Counter(device.kind for device in case.devices),
        devices_from,
        known.words(case.sites),
        known.is_guess,
        tuple(sorted(rows, key=lambda row: row.figures.round_s)),
        (*_better_policy(rows), *levers),
        (*case.shape.notes, *_notes(config, case)),
    )


def replay(run_dir: Path) -> Replay:
    """Simulate a run from its log; the scheduler learns durations as the run did, unless that had a file of them.

    Errors: OutputError if the log is missing, damaged or without a whole round.
    """
    log = read_log(run_dir)
    case = _case_of_log(log)
    policies = _policies(log.config)
    configured = next(iter(policies))
    learns = log.config.runtime.estimates is None
    outcomes: dict[str, Outcome] = {
        name: case.simulate(policy, forecast=Learned() if learns else None) for name, policy in policies.items()
    }
    rows = [Ranked(name, name == configured, case.figures(found)) for name, found in outcomes.items()]
    work_s = sum(case.actual.values())
    busy_s = log.busy_s()
    idle = figures(
        busy_s,
        dict.fromkeys(busy_s, log.makespan_s),
        work_s=work_s,
        bound_s=case.bound_s,
        makespan_s=log.makespan_s,
        speeds={device.name: case.speeds.get(device.kind, 1.0) for device in case.devices},
    )
    live = Figures(log.makespan_s / case.rounds, idle.idle, idle.floor, idle.efficiency)
    return Replay(
        *(run_dir, case.rounds, len(case.actual), work_s, Ranked(configured, True, live)),
        tuple(sorted(rows, key=lambda row: row.figures.round_s)),
        tuple(map(RoundTimes, log.rounds_s, case.rounds_s(outcomes[configured]), case.bounds_s)),
        (*case.shape.notes, *_notes(log.config, case)),
    )


def _policies(config: RunConfig) -> dict[str, Policy]:
    """List the policies by name, the configuration's own first, with its own keys."""
    own = config.runtime.policy or ChainFirst()
    others = (load("policy", name)() for name in names("policy"))
    return {describe(own): own} | {describe(policy): policy for policy in others if type(policy) is not type(own)}


def _better_policy(rows: list[Ranked]) -> Iterator[Lever]:
    """Name the best policy if it is better than the configured one."""
    own = next(row for row in rows if row.is_configured)
    best = min(rows, key=lambda row: row.figures.round_s)
    if best.figures.round_s < own.figures.round_s * (1 - LEAST_TIME):
        reason = f"{own.policy} leaves {100 * own.figures.avoidable:.0f} % of the devices' time idle that need not be"
        what = f"dispatch by {best.policy} in place of {own.policy}"
        yield Lever("policy", what, reason, (f"runtime.policy={best.policy}",), own.figures, best.figures)


def _notes(config: RunConfig, case: Case) -> Iterator[str]:
    """Say what is simulated otherwise than it runs."""
    early = [path for path, hub in config.federation.hubs.items() if hub.participation.may_close_early]
    if early:
        kind = describe(config.federation.hubs[early[0]].participation)
        more = f" (and {len(early) - 1} more hubs)" if len(early) > 1 else ""
        yield f"{early[0]}{more} need not wait for all ({kind}); simulated as if it did"
    declared = {device.name: device.places for device in devices(config.runtime)} if config.runtime.devices else {}
    fewer = [device.name for device in case.devices if device.places < declared.get(device.name, 1)]
    if fewer:
        yield (
            f"{fewer[0]} is planned with fewer jobs at once than its {declared[fewer[0]]} places: no gain of more was"
            " measured"
        )


def _case_of_log(log: Log) -> Case:
    """Make the case of what a run has done. Errors: OutputError if it has no whole round."""
    config = log.config
    tree = config.federation
    order = {found.number: index for index, found in enumerate(log.rounds)}
    there = tuple({device.name: device for device in log.devices.values()}.values())
    known = from_log(log)
    assert known.estimates is not None
    usual = usual_kind(there)
    speeds = {kind: known.estimates.durations.speed(kind, usual) for kind in {device.kind for device in there}}
    took: dict[tuple[str, int], dict[str, float]] = {}
    seen: dict[str, list[float]] = {}
    steps: dict[str, int] = {}
    shape = Shape(tree, {site: SiteWork(1.0, 1) for site in tree.sites})
    for done in log.trained:
        hub = parent(done.site) or ""
        root_round = shape.root_round(hub, done.number)
        if root_round not in order or done.steps == 0:
            continue
        number = done.number - (root_round - order[root_round]) * rounds_per_round(tree, hub)
        spent = max(1e-9, done.seconds * speeds[log.kinds[done.worker]])
        took.setdefault((hub, number), {})[done.site] = spent
        seen.setdefault(done.site, []).append(spent)
        steps[done.site] = done.steps
    if not took:
        raise OutputError(f"{log.run_dir} has no whole round in its events.jsonl: there is nothing to replay")
    sites = {
        site: SiteWork(median(seen[site]), steps[site], labels=config.sites[site].labels)
        for site in tree.sites
        if site in seen
    }
    places = max(device.places for device in there)
    return Case(
        *(tree, sites, took, there, len(order), speeds, tuple(float(k) for k in range(1, places + 1))),
        call_s=log.call_s,
        transfer_s=log.transfer_s,
    )
