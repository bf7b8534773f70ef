"""Runs of one federation of sleeping sites under several policies, one after another on one Ray."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hierfl.config import from_mapping
from hierfl.kinds import names
from hierfl.lifecycle import run
from hierfl.plan import replay

NUM_CPUS, NUM_DEVICES = 8, 4
STEPS = 4

Rounds = list[dict[str, float]]
"""Of each round but the first: seconds live, simulated, and those that no schedule could beat."""


def main() -> None:
    print(json.dumps(compare(**json.loads(sys.argv[1]))), flush=True)


def turns(num: int) -> list[str]:
    """List the policies turn by turn, every second turn backwards: A-B-B-A."""
    policies = sorted(names("policy"))
    return [name for turn in range(num) for name in (policies if turn % 2 == 0 else policies[::-1])]


def compare(policies: Sequence[str], rounds: int, scale: float, kind: str = "ray") -> dict[str, list[Rounds]]:
    """Run these policies in this order; give each policy's runs.

    In the first round durations are not known and workers warm up: it does not count.
    """
    found: dict[str, list[Rounds]] = {}
    with tempfile.TemporaryDirectory(prefix="hierfl-benchmark-") as folder:
        if kind == "ray":
            from hierfl.runtime.ray_cluster import connect

            connect(from_mapping(mapping(folder, policies[0], rounds, scale, kind)).runtime)  # one Ray for all runs
        for policy in policies:
            config = from_mapping(mapping(folder, policy, rounds, scale, kind))
            times = replay(Path(run(config)["run_dir"])).times[1:]
            found.setdefault(policy, []).append([asdict(one) for one in times])
    return found


def mapping(folder: str, policy: str, rounds: int, scale: float, kind: str) -> dict[str, Any]:
    """Write the federation: two hubs of eight sites, log-normal (log-sd 1), a second of work each on average."""
    drawn = np.exp(np.random.default_rng(5).standard_normal(16))
    seconds = (scale * drawn / drawn.mean()).tolist()
    sites = [{"name": f"site-{i:02}", "data": {"step_s": round(took / STEPS, 6)}} for i, took in enumerate(seconds)]
    hubs = [{"name": name, "members": sites[half : half + 8]} for name, half in (("north", 0), ("south", 8))]
    return {
        "name": policy,
        "task": {"kind": "synthetic", "num_samples_min": 16, "num_test": 0},
        "training": {"batch_size": 4, "local_steps": STEPS},
        "federation": {"name": "world", "rounds": rounds, "members": hubs},
        "evaluation": {"every": 0},
        "runtime": {
            "kind": kind,
            "policy": policy,
            "devices": [{"name": "slot", "count": NUM_DEVICES}],
            **({"num_cpus": NUM_CPUS} if kind == "ray" else {}),
        },
        "output": {"dir": folder, "checkpoint_every": 1_000_000, "tensorboard": False},
        "redundancy": {"journal": "none"},
    }


if __name__ == "__main__":
    main()
