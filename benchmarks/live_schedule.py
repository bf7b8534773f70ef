"""Live scheduling: sleeping sites on four logical devices, policy by policy: `python -m benchmarks live --help`.

All policies run in one process on one Ray, turn by turn, every second turn backwards (A-B-B-A). The efficiency is the
bound that no schedule can beat over a round's time; beside it stands what the simulator makes of that very run's log
(`hierfl plan --replay`), as a ratio to the live round. Rounds count without the first of each run, in which durations
are not known and workers warm up; intervals are over rounds. It takes six minutes, most of them asleep: for each of
the twelve runs of six rounds some 16 s of sleep, and the start of four workers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.common import in_words, machine, table
from benchmarks.contenders.live_runs import Rounds, turns
from benchmarks.processes import watch
from benchmarks.scheduler import interval

__all__ = ["LiveRow", "main", "rows_of", "table"]

HEADER = ("policy", "rounds", "s per round", "efficiency", "simulated / live", "x fifo")


@dataclass(frozen=True)
class LiveRow:
    """A policy's live rounds: medians and means with their 95% intervals; `over_fifo`: its time over first in's."""

    policy: str
    num_rounds: int
    round_s: float
    efficiency: tuple[float, float, float]
    simulated: tuple[float, float, float]
    over_fifo: float


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks live", description=__doc__)
    parser.add_argument("--turns", type=int, default=2, help="how often the policies take turns (2)")
    parser.add_argument("--rounds", type=int, default=6, help="rounds of a run, the first of which does not count (6)")
    parser.add_argument("--scale", type=float, default=0.5, help="seconds of a site's training on average (0.5)")
    parser.add_argument("--kind", choices=("ray", "local"), default="ray", help="the runtime (ray)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args(arguments)
    if options.turns < 1 or options.rounds < 2 or not 0.0 < options.scale < float("inf"):
        parser.error("--turns: 1 or more; --rounds: 2 or more; --scale: above 0")
    setting = {"rounds": options.rounds, "scale": options.scale, "kind": options.kind}
    asked = json.dumps({"policies": turns(options.turns), **setting})
    said, _, _ = watch([sys.executable, "-m", "benchmarks.contenders.live_runs", asked])
    rows = rows_of(json.loads(said.strip().splitlines()[-1]))
    about = machine()
    print(in_words(about))
    print(f"16 sites on 4 devices, {options.turns} turns of {options.rounds} rounds; [95% intervals of the mean]\n")
    print(table(HEADER, map(_cells, rows)))
    if options.json is not None:
        found = {**about, "turns": options.turns, **setting, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def rows_of(runs: Mapping[str, Sequence[Rounds]]) -> list[LiveRow]:
    """Sum up each policy's runs, the fastest first."""
    rounds = {policy: [one for own in found for one in own] for policy, found in runs.items()}
    took_s = {policy: statistics.median(one["live_s"] for one in own) for policy, own in rounds.items()}
    rows = [
        LiveRow(
            *(policy, len(own), took_s[policy]),
            interval([one["bound_s"] / one["live_s"] for one in own]),
            interval([one["simulated_s"] / one["live_s"] for one in own]),
            took_s[policy] / took_s["fifo"],
        )
        for policy, own in rounds.items()
    ]
    return sorted(rows, key=lambda row: row.round_s)


def _cells(row: LiveRow) -> tuple[str, ...]:
    spans = ["{:.3f} [{:.3f}, {:.3f}]".format(*value) for value in (row.efficiency, row.simulated)]
    return (row.policy, str(row.num_rounds), f"{row.round_s:.3f}", *spans, f"{row.over_fifo:.3f}")
