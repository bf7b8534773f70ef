"""hierfl itself, local or on Ray: seconds from one round's commit to the next, all that it writes included."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from benchmarks.contenders.setting import LR, Setting, answer, setting
from hierfl.config import RunConfig, from_mapping
from hierfl.lifecycle import run
from hierfl.monitor.records import Record, RoundCommitted, RunStarted

__all__ = ["Clock", "carry_out", "mapping", "stepped", "tell"]

NUM_CPUS = 2


class Clock:
    """A monitor that notes when the run was set up and when each round was committed."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on(self, record: Record) -> None:
        if isinstance(record, RunStarted | RoundCommitted):
            self.times.append(time.perf_counter())

    def close(self) -> None:
        pass


def main() -> None:
    work = setting()
    clock = Clock()
    tell(work, clock, carry_out(work, clock))


def carry_out(work: Setting, clock: Clock) -> Mapping[str, Any]:
    """Run the federation in a folder of its own, with the clock beside it; give its summary."""
    with tempfile.TemporaryDirectory(prefix="hierfl-benchmark-") as folder:
        return run(stepped(from_mapping(mapping(work, folder)), work.local_steps), [clock])


def tell(work: Setting, clock: Clock, summary: Mapping[str, Any]) -> None:
    """Tell the parent process what a run came to."""
    seconds = [later - earlier for earlier, later in pairwise(clock.times)]
    answer(
        seconds=work.counted(seconds),
        startup_s=summary["startup_s"],
        digest=summary["model_digest"],
        busy_fraction=summary["busy_fraction"],
    )


def stepped(config: RunConfig, local_steps: int) -> RunConfig:
    """Set the steps at every site; none at all, which leaves only the engine's own cost, no YAML may ask for."""
    sites = {
        path: replace(site, training=replace(site.training, local_steps=local_steps))
        for path, site in config.sites.items()
    }
    return replace(config, sites=sites)


def mapping(work: Setting, folder: str) -> dict[str, Any]:
    """Write the work as a federation."""
    if work.hubs:
        share = work.sites // work.hubs
        members: Any = {
            "count": work.hubs,
            "name": "hub-{i:03d}",
            "members": {"count": share, "name": "{parent}-site-{i:03d}"},
        }
    else:
        members = {"count": work.sites, "name": "site-{i:05d}"}
    task = work.task
    return {
        "name": "benchmark",
        "task": {
            "kind": "synthetic",
            "num_parameters": task.num_parameters,
            "network": task.network,
            "num_features": task.num_features,
            "num_samples_min": task.num_samples_min,
            "num_test": 0,
        },
        "training": {"optimizer": "sgd", "lr": LR, "batch_size": None, "local_steps": 1},
        "federation": {"name": "world", "rounds": work.rounds, "members": members},
        "evaluation": {"every": 0},
        "runtime": {
            "kind": work.kind,
            "num_workers": work.num_workers,
            **({"num_cpus": NUM_CPUS} if work.kind == "ray" else {}),
        },
        "output": {"dir": folder, "checkpoint_every": 1 if work.kept else 1_000_000, "tensorboard": False},
        "redundancy": {
            "journal": None if work.kept else "none",
            "replicas": work.replicas,
            "mode": "vote" if work.replicas > 2 else "crash",
        },
    }


if __name__ == "__main__":
    main()
