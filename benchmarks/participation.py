"""Rounds that do not wait for all, with real data: `python -m benchmarks participation --help`.

Every site has a device of its own and takes its time; one takes several times as long, another one with each seed.
All contenders of a seed have the seconds that waiting for all takes, and the figures are those at their end. Sites
wait more than they compute: the seconds are real, and the machine's speed matters little.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.common import in_words, machine, table
from hierfl.kinds import load
from hierfl.learning.task import Prediction, SiteData

__all__ = ["Delayed", "main", "reached"]

HEADER = ("data", "participation", "rounds", "s per round", "metric at the end", "x waiting's time to there")
BASE_S, SLOW = 0.12, 6.0


@dataclasses.dataclass(frozen=True)
class Delayed:
    """A task of hierfl whose sites wait before they train: `data: {wait_s: 0.5}`, spread over `steps` steps."""

    of: str = "heart_disease"
    steps: int = 1

    @cached_property
    def task(self) -> Any:
        own = {"num_sites": 12, "network": "mlp"} if self.of == "digits" else {}
        return load("task", self.of)(**own)

    @property
    def standardise(self) -> str:
        return getattr(self.task, "standardise", "none")

    def sites(self) -> Sequence[str]:
        return list(self.task.sites())

    def model(self) -> Any:
        return self.task.model()

    def data(self, site: str, wait_s: float = 0.0) -> SiteData:
        import torch
        from torch.utils.data import TensorDataset

        def waiting(part: Any, seconds: float) -> Any:
            return TensorDataset(*part.tensors, torch.full((len(part),), seconds))

        loaded = self.task.data(site)
        return SiteData(waiting(loaded.train, wait_s / self.steps), waiting(loaded.test, 0.0))

    def loss(self, model: Any, batch: Any) -> Any:
        import time

        *own, waits = batch
        time.sleep(float(waits[0]))
        return self.task.loss(model, own)

    def predict(self, model: Any, batch: Any) -> Prediction:
        prediction: Prediction = self.task.predict(model, batch[:-1])
        return prediction


@dataclasses.dataclass(frozen=True)
class Work:
    """A data set: the metric of interest, the tree's hubs, and how long waiting for all runs."""

    name: str
    metric: str
    hubs: Mapping[str, Sequence[str]]
    rounds: int
    training: Mapping[str, Any]

    @property
    def sites(self) -> list[str]:
        return [site for sites in self.hubs.values() for site in sites]


HEART = Work(
    "heart_disease",
    "auc",
    {"us": ["cleveland", "long_beach"], "hungary": ["budapest"], "switzerland": ["zurich_basel"]},
    15,
    {"lr": 0.01, "batch_size": 4, "local_steps": 20},
)
DIGITS = Work(
    "digits",
    "accuracy",
    {f"hub-{hub}": [f"site-{4 * hub + number}" for number in range(4)] for hub in range(3)},
    15,
    {"lr": 0.1, "batch_size": 32, "local_steps": 4},
)
CONTENDERS: Mapping[str, Mapping[str, Any]] = {
    "all": {"kind": "all"},
    "sample": {"kind": "sample", "fraction": 0.5},
    "deadline": {"kind": "deadline", "after_s": 2 * BASE_S, "quorum": 0.5, "weight": 0.3, "staleness": 20},
    "buffered": {"kind": "buffered", "staleness": 20},
    "semi-synchronous": {"kind": "buffered", "goal": 1, "staleness": 20},
}


@dataclasses.dataclass
class Curve:
    """A monitor that keeps the root's metric by the seconds since the first round, up to `until_s`."""

    metric: str
    until_s: float | None = None
    begun_s: float = 0.0
    points: list[tuple[float, float]] = dataclasses.field(default_factory=list)

    def on(self, record: Any) -> None:
        from hierfl.monitor.records import Evaluated, RunStarted

        if isinstance(record, RunStarted):
            self.begun_s = record.time_s
        elif isinstance(record, Evaluated):
            spent_s = record.time_s - self.begun_s
            if self.until_s is not None and spent_s > self.until_s:
                raise KeyboardInterrupt
            value = record.metrics[min(record.metrics, key=len)][self.metric]
            assert not isinstance(value, list), f"{self.metric} is no number"
            self.points.append((spent_s, value or 0.0))

    def close(self) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class Row:
    """A contender, over the seeds: means, and of the ratio the median; None if one seed does not get there."""

    data: str
    participation: str
    rounds: float
    round_s: float
    metric: float
    reached: float | None


