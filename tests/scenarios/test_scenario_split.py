"""A site that is split over devices: the same bits whoever does the parts, and what a hub of its parts would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from hierfl.config import from_mapping
from hierfl.learning.parts import part_of
from hierfl.learning.task import SiteData
from hierfl.lifecycle import run


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


@pytest.mark.parametrize("number", [2, 3, 7])
def test_parts_make_up_the_whole(number: int) -> None:
    data = SiteData(TensorDataset(torch.arange(10)), [*range(5)])  # type: ignore[arg-type]
    parts = [part_of(data, part, number) for part in range(number)]
    assert sorted(int(x) for part in parts for (x,) in part.train) == [*range(10)]  # type: ignore[attr-defined]
    assert sorted(part.test[i] for part in parts for i in range(len(part.test))) == [*range(5)]  # type: ignore[arg-type]


def test_a_split_site_written_back_is_read_the_same(tmp_path: Path) -> None:
    config = from_mapping(configured(tmp_path, {"split": 2}))
    assert from_mapping(config.resolved).sites == config.sites
