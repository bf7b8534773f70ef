"""A site that is split over devices: the same bits whoever does the parts, and what a hub of its parts would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import TensorDataset

from hierfl.config import from_mapping
from hierfl.learning.parts import part_of
from hierfl.learning.task import SiteData
from hierfl.lifecycle import run
from hierfl.runtime.specs import member_weights


def configured(folder: Path, large: dict[str, Any], **runtime: Any) -> dict[str, Any]:
    """Write a federation with one large site; `large` are its own keys."""
    return {
        "name": "split",
        "task": {"kind": "synthetic", "num_samples_min": 30, "num_samples_max": 90, "num_parameters": 60},
        "training": {"local_steps": 4, "batch_size": 4},
        "federation": {"name": "world", "rounds": 3, "members": [{"name": "large", **large}, {"name": "small"}]},
        "runtime": {"kind": "local", **runtime},
        "output": {"dir": str(folder), "tensorboard": False},
    }


def test_the_bits_do_not_depend_on_who_does_the_parts(tmp_path: Path) -> None:
    digests = {
        run(from_mapping(configured(tmp_path, {"split": 3}, **runtime)))["model_digest"]
        for runtime in (
            {"num_workers": 1},
            {"num_workers": 3, "preaggregate": False},
            {"devices": [{"name": "a"}, {"name": "b", "count": 2}], "policy": "static"},
        )
    }
    assert len(digests) == 1
    whole = run(from_mapping(configured(tmp_path, {})))["model_digest"]
    assert whole not in digests, "a split site trains otherwise, and says so in the documentation"


def test_parts_are_all_of_the_data_and_share_the_steps(tmp_path: Path) -> None:
    config = from_mapping(configured(tmp_path, {"split": 3}))
    parts = [f"world/large/part-{number}" for number in range(3)]
    assert list(config.sites) == [*parts, "world/small"]
    assert [config.sites[part].training.local_steps for part in parts] == [2, 2, 2], "4 steps, shared and rounded up"
    assert all(config.sites[part].key == "large" for part in parts)
    split, whole = run(config), run(from_mapping(configured(tmp_path, {})))
    for count in ("num_samples", "num_test"):
        assert split["nodes"]["world/large"][count] == whole["nodes"]["world/large"][count]


@pytest.mark.parametrize(("weights", "site"), [("samples", 5), ("uniform", 1), ("given", 3 * 2**20)])
def test_parts_weigh_by_their_samples_whatever_the_site_weighs(weights: str, site: int, tmp_path: Path) -> None:
    raw = configured(tmp_path, {"split": 2, "weight": 3.0})
    raw["federation"]["strategy"] = {"kind": "fedavg", "weights": weights}
    config = from_mapping(raw)
    there = {"world/large": 5, "world/large/part-0": 3, "world/large/part-1": 2, "world/small": 7}
    assert member_weights(config, "world", there)["large"] == site
    assert member_weights(config, "world/large", there) == {"part-0": 3, "part-1": 2}


def test_a_split_site_gives_the_mean_over_its_records_under_any_weights(tmp_path: Path) -> None:
    """Alone in its federation it has all the weight, and its parts must make the same model."""
    found = set()
    for weights in ("samples", "uniform", "given"):
        raw = configured(tmp_path, {"split": 2})
        raw["task"] |= {"num_samples_min": 5, "num_samples_max": 5}
        raw["federation"] |= {"strategy": {"kind": "fedavg", "weights": weights}, "rounds": 1}
        del raw["federation"]["members"][1]
        state = load_file(Path(run(from_mapping(raw))["run_dir"]) / "model.safetensors")
        found.add(tuple(round(float(value), 6) for tensor in state.values() for value in tensor.flatten()))
    assert len(found) == 1


@pytest.mark.parametrize("number", [2, 3, 7])
def test_parts_make_up_the_whole(number: int) -> None:
    data = SiteData(TensorDataset(torch.arange(10)), [*range(5)])  # type: ignore[arg-type]
    parts = [part_of(data, part, number) for part in range(number)]
    assert sorted(int(x) for part in parts for (x,) in part.train) == [*range(10)]  # type: ignore[attr-defined]
    assert sorted(part.test[i] for part in parts for i in range(len(part.test))) == [*range(5)]  # type: ignore[arg-type]


def test_a_split_site_written_back_is_read_the_same(tmp_path: Path) -> None:
    config = from_mapping(configured(tmp_path, {"split": 2}))
    assert from_mapping(config.resolved).sites == config.sites


@pytest.mark.parametrize("strategy", ["scaffold", "fednova"])
def test_what_a_strategy_sends_beside_the_model_goes_through_the_parts(strategy: str, tmp_path: Path) -> None:
    """Two sites of as many samples weigh alike by them and without: the split one's parts send the same up."""
    found = set()
    for weights in ("samples", "uniform"):
        raw = configured(tmp_path, {"split": 3})
        raw["task"] |= {"num_samples_min": 30, "num_samples_max": 30}
        raw["federation"]["strategy"] = {"kind": strategy, "weights": weights}
        state = load_file(Path(run(from_mapping(raw))["run_dir"]) / "model.safetensors")
        found.add(tuple(round(float(value), 5) for tensor in state.values() for value in tensor.flatten()))
    assert len(found) == 1