def curve(work: Work, contender: str, seed: int, folder: Path, rounds: int, until_s: float | None) -> Curve:
    """Run one contender."""
    from hierfl.config import from_mapping
    from hierfl.lifecycle import run

    slow = work.sites[seed % len(work.sites)]
    policy = dict(CONTENDERS[contender])
    if contender == "buffered":
        policy["goal"] = max(1, len(work.sites) // 2)

    def site(name: str) -> dict[str, Any]:
        return {"name": name, "data": {"wait_s": BASE_S * (SLOW if name == slow else 1.0)}}

    members = [site(name) for name in work.sites]
    if contender == "semi-synchronous":
        members = [{"name": name, "members": [site(one) for one in sites]} for name, sites in work.hubs.items()]
    told = Curve(work.metric, until_s)
    config = from_mapping(
        {
            "name": "participation",
            "seed": seed,
            "task": {
                "kind": "benchmarks.participation:Delayed",
                "of": work.name,
                "steps": work.training["local_steps"],
            },
            "training": dict(work.training),
            "federation": {"name": "world", "rounds": rounds, "participation": policy, "members": members},
            "evaluation": {"auc": "exact" if work.metric == "auc" else "none"},
            "runtime": {"kind": "local", "devices": [{"name": "hospital", "count": len(work.sites)}]},
            "output": {"dir": str(folder), "tensorboard": False, "checkpoint_every": rounds},
        },
        [],
    )
    try:
        run(config, [told])
    except KeyboardInterrupt:
        if until_s is None:
            raise
    return told


def rows(work: Work, seeds: int, rounds: int) -> Iterator[Row]:
    """Let all contenders run for the seconds that waiting for all takes; yield a row for each."""
    found: dict[str, list[Curve]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        curve(work, "all", 0, Path(folder), 1, None)  # imports, threads: not to be counted against the first
        for seed in range(seeds):
            waiting = curve(work, "all", seed, Path(folder), rounds, None)
            found["all"].append(waiting)
            for name in list(CONTENDERS)[1:]:
                print(f"{work.name}: {name}, seed {seed}", file=sys.stderr)
                found[name].append(curve(work, name, seed, Path(folder), 100 * rounds, waiting.points[-1][0]))
    for name, curves in found.items():
        shares = [reached(own, first) for own, first in zip(curves, found["all"], strict=True)]
        yield Row(
            *(work.name, name, statistics.mean(len(one.points) for one in curves)),
            statistics.mean(one.points[-1][0] / len(one.points) for one in curves),
            statistics.mean(one.points[-1][1] for one in curves),
            None if None in shares else statistics.median(share for share in shares if share is not None),
        )


def reached(own: Curve, waiting: Curve) -> float | None:
    """Give the time to 99% of what waiting for all has at its end, over its own time to there; None: not reached."""
    target = 0.99 * waiting.points[-1][1]
    first_s, own_s = (next((at_s for at_s, value in one.points if value >= target), None) for one in (waiting, own))
    return None if own_s is None or first_s is None else own_s / first_s


def main(arguments: Sequence[str]) -> int:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser("python -m benchmarks participation", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, few rounds: the figures mean nothing")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each contender (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args(arguments)
    print(in_words(machine()) + "\n")
    seeds = 1 if options.quick else options.seeds
    found = [row for work in (HEART, DIGITS) for row in rows(work, seeds, 2 if options.quick else work.rounds)]
    if options.json is not None:
        options.json.write_text(json.dumps([dataclasses.asdict(row) for row in found], indent=1) + "\n")
    print(table(HEADER, map(_cells, found)))
    return 0


def _cells(row: Row) -> tuple[str, ...]:
    """Write one row."""
    share = "not reached" if row.reached is None else f"{row.reached:.2f}"
    return (row.data, row.participation, f"{row.rounds:.0f}", f"{row.round_s:.2f}", f"{row.metric:.3f}", share)
