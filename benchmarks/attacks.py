"""Rules against attacks, on real data: `python -m benchmarks attacks --help`.

Handwritten digits at 20 sites, of which 4 attack: each rule, alone and after nearest-neighbour mixing, meets each
attack, in the engine as users run it. A cell is the accuracy over all sites' test samples after the last round, mean
and deviation over the seeds. Nothing is timed, and nothing is chosen by test samples: rules that have a bound take the
median length of the honest sites' changes in a first round without attack.
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

import numpy as np

from benchmarks.common import table
from hierfl.errors import HierflError

__all__ = ["ATTACKS", "PARTITIONS", "RULES", "accuracy", "configuration", "main", "typical_length"]

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
BOUNDS = {"norm_bounding": "bound", "centered_clipping": "radius"}
"""The rules that have a bound, and its key."""

_KINDS = ("median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "norm_bounding", "centered_clipping")
RULES: Mapping[str, Mapping[str, Any]] = {
    "mean": {"kind": "fedavg"},
    "NNM + mean": {"kind": "norm_bounding", "bound": FAR, "num_byzantine": NUM_BAD, "mixing": True},
    **{
        ("NNM + " if mixing else "") + kind: {"kind": kind, "num_byzantine": NUM_BAD, "mixing": mixing}
        for kind, mixing in product(_KINDS, (False, True))
    },
}


def configuration(
    rule: str, attack: str, partition: str, seed: int, rounds: int, folder: Path, bound: float = 1.0
) -> Mapping[str, Any]:
    """Write one run's configuration: the last sites are the bad ones. `bound`: for a rule that has one."""
    strategy = dict(RULES[rule])
    if strategy["kind"] in BOUNDS:
        strategy.setdefault(BOUNDS[strategy["kind"]], bound)
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
            "strategy": strategy,
            "members": [
                {"count": good, "name": "site-{i}"},
                {"count": NUM_BAD, "start": good, "name": "site-{i}", **bad},
            ],
        },
        "evaluation": {"auc": "none", "every": rounds},
        "runtime": {"kind": "local", "num_workers": 1},
        "output": {"dir": str(folder), "tensorboard": False, "checkpoint_every": rounds},
    }


def typical_length(partition: str, seed: int, folder: Path) -> float:
    """Give the median length of the honest sites' changes in the first round, each trained by itself."""
    from hierfl import checkpoint
    from hierfl.config import from_mapping
    from hierfl.lifecycle import run

    config = from_mapping({**configuration("mean", "none", partition, seed, 1, folder), "baseline": "local"})
    newest = checkpoint.latest(Path(run(config)["run_dir"]))
    assert newest is not None
    saved = checkpoint.load(newest)
    honest = [saved.sites[f"world/site-{number}"]["own"] for number in range(NUM_SITES - NUM_BAD)]
    return statistics.median(float(np.linalg.norm(own - saved.model.floats)) for own in honest)


def accuracy(
    rule: str, attack: str, partition: str, seed: int, rounds: int, folder: Path, bound: float = 1.0
) -> float | None:
    """Run it; give the accuracy at its end, None if honest updates went over the clip and ended the run."""
    from hierfl.config import from_mapping
    from hierfl.lifecycle import run

    config = from_mapping(configuration(rule, attack, partition, seed, rounds, folder, bound))
    try:
        return float(run(config)["nodes"]["world"]["accuracy"])
    except HierflError as error:
        print(f"{rule}, {attack}, {partition}, seed {seed}: {str(error).splitlines()[0]}", file=sys.stderr)
        return None


def main(arguments: Sequence[str]) -> int:
    """Run all and print a table for each partition."""
    parser = argparse.ArgumentParser("python -m benchmarks attacks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two rounds: the figures mean nothing")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each cell, whose mean it is (3)")
    parser.add_argument("--rule", action="append", choices=list(RULES), help="this rule only; may be repeated")
    parser.add_argument("--attack", action="append", choices=list(ATTACKS), help="this attack only; may be repeated")
    parser.add_argument("--partition", action="append", choices=list(PARTITIONS), help="this partition only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures here; what it has is not run again")
    options = parser.parse_args(arguments)
    rounds = 2 if options.quick else ROUNDS
    wanted, seeds = options.attack or list(ATTACKS), range(options.seeds)
    found: dict[str, dict[str, dict[str, list[float | None]]]] = {}
    if options.json is not None and options.json.exists():
        found = json.loads(options.json.read_text(encoding="utf-8"))
    bounds: dict[tuple[str, int], float] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for rule, partition, attack in product(options.rule or RULES, options.partition or PARTITIONS, wanted):
            row = found.setdefault(partition, {}).setdefault(rule, {})
            for seed in seeds[len(row.get(attack, ())) :]:
                if (partition, seed) not in bounds:
                    bounds[partition, seed] = typical_length(partition, seed, folder)
                cell = accuracy(rule, attack, partition, seed, rounds, folder, bounds[partition, seed])
                row.setdefault(attack, []).append(cell)
                if options.json is not None:
                    options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            print(f"{partition}, {rule}, {attack}: {_said(row[attack])}", file=sys.stderr)
    for partition, rows in found.items():
        print(f"\n{partition}, {NUM_BAD} of {NUM_SITES} sites bad, {rounds} rounds, {options.seeds} seed(s)\n")
        print(table(("rule", *wanted, "worst"), _rows(rows)))
    return 0


def _rows(rows: Mapping[str, Mapping[str, Sequence[float | None]]]) -> Iterator[list[str]]:
    """Write each rule's row; the last column is the attack with the worst mean."""
    for rule, row in rows.items():
        attacked = [cell for name, cell in row.items() if name != "none"]
        worst = min(attacked, key=lambda cell: -1.0 if None in cell else statistics.fmean(_known(cell)), default=[])
        yield [rule, *(_said(cell) for cell in [*row.values(), worst])]


def _known(cell: Sequence[float | None]) -> list[float]:
    """Give the accuracies of the runs that came to their end."""
    return [value for value in cell if value is not None]


def _said(cell: Sequence[float | None]) -> str:
    """Write the mean over the seeds, and the deviation of the sample; "ends" if one of the runs was ended."""
    if None in cell or not cell:
        return "ends"
    known = _known(cell)
    return f"{statistics.fmean(known):.3f}" + (f" ± {statistics.stdev(known):.3f}" if len(known) > 1 else "")
