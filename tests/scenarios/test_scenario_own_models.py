"""The model that a site uses itself can be had: what is exported measures there what the run has told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from plain_loops import FULL
from small_runs import config_of, go, hub, site
from torch.nn import functional as F
from ward_tasks import Deep, patients

from hierfl import open_run
from hierfl.errors import ConfigError
from hierfl.lifecycle import export, run
from hierfl.monitor.records import Evaluated

SITES = {"north": 12, "south": 20}
DITTO = {"kind": "ditto", "lam": 0.1}


def tree(strategy: Any, **settings: Any) -> dict[str, Any]:
    inner = hub("up", *(site(name, n=n) for name, n in SITES.items()))
    return hub("world", inner, strategy=strategy, rounds=3, **settings)


def loss_at(model: torch.nn.Module, name: str) -> float:
    """Reckon by hand what the model is worth at a site's test samples."""
    n = SITES[name]
    x, y = patients(name, n + 6)
    with torch.no_grad():
        return float(F.cross_entropy(model(x[n:]), y[n:]))


@pytest.mark.parametrize(
    ("strategy", "more", "metric"),
    [
        ({"kind": "fedper", "personal": ["4.*"]}, {}, "loss"),
        ("fedbn", {}, "loss"),
        (DITTO, {}, "loss"),
        ("fedavg", {"evaluation": {"fine_tune": {"steps": 3}}}, "personal_loss"),
        (
            DITTO,
            {"evaluation": {"fine_tune": {"steps": 3, "tensors": ["4.*"]}}},
            "personal_loss",
        ),
    ],
)
def test_what_is_exported_for_a_site_is_what_was_measured_there(
    tmp_path: Path, strategy: Any, more: dict[str, Any], metric: str
) -> None:
    ran = go(tmp_path, tree(strategy), "ward_tasks:Deep", training=FULL, **more)
    told = ran.monitor.of(Evaluated)[-1].metrics
    result, losses = open_run(ran.folder), []
    for name in SITES:
        losses.append(loss_at(result.model(site=f"world/up/{name}"), name))
        assert losses[-1] == pytest.approx(told[f"world/up/{name}"][metric], rel=1e-5)
        assert loss_at(result.model(), name) != pytest.approx(losses[-1], rel=1e-3), "the federation's is another"
    path = tmp_path / "own.safetensors"
    assert export(ran.folder, path, site="world/up/north") == (3, ran.digest)
    own, whole = result.state_dict(site="world/up/north"), Deep().model().state_dict()
    assert {name: tensor.shape for name, tensor in own.items()} == {name: v.shape for name, v in whole.items()}


def test_adapters_of_a_sites_own_are_merged(tmp_path: Path) -> None:
    lora = {"rank": 2, "layers": ["0", "4"], "whole": []}
    more = {"training": FULL, "lora": lora, "arithmetic": {"clip": 1024.0}}
    ran = go(tmp_path, tree(DITTO), "ward_tasks:Deep", **more)
    told = ran.monitor.of(Evaluated)[-1].metrics
    for name in SITES:
        own = open_run(ran.folder).model(site=f"world/up/{name}")
        assert loss_at(own, name) == pytest.approx(told[f"world/up/{name}"]["loss"], rel=1e-4)


def test_who_has_no_model_of_its_own_is_told_why(tmp_path: Path) -> None:
    plain = run(config_of(tmp_path / "plain", tree("fedavg"), "ward_tasks:Deep", training=FULL))
    folder, file = Path(plain["run_dir"]), tmp_path / "x.safetensors"
    with pytest.raises(
        ConfigError, match=r"world/up/north has no model of its own: under fedavg it uses the fed.*--site"
    ):
        export(folder, file, site="world/up/north")
    with pytest.raises(ConfigError, match=r"world/up is a hub of this run.*allowed: world/up/north, world/up/south"):
        export(folder, file, site="world/up")
    with pytest.raises(ConfigError, match=r"world/up/nort is no site of this run \(did you mean 'world/up/north'"):
        export(folder, file, site="world/up/nort")
    assert not file.exists()
