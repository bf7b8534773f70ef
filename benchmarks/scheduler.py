"""Idle devices, policy by policy, in simulated time: `python -m benchmarks scheduler --help`.

Every figure stands beside the floor that no schedule can beat, in points of a hundred; the efficiency is that bound
over the makespan. All contenders of a seed meet the same durations. Both baselines, federations in sequence and
interleaved first in, first out, are always there, and so is what was lost to them. "x in sequence" is how much faster
than the federations one after another by FIFO; beside it the limit, which no schedule can beat: the sequence over the
bound.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.common import in_words, machine, table
from scheduler import Assign, Device, Dispatcher, Job
from scheduler.bounds import workload_bound
from scheduler.forecast import Forecast, Learned, Oracle
from scheduler.outcome import Outcome
from scheduler.policies.chain_first import ChainFirst
from scheduler.policies.fifo import Fifo
from scheduler.policies.greedy import Greedy
from scheduler.policies.longest_first import LongestFirst
from scheduler.policies.round_robin import RoundRobin
from scheduler.policies.static import Static
from scheduler.policy import Policy
from scheduler.rollout import Rollout, rules_for
from scheduler.scenarios import SCENARIOS, several_share, workload
from scheduler.simulator import simulate
from scheduler.workload import Actual, Workload, draw

NOISE = 0.05
HEADER = ("scenario", "policy", "floor", "idle", "avoidable", "efficiency", "worst", "x FIFO", "x in sequence", "limit")
FIFO, SEQUENCE, CHAIN = "fifo", "fifo, in sequence", "chain_first"

Run = Callable[[Workload, Actual, float], Outcome]


@dataclasses.dataclass(frozen=True)
class Row:
    """A contender in a scenario, over the seeds: means, and 95% intervals where there are two numbers more."""

    scenario: str
    policy: str
    floor: float
    idle: float
    avoidable: float
    efficiency: tuple[float, float, float]
    worst: float
    ratio: tuple[float, float, float]
    ratios: Sequence[float]
    faster: tuple[float, float, float] | None = None
    limit: float | None = None


def learning(policy: Policy, in_sequence: bool = False) -> Run:
    """Run a policy that learns durations as it goes."""
    return lambda work, actual, bound_s: simulate(
        work, policy, actual, Learned(), in_sequence=in_sequence, bound_s=bound_s
    )


def knowing(policy: Policy, error: float = 0.0) -> Run:
    """Run a policy with an oracle, which errs."""

    def run(work: Workload, actual: Actual, bound_s: float) -> Outcome:
        forecast: Forecast = Oracle(work, actual, error, np.random.default_rng(len(actual)))
        return simulate(work, policy, actual, forecast, bound_s=bound_s)

    return run


def rolling(work: Workload, actual: Actual, bound_s: float) -> Outcome:
    """Run chain first, with a rollout at each round's begin."""
    forecast = Learned()
    policy = ChainFirst()
    advise = Rollout(work, forecast, rules_for(policy))
    return simulate(work, policy, actual, forecast, advise=advise, bound_s=bound_s)


