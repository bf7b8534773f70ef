"""Two federations' jobs side by side on one device of a real Ray, since it was measured that both gain by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray_runs import HIERFL, digest_in, environment, finish, run, started, wait_gone

from hierfl.monitor.joint import read_joint

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NAMES = ("one", "other")


def write(folder: Path, name: str) -> Path:
    """Write a federation whose sites sleep for 0.3 s, one after another: by itself it never has two jobs."""
    folder.mkdir()
    document = {
        "name": name,
        "task": {"kind": "synthetic", "num_samples_min": 16, "num_test": 0},
        "training": {"batch_size": 4, "local_steps": 3},
        "federation": {
            "name": "world",
            "rounds": 10,
            "topology": "cyclic",
            "members": [{"name": site, "data": {"step_s": 0.1}} for site in "abcd"],
        },
        "evaluation": {"every": 0},
        "output": {"dir": str(folder / "runs"), "tensorboard": False},
    }
    path = folder / "federation.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def events(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


def test_two_federations_share_a_card_where_both_gain(tmp_path: Path, ray_temp: Path) -> None:
    alone = run(write(tmp_path / "alone", "alone"), "runtime.kind=local")["model_digest"]
    configs = [write(tmp_path / name, name) for name in NAMES]
    card = "runtime.devices=[{name: card, count: 1, gpus: 1, places: 2}]"
    words = ["run", *map(str, configs), "runtime.kind=ray", "runtime.num_cpus=2", "runtime.num_gpus=1", card]
    env = environment(ray_temp, RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    with started([*HIERFL, *words], tmp_path, env) as going:
        returned, out, err = finish(going, 240)
    assert returned == 0, (out, err)
    run_dirs = [next((config.parent / "runs").iterdir()) for config in configs]
    assert [digest_in(run_dir) for run_dir in run_dirs] == [alone, alone], "the bits of each alone"
    leases = [event for run_dir in run_dirs for event in events(run_dir) if event["event"] == "leased"]
    assert any(event["reason"].startswith("it shares the device with ") for event in leases), leases
    assert any(event["change"] == "narrowed" for event in leases), "and its host made room"
    joint = read_joint(run_dirs).joint
    assert joint.idle.goodput > 1.2, "taking turns it would be one at most"
    wait_gone(ray_temp)
