"""`hierfl plan`: what a round would take under each policy, how idle the devices would be, and what would change that.

A configuration is simulated with the policies themselves, on the devices that it declares (or that are there), with
durations that were measured or are guessed; every idle figure stands beside the floor that no schedule can beat. With
`replay` the newest rounds in the log of a run are simulated instead, durations as they were, and compared with what the
run took.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hierfl.config.schema import RunConfig
from hierfl.errors import ConfigError
from hierfl.kinds import load, names
from hierfl.monitor.words import percent
from hierfl.planning.case import Case, Figures, case_of
from hierfl.planning.costs import SECONDS_PER_STEP, Knowledge, from_estimates, from_log
from hierfl.planning.devices import devices, settle
from hierfl.planning.lever import LEAST_TIME, Lever, Say, silent
from hierfl.planning.levers import find_levers
from hierfl.planning.log import read_log
from hierfl.planning.ran import Ran
from hierfl.planning.replayed import as_it_ran, case_of_log, newest
from hierfl.planning.simulation import simulate
from hierfl.runtime.estimates import Estimates
from hierfl.tree import describe
from scheduler.policies.chain_first import ChainFirst
from scheduler.policy import Policy

__all__ = ["NEWEST_ROUNDS", "Plan", "Ranked", "Replay", "RoundTimes", "knowledge", "plan", "replay"]


NEWEST_ROUNDS = 200
"""Rounds of a log that a replay simulates where it is not told how many."""


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
    """The newest `rounds` of the `in_log` that a run has done, beside their simulation under each policy.

    `num_jobs` trainings of `work_s` seconds together.
    """

    run_dir: Path
    rounds: int
    in_log: int
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
            "rounds_in_log": self.in_log,
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
    if estimates is not None:
        return from_estimates(estimates, config.task_kind, "--estimates:")
    kept = Path(config.runtime.estimates) if config.runtime.estimates else None
    if seconds_per_step is None and kept is not None and kept.is_file():
        return from_estimates(kept, config.task_kind)
    return Knowledge(seconds_per_step=seconds_per_step or SECONDS_PER_STEP)


def plan(
    config: RunConfig,
    known: Knowledge | None = None,
    *,
    num_devices: int | None = None,
    rounds: int | None = None,
    say: Say = silent,
) -> Plan:
    """Predict a run of a configuration; `say` hears what is being tried.

    Errors: ConfigError; RuntimeUnavailable if a cluster cannot be asked.
    """
    config.must_train("a plan")
    known = knowledge(config) if known is None else known
    for option, number in {"--devices": num_devices, "--rounds": rounds}.items():
        if number is not None and number < 1:
            raise ConfigError(f"{option} {number}: 1 or more")
    config, devices_from = settle(config, num_devices)
    case = case_of(config, known, rounds)
    policies = _policies(config)
    configured = next(iter(policies))
    found = dict(_simulated(case, policies, say))
    rows = [Ranked(name, name == configured, case.figures(ran)) for name, ran in found.items()]
    levers = find_levers(config, known, case, policies[configured], found[configured], say)
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
        tuple(_notes(config, case, found)),
    )


def replay(run_dir: Path, say: Say = silent, *, rounds: int = NEWEST_ROUNDS) -> Replay:
    """Simulate a run's newest rounds from its log; the scheduler learns durations in the first of them, unless the run
    had a file of these.

    Errors: ConfigError for no round; OutputError if the log is missing, damaged or without a whole round.
    """
    if rounds < 1:
        raise ConfigError(f"--rounds {rounds}: 1 or more")
    say("reading the run's log")
    whole = read_log(run_dir)
    log = newest(whole, rounds)
    case = case_of_log(log)
    policies = _policies(log.config)
    configured = next(iter(policies))
    learns = log.config.runtime.estimates is None
    live = as_it_ran(log, case)
    found = dict(_simulated(case, policies, say, learns=learns))
    rows = [Ranked(name, name == configured, case.figures(ran)) for name, ran in found.items()]
    times = zip(live.rounds_s(), found[configured].rounds_s(), case.round_bounds_s(live), strict=False)
    return Replay(
        *(run_dir, case.rounds, len(whole.rounds), case.num_jobs, case.work_s),
        Ranked(configured, True, case.figures(live)),
        tuple(sorted(rows, key=lambda row: row.figures.round_s)),
        tuple(RoundTimes(*three) for three in times),
        tuple(_notes(log.config, case, found)),
    )


def _policies(config: RunConfig) -> dict[str, Policy]:
    """List the policies by name, the configuration's own first, with its own keys."""
    own = config.runtime.policy or ChainFirst()
    others = (load("policy", name)() for name in names("policy"))
    return {describe(own): own} | {describe(policy): policy for policy in others if type(policy) is not type(own)}


def _simulated(
    case: Case, policies: Mapping[str, Policy], say: Say, *, learns: bool = False
) -> Iterator[tuple[str, Ran]]:
    """Simulate a case under each policy."""
    for name, policy in policies.items():
        say(f"simulating {name}")
        yield name, simulate(case, policy, estimates=Estimates("") if learns else None)


def _better_policy(rows: list[Ranked]) -> Iterator[Lever]:
    """Name the best policy if it is better than the configured one."""
    own = next(row for row in rows if row.is_configured)
    best = min(rows, key=lambda row: row.figures.round_s)
    if best.figures.round_s < own.figures.round_s * (1 - LEAST_TIME):
        reason = f"{own.policy} leaves {percent(own.figures.avoidable)} of the devices' time idle that need not be"
        what = f"dispatch by {best.policy} in place of {own.policy}"
        yield Lever("policy", what, reason, (f"runtime.policy={best.policy}",), own.figures, best.figures)


def _notes(config: RunConfig, case: Case, found: Mapping[str, Ran]) -> Iterator[str]:
    """Say what is simulated otherwise than it runs, and which rounds fail."""
    gave_up = [(name, ran.gave_up) for name, ran in found.items() if ran.gave_up]
    if gave_up:
        name, said = gave_up[0]
        yield f"under {name} {said}; its figures end there"
    if case.closes_early:
        yield "not all are waited for: figures count the work that was done while rounds were open, late work with it"
    declared = {device.name: device.places for device in devices(config.runtime)} if config.runtime.devices else {}
    fewer = [device.name for device in case.devices if device.places < declared.get(device.name, 1)]
    if fewer:
        yield (
            f"{fewer[0]} is planned with fewer jobs at once than its {declared[fewer[0]]} places: no gain of more was"
            " measured"
        )