CONTENDERS: dict[str, Run] = {
    FIFO: learning(Fifo()),
    "static": learning(Static()),
    "round_robin": learning(RoundRobin()),
    "greedy": learning(Greedy()),
    "longest_first": learning(LongestFirst()),
    "longest_first, oracle": knowing(LongestFirst()),
    CHAIN: learning(ChainFirst()),
    "chain_first + rollout": rolling,
}
SEQUENCES: dict[str, Run] = {SEQUENCE: learning(Fifo(), True), "static, in sequence": learning(Static(), True)}
STRESS: dict[str, tuple[float, Run]] = {
    "noise 15%": (0.15, learning(ChainFirst())),
    "noise 50%": (0.5, learning(ChainFirst())),
    "prediction error 0%": (NOISE, knowing(ChainFirst(), 0.0)),
    "prediction error 10%": (NOISE, knowing(ChainFirst(), 0.1)),
    "prediction error 50%": (NOISE, knowing(ChainFirst(), 0.5)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks scheduler", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many workloads per scenario (20)")
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="this one only; may be repeated")
    parser.add_argument("--sites", type=int, default=10_000, help="sites of the plan that is timed (10,000)")
    parser.add_argument("--devices", type=int, default=512, help="devices of the plan that is timed (512)")
    parser.add_argument("--jobs", type=int, default=2, help="scenarios that are simulated at once (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args(arguments)
    if min(options.seeds, options.sites, options.devices, options.jobs) < 1:
        parser.error("--seeds, --sites, --devices and --jobs: 1 or more")
    scenarios = options.scenario or list(SCENARIOS)
    rows: list[Row] = []
    stress: list[Row] = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for compared, endured, took_s in pool.map(measure, scenarios, [options.seeds] * len(scenarios)):
            rows += compared
            stress += endured
            print(f"{compared[0].scenario}: {took_s:.0f} s", file=sys.stderr)
    planned = plan(options.sites, options.devices)
    said = machine()
    print(in_words(said))
    print(f"{options.seeds} seeds, noise {NOISE:.0%}; [95% intervals of the mean]\n")
    drawn, stressed = (table(HEADER, map(_cells, some)) for some in (rows, stress))
    print(drawn, "\n\nchain_first under stress; x FIFO under the same\n", stressed, sep="\n")
    print("\nLost:", *(lost([*rows, *stress]) or ["nothing"]), sep="\n  ")
    print(
        f"\n{options.sites} sites on {options.devices} devices: planned in {planned['plan_s']:.2f} s,"
        f" then {planned['event_ms']:.2f} ms per event, 99% within {planned['p99_ms']:.1f} ms,"
        f" the longest {planned['longest_ms']:.1f} ms"
    )
    if options.json is not None:
        tables = {"rows": [dataclasses.asdict(row) for row in rows], "stress": [dataclasses.asdict(r) for r in stress]}
        found = {**said, "seeds": options.seeds, "plan": planned, **tables}
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(scenario: str, num_seeds: int) -> tuple[list[Row], list[Row], float]:
    """Run a scenario under all contenders, and under stress; say what that took, in seconds."""
    begun = time.perf_counter()
    compared, fifo = compare(scenario, num_seeds)
    return compared, endure(scenario, fifo), time.perf_counter() - begun


def compare(scenario: str, num_seeds: int) -> tuple[list[Row], list[Outcome]]:
    """Run all contenders of a scenario; give their rows, and the runs by interleaved FIFO."""
    drawn = [_drawn(scenario, seed, NOISE) for seed in range(num_seeds)]
    contenders = CONTENDERS | (SEQUENCES if several_share(drawn[0][0]) else {})
    runs = {name: [run(*each) for each in drawn] for name, run in contenders.items()}
    sequence = runs.get(SEQUENCE)
    return [_row(scenario, name, found, runs[FIFO], sequence) for name, found in runs.items()], runs[FIFO]


def endure(scenario: str, fifo: Sequence[Outcome]) -> list[Row]:
    """Run chain first under more noise, and with wrong predictions; `fifo`: the runs under the usual noise."""
    rows: list[Row] = []
    for name, (noise, run) in STRESS.items():
        drawn = [_drawn(scenario, seed, noise) for seed in range(len(fifo))]
        others = fifo if noise == NOISE else [CONTENDERS[FIFO](*each) for each in drawn]
        rows.append(_row(scenario, name, [run(*each) for each in drawn], others))
    return rows


def _drawn(scenario: str, seed: int, noise: float) -> tuple[Workload, Actual, float]:
    """Draw a workload and what its jobs take; bound it."""
    work = workload(scenario, seed)
    actual = draw(work, np.random.default_rng((seed, 1)), noise)
    return work, actual, workload_bound(work, actual)


def _row(
    scenario: str,
    name: str,
    runs: Sequence[Outcome],
    fifo: Sequence[Outcome],
    sequence: Sequence[Outcome] | None = None,
) -> Row:
    """Sum up a contender's runs, beside those of both baselines."""
    pairs = list(zip(sequence, runs, strict=True)) if sequence is not None else []
    idle = [run.idle for run in runs]
    ratios = [run.makespan_s / other.makespan_s for run, other in zip(runs, fifo, strict=True)]
    efficiency = [each.efficiency for each in idle]
    assert max(efficiency) <= 1 + 1e-9, "a bound that a schedule beats is none"
    return Row(
        scenario=scenario,
        policy=name,
        floor=_mean(each.floor for each in idle),
        idle=_mean(each.idle for each in idle),
        avoidable=_mean(each.avoidable for each in idle),
        efficiency=interval(efficiency),
        worst=min(efficiency),
        ratio=interval(ratios),
        ratios=ratios,
        faster=interval([one.makespan_s / run.makespan_s for one, run in pairs]) if pairs else None,
        limit=_mean(one.makespan_s / run.bound_s for one, run in pairs) if pairs else None,
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Give a mean and its 95% interval by the bootstrap (Efron 1979)."""
    drawn = np.random.default_rng(0).choice(np.array(values), (2000, len(values))).mean(axis=1)
    return _mean(values), float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


def plan(num_sites: int, num_devices: int) -> dict[str, float]:
    """Time the first plan of a large federation on unequal devices under eight nations' residency, and what follows.

    An event is the end of a job that ends next: what the dispatcher hears and decides then.
    """
    generator = np.random.default_rng(0)
    nations = [frozenset({f"nation{i}"}) for i in range(8)]
    speeds = {"kind0": 1.0, "kind1": 2.0, "kind2": 0.5}
    devices = {f"d{i}": Device(f"d{i}", f"kind{i % 3}", nations[i % 8]) for i in range(num_devices)}

    def predict(job: Job, device: Device) -> float:
        assert job.estimate_s is not None
        return job.estimate_s / speeds[device.kind]

    def begun(decisions: Iterable[Assign], now_s: float) -> None:
        for each in decisions:
            took_s = sum(predict(job, devices[each.device]) for job in each.jobs)
            heapq.heappush(running, (now_s + took_s, each.device, each.jobs))

    dispatcher = Dispatcher(ChainFirst(), predict=predict)
    for device in devices.values():
        dispatcher.join(device)
    seconds = np.exp(generator.standard_normal(num_sites)) * 10.0
    running: list[tuple[float, str, tuple[Job, ...]]] = []
    since = time.perf_counter()
    dispatcher.ask(
        Job(f"hub{i % 100}", f"s{i}", int(100 * took), float(took), i, chain_s=100.0, labels=nations[i % 100 % 8])
        for i, took in enumerate(seconds)
    )
    first = dispatcher.decide(0.0)
    plan_s = time.perf_counter() - since
    begun(first, 0.0)
    events: list[float] = []
    for _ in range(min(2000, num_sites)):
        if not running:
            break
        now_s, device_name, jobs = heapq.heappop(running)
        since = time.perf_counter()
        dispatcher.done(device_name, jobs)
        decisions = dispatcher.decide(now_s)
        events.append(1e3 * (time.perf_counter() - since))
        begun(decisions, now_s)
    late_ms = float(np.quantile(events, 0.99))
    return {"plan_s": plan_s, "event_ms": _mean(events), "p99_ms": late_ms, "longest_ms": max(events)}


def lost(rows: Sequence[Row]) -> list[str]:
    """Name what ours lost to interleaved FIFO, on average or in single seeds."""
    found = []
    for row in rows:
        slower = [ratio for ratio in row.ratios if ratio > 1.0 + 1e-9]
        if slower and (row.policy.startswith(CHAIN) or row.policy in STRESS):
            found.append(
                f"{row.scenario}, {row.policy}: slower than FIFO in {len(slower)} of {len(row.ratios)} seeds,"
                f" at most {max(slower):.3f} x; on average {row.ratio[0]:.3f} x"
            )
    return found


def _cells(row: Row) -> tuple[str, ...]:
    points = (f"{100 * value:.1f}" for value in (row.floor, row.idle, row.avoidable))
    spans = ["{:.3f} [{:.3f}, {:.3f}]".format(*value) for value in (row.efficiency, row.ratio)]
    faster = "" if row.faster is None else "{:.2f} [{:.2f}, {:.2f}]".format(*row.faster)
    limit = "" if row.limit is None else f"{row.limit:.2f}"
    return (row.scenario, row.policy, *points, spans[0], f"{row.worst:.3f}", spans[1], faster, limit)
