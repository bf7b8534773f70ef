"""On Ray a simulation's noise has the bits of threads, whichever worker draws it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray_runs import run, write_config

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("shared_ray")]

TREE: dict[str, Any] = {
    "name": "world",
    "rounds": 2,
    "privacy": {"kind": "dp_sgd", "noise_multiplier": 1.0, "max_grad_norm": 1.0},
    "members": [{"name": "us", "rounds": 2, "members": [{"name": "a"}, {"name": "b"}]}, {"name": "c"}],
}


@pytest.mark.slow
def test_noise_on_ray_is_that_of_threads(tmp_path: Path) -> None:
    pytest.importorskip("dp_accounting")
    config = write_config(
        tmp_path, TREE, task={"kind": "ward_tasks:Doses"}, training={"lr": 0.1, "batch_size": 4, "local_steps": 2}
    )
    in_threads = run(config, "runtime.kind=local", "runtime.num_workers=1")
    on_ray = run(config, "runtime.kind=ray", "runtime.num_workers=2")
    assert on_ray["model_digest"] == in_threads["model_digest"]
    assert on_ray["privacy"] == in_threads["privacy"]
    assert run(config, "runtime.kind=local", "federation.privacy=null")["model_digest"] != on_ray["model_digest"]
