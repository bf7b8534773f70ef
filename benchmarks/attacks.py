"""Rules against attacks, on real data: `python -m benchmarks attacks --help`.

Handwritten digits at 20 sites, of which 4 attack: each rule, alone and after nearest-neighbour mixing, meets each
attack, in the engine as users run it. A cell is the accuracy over all sites' test samples after the last round. Nothing
is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.common import table
from hierfl.errors import HierflError

__all__ = ["ATTACKS", "PARTITIONS", "RULES", "accuracy", "configuration", "main"]

NUM_SITES, NUM_BAD = 20, 4
ROUNDS = 30

ATTACKS: Mapping[str, Mapping[str, Any] | None] = {
    "none": None,
    "sign flip x10": {"kind": "sign_flip", "factor": 10.0},
    "ALIE": {"kind": "alie"},
    "ALIE, z 1.5": {"kind": "alie", "z": 1.5},
    "IPM, 0.5": {"kind": "inner_product", "epsilon": 0.5},
    "IPM, 10": {"kind": "inner_product", "epsilon": 10.0},
    "label flip": {"kind": "label_flip", "num_classes": 10},
}
PARTITIONS: Mapping[str, Mapping[str, Any]] = {
    "i.i.d.": {"partition": "iid"},
    "Dirichlet 0.5": {"partition": "dirichlet", "alpha": 0.5},
}
FAR = 1e9
"""A bound that bounds nothing: the plain mean after mixing."""

_KINDS = ("median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "norm_bounding", "centered_clipping")
RULES: Mapping[str, Mapping[str, Any]] = {
    "mean": {"kind": "fedavg"},
    "NNM + mean": {"kind": "norm_bounding", "bound": FAR, "num_byzantine": NUM_BAD, "mixing": True},
    **{
        ("NNM + " if mixing else "") + kind: {"kind": kind, "num_byzantine": NUM_BAD, "mixing": mixing}
        for kind, mixing in product(_KINDS, (False, True))
    },
}


def configuration(rule: str, attack: str, partition: str, seed: int, rounds: int, folder: Path) -> Mapping[str, Any]:
    """Write one run's configuration: the last sites are the bad ones."""
    bad = {"attack": dict(found)} if (found := ATTACKS[attack]) is not None else {}
    good = NUM_SITES - NUM_BAD
    return {
        "name": "attacks",
        "seed": seed,
        "task": {"kind": "digits", "num_sites": NUM_SITES, "network": "mlp", "hidden": 32, **PARTITIONS[partition]},
        "training": {"lr": 0.2, "batch_size": 32, "local_epochs": 2},
        "federation": {
            "name": "world",
            "rounds": rounds,
            "strategy": dict(RULES[rule]),
            "members": [
                {"count": good, "name": "site-{i}"},
                {"count": NUM_BAD, "start": good, "name": "site-{i}", **bad},
            ],
        },
        "evaluation": {"auc": "none", "every": rounds},
        "runtime": {"kind": "local", "num_workers": 1},
        "output": {"dir": str(folder), "tensorboard": False, "checkpoint_every": rounds},
    }


def accuracy(rule: str, attack: str, partition: str, seed: int, rounds: int, folder: Path) -> float | None:
    """Run it; give the accuracy at its end, None if honest updates went over the clip and ended the run."""
    from hierfl.config import from_mapping
    from hierfl.run import run

    config = from_mapping(configuration(rule, attack, partition, seed, rounds, folder))
    try:
        return float(run(config)["nodes"]["world"]["accuracy"])
    except HierflError as error:
        print(f"{rule}, {attack}, {partition}, seed {seed}: {str(error).splitlines()[0]}", file=sys.stderr)
        return None


def main(arguments: Sequence[str]) -> int:
    """Run all and print a table for each partition."""
    parser = argparse.ArgumentParser("python -m benchmarks attacks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two rounds: the figures mean nothing")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each cell, whose mean it is (1)")
    parser.add_argument("--rule", action="append", choices=list(RULES), help="this rule only; may be repeated")
    parser.add_argument("--partition", action="append", choices=list(PARTITIONS), help="this partition only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args(arguments)
    rounds = 2 if options.quick else ROUNDS
    found: dict[str, dict[str, dict[str, list[float | None]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for partition, rule in product(options.partition or PARTITIONS, options.rule or RULES):
            print(f"{partition}: {rule}", file=sys.stderr)
            row = found.setdefault(partition, {})[rule] = {}
            for attack in ATTACKS:
                seeds = range(options.seeds)
                row[attack] = [accuracy(rule, attack, partition, seed, rounds, Path(folder)) for seed in seeds]
            if options.json is not None:
                options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for partition, rows in found.items():
        print(f"\n{partition}, {NUM_BAD} of {NUM_SITES} sites bad, {rounds} rounds, {options.seeds} seed(s)\n")
        print(table(("rule", *ATTACKS, "worst"), _rows(rows)))
    return 0


def _rows(rows: Mapping[str, Mapping[str, Sequence[float | None]]]) -> Iterator[list[str]]:
    """Write each rule's row; the last column is the worst of the attacks."""
    for rule, row in rows.items():
        means = {name: _mean(cell) for name, cell in row.items()}
        attacked = [mean for name, mean in means.items() if name != "none"]
        worst = None if None in attacked else min(mean for mean in attacked if mean is not None)
        yield [rule, *(_said(mean) for mean in [*means.values(), worst])]


def _mean(cell: Sequence[float | None]) -> float | None:
    """Average over the seeds; None if one of the runs was ended."""
    known = [value for value in cell if value is not None]
    return statistics.fmean(known) if len(known) == len(cell) else None


def _said(mean: float | None) -> str:
    """Write an accuracy."""
    return "ends" if mean is None else f"{mean:.3f}"
