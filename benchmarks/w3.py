"""W3: a small job from start to end. Breast cancer data on 4 sites, 20 rounds: the wall time of whole processes."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import Case, Sample, Size, Work
from benchmarks.processes import watch

LIMIT_LOCAL_S = 5.0
LIMIT_RAY_S = 12.0
RAW_S = 3.4
"""What the raw loop took where these limits were set."""

CONFIG = """\
name: breast
task: {kind: breast_cancer}
training: {optimizer: sgd, lr: 0.1, batch_size: 32, local_epochs: 1}
federation: {name: world, rounds: %d, members: {count: 4, name: "site-{i}"}}
runtime: {num_cpus: 2, num_workers: 2}
output: {tensorboard: false}
"""


def works(size: Size) -> Iterator[Work]:
    rounds = size.pick(20, 2)
    loop = [sys.executable, "-m", "benchmarks.contenders.raw_breast_cancer", str(rounds)]
    log = ["runtime.kind=local", "output.tensorboard=true"]
    yield Work(
        f"W3, {rounds} rounds",
        "s in all",
        [
            Case("raw PyTorch loop", lambda memory: Sample(watch(loop)[2])),
            _case("hierfl run, local", rounds, "local", LIMIT_LOCAL_S),
            Case("hierfl run, local, TensorBoard log", lambda memory: _run(rounds, log)),
            _case("hierfl run, Ray", rounds, "ray", LIMIT_RAY_S),
        ],
    )


def _case(name: str, rounds: int, kind: str, limit_s: float) -> Case:
    """Run the command on one kind of runtime."""
    return Case(name, lambda memory: _run(rounds, [f"runtime.kind={kind}"]), limit_s=limit_s, first_s=RAW_S)


def _run(rounds: int, overrides: list[str]) -> Sample:
    """Run the command line once."""
    with tempfile.TemporaryDirectory(prefix="hierfl-benchmark-") as folder:
        config = Path(folder) / "breast.yaml"
        config.write_text(CONFIG % rounds, encoding="utf-8")
        command = [sys.executable, "-m", "hierfl", "run", str(config), "--plain", f"output.dir={folder}", *overrides]
        return Sample(watch(command)[2])
