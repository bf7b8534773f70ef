"""Each hub's and each site's own model, made once more after a run: together they are the round that comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_runs import go, hub, site

from hierfl import checkpoint
from hierfl import lifecycle as runs
from hierfl.config.schema import RunConfig
from hierfl.runtime.apart import models_apart

ROOT = hub("world", hub("up", site("a", n=8), site("b", n=16), rounds=2), hub("c", "x", "y"), "z", rounds=2)


def apart(folder: Path) -> dict[str, NDArray[Any]]:
    with runs._measuring(folder, (), None) as (engine, config, saved, _):
        assert isinstance(config, RunConfig)
        return {path: model.floats for path, model in models_apart(config, engine, saved)}


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", {"kind": "fedprox", "mu": 0.1}], ids=str)
def test_their_mean_is_the_model_of_the_round_that_comes(strategy: Any, tmp_path: Path) -> None:
    root = {**ROOT, "strategy": strategy}
    ran = go(tmp_path, root, runtime={"kind": "local", "num_workers": 2})
    before = (ran.folder / "checkpoints" / "round-000002" / "model.safetensors").read_bytes()
    found = apart(ran.folder)
    assert list(found) == [f"world/{one}" for one in ("up", "up/a", "up/b", "c", "c/x", "c/y", "z")]
    again = apart(ran.folder)
    assert all(np.array_equal(found[path], again[path]) for path in found), "nothing of it stays"
    assert (ran.folder / "checkpoints" / "round-000002" / "model.safetensors").read_bytes() == before
    coming = go(tmp_path, {**root, "rounds": 3})
    model = checkpoint.load(coming.folder / "checkpoints" / "round-000003").model.floats
    mean = (24 * found["world/up"] + 24 * found["world/c"] + 12 * found["world/z"]) / 60
    assert np.abs(mean - model).max() < 1e-6
    assert np.abs(found["world/c"] - (found["world/c/x"] + found["world/c/y"]) / 2).max() < 1e-6
    assert np.abs(found["world/up"] - found["world/c"]).max() > 1e-3


@pytest.mark.parametrize(
    ("strategy", "topology"),
    [
        *((one, "star") for one in ("fednova", "feddyn", "fedadam", {"kind": "median", "num_byzantine": 0}, "ditto")),
        ("fedavg", "cyclic"),
    ],
    ids=str,
)
def test_every_strategy_has_its_rows(strategy: Any, topology: str, tmp_path: Path) -> None:
    up, *others = ROOT["members"]
    once = {"members": [{**up, "rounds": 1}, *others]} if strategy == "fednova" else {}
    ran = go(tmp_path, {**ROOT, **once, "strategy": strategy, "topology": topology})
    matrix = runs.cross_site(ran.folder)
    assert list(matrix.models) == ["world", *(f"world/{one}" for one in ("up", "up/a", "up/b", "c", "c/x", "c/y", "z"))]
    assert all(row["world"]["num_test"] == 30 for row in matrix.models.values())


def test_who_has_no_data_or_fails_has_no_row(tmp_path: Path) -> None:
    root = hub("world", "a", site("empty", n=0), {**site("later"), "role": "evaluation"}, on_failure="continue")
    matrix = runs.cross_site(go(tmp_path, root).folder)
    assert list(matrix.models) == ["world", "world/a"]
    assert "world/later" in matrix.models["world/a"]


def test_many_sites_leave_rows_to_the_hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hierfl.runtime.apart.MOST_SITES", 2)
    matrix = runs.cross_site(go(tmp_path, hub("world", hub("up", "a", "b"), "c")).folder)
    assert list(matrix.models) == ["world", "world/up"]
