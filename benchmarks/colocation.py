"""Small models side by side on one card: `python -m benchmarks colocation --help`.

First the curve: k of hierfl's workers, a process each, train on the same card at once, for k = 1 to 8. g(k) is how many
sites they finish in a second over how many one worker does alone; each has six sites a round, so that none waits for
the others at the end. Then the scheduler by itself, on one device of eight places: it tries company and keeps what
gains. Its goodput over serial, one worker alone, is held to 2, and no site may run out of memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.common import in_words, machine, table
from benchmarks.contenders.engine import Clock
from hierfl.config import from_mapping
from hierfl.lifecycle import run
from hierfl.monitor.records import Notice, Record

__all__ = ["Row", "main", "rows"]

SITES = 6
"""Sites a round for each worker."""

LEAST_GOODPUT = 2.0
HEADER = ("contender", "sites per s", "x serial", "out of memory")


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much to measure: workers at most, rounds without the first and the last, steps of a site."""

    most: int
    rounds: int
    steps: int


FULL, QUICK = Scale(8, 4, 400), Scale(2, 1, 2)


@dataclasses.dataclass(frozen=True)
class Row:
    """What a contender did: `ratio` of its sites per second to those of one worker alone."""

    contender: str
    sites_per_s: float
    ratio: float
    out_of_memory: int


class Short:
    """A monitor that counts the times that memory did not suffice."""

    def __init__(self) -> None:
        self.num = 0

    def on(self, record: Record) -> None:
        self.num += isinstance(record, Notice) and "out of memory" in record.message

    def close(self) -> None:
        pass


def rows(scale: Scale, device: str, kind: str = "ray") -> Iterator[Row]:
    """Measure the curve, and then the scheduler on a device of as many places; `kind` of runtime."""
    alone = 0.0
    for jobs in range(1, scale.most + 1):
        print(f"colocation: {jobs} at once", file=sys.stderr)
        slots = {"name": "slot", "count": jobs, "cpus": 1, "gpus": _of_a_card(device, jobs)}
        speed, short = _measure(scale, slots, SITES * jobs, device, kind)
        alone = alone or speed
        yield Row("serial, one at a time" if jobs == 1 else f"{jobs} at once", speed, speed / alone, short)
    print("colocation: hierfl", file=sys.stderr)
    card = {"name": "card", "places": scale.most, "cpus": 1, "gpus": _of_a_card(device, 1)}
    speed, short = _measure(scale, card, SITES * scale.most, device, kind, learns=True)
    yield Row(f"hierfl, {scale.most} places", speed, speed / alone, short)


def _of_a_card(device: str, jobs: int) -> float:
    return 1 / jobs if device == "cuda" else 0.0


def _measure(
    scale: Scale, slots: dict[str, Any], sites: int, device: str, kind: str, *, learns: bool = False
) -> tuple[float, int]:
    """Run a federation; give its sites per second in the usual round, and how often memory did not suffice.

    One that `learns` what to do has as many rounds more for it.
    """
    clock, short = Clock(), Short()
    skipped = 1 + 2 * scale.rounds * learns
    with tempfile.TemporaryDirectory(prefix="hierfl-benchmark-") as folder:
        runtime: dict[str, Any] = {"kind": kind, "device": device, "devices": [slots]}
        if kind == "ray":
            runtime |= {"num_cpus": scale.most, "num_gpus": int(device == "cuda")}
        config = {
            "name": "colocation",
            "task": {"kind": "synthetic", "network": "mlp", "num_parameters": 100_000, "num_features": 784}
            | {"num_samples_min": 256, "num_test": 0},
            "training": {"batch_size": 32, "local_steps": scale.steps},
            "federation": {
                "name": "world",
                "rounds": skipped + scale.rounds + 1,
                "members": {"count": sites, "name": "site-{i:02d}"},
            },
            "evaluation": {"every": 0},
            "runtime": runtime,
            "output": {"dir": folder, "checkpoint_every": 1_000_000, "tensorboard": False},
        }
        run(from_mapping(config), [clock, short])
    seconds = [later - earlier for earlier, later in pairwise(clock.times)][skipped:-1]
    return sites / statistics.median(seconds), short.num


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, and say whether what we hold ourselves to is held; 0 without a card too."""
    parser = argparse.ArgumentParser("python -m benchmarks colocation", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: only to see that it works")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: the figures mean nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args(arguments)
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("colocation needs a CUDA GPU, and there is none; --device cpu shows that it works")
        return 0
    said = machine() | ({"card": torch.cuda.get_device_name(0)} if options.device == "cuda" else {})
    print(in_words(said) + "\n")
    found = list(rows(QUICK if options.quick else FULL, options.device))
    if options.json is not None:
        document = {**said, "device": options.device, "quick": options.quick}
        document |= {"rows": [dataclasses.asdict(row) for row in found]}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    cells = [(one.contender, f"{one.sites_per_s:.1f}", f"{one.ratio:.2f}", str(one.out_of_memory)) for one in found]
    print(table(HEADER, cells))
    ours = found[-1]
    held = ours.ratio >= LEAST_GOODPUT and ours.out_of_memory == 0
    if options.device == "cuda" and not options.quick:
        print(f"\ngoodput {ours.ratio:.2f} x serial, held to {LEAST_GOODPUT:g}: {'yes' if held else 'NO'}")
    return 0
