"""Sites that rehearse an attack on Ray: what a worker repeats of the honest sites' training has the bits of threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray_runs import Watcher, run, write_config

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("shared_ray")]


@pytest.mark.slow
def test_attacks_have_the_bits_of_threads(tmp_path: Path) -> None:
    """Each kind at a site of its own, under a mean and under a rule that looks at each member."""
    attacks: list[Any] = [
        *({"kind": "alie", "z": 1.5}, {"kind": "inner_product", "epsilon": 2.0}),
        *({"kind": "sign_flip", "factor": 3.0}, {"kind": "label_flip", "num_classes": 2}),
    ]
    honest = [{"name": name} for name in "abcde"]
    hubs: list[dict[str, Any]] = [
        {
            "name": "us",
            "members": [*honest, *({"name": name, "attack": one} for name, one in zip("vw", attacks[:2], strict=True))],
        },
        {
            "name": "eu",
            "strategy": {"kind": "median", "num_byzantine": 2},
            "members": [*honest, *({"name": name, "attack": one} for name, one in zip("xy", attacks[2:], strict=True))],
        },
    ]
    task = {"kind": "ward_tasks:Deep"}
    path = write_config(tmp_path, {"name": "world", "rounds": 2, "members": hubs}, task=task)
    watcher = Watcher()
    on_ray = run(path, "runtime.kind=ray", "runtime.num_workers=2", watcher=watcher)
    assert on_ray["model_digest"] == run(path, "runtime.kind=local")["model_digest"]
    assert sum("rehearses an attack" in notice.message for notice in watcher.notices("warning")) == 4
    for hub in hubs:
        hub["members"] = [{"name": member["name"]} for member in hub["members"]]
    honest_path = write_config(tmp_path, {"name": "world", "rounds": 2, "members": hubs}, task=task)
    assert run(honest_path, "runtime.kind=local")["model_digest"] != on_ray["model_digest"]
