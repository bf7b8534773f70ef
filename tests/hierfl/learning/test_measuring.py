"""Predictions are counted in parts of bounded size, with the figures of the whole."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from hierfl.config.schema import Evaluation
from hierfl.learning import measuring
from hierfl.learning.measuring import measure
from hierfl.learning.task import Prediction

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Voxels:
    """Each sample is a volume, whose voxels are told into classes; `own`: a metric of each voxel, or that alone."""

    own: str = ""
    classes: int = 4

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return (batch[0] ** 2).mean() if len(batch[0]) else torch.tensor(float("nan"))

    def predict(self, model: nn.Module, batch: Any) -> Prediction:
        flat = batch[0].reshape(-1)
        scores = torch.softmax(torch.stack([flat * k for k in range(self.classes)], 1), 1)
        own = {"dose": flat} if self.own else {}
        if self.own == "alone":
            return Prediction(own=own)
        return Prediction(scores, batch[1], own)


def volumes(num: int, size: int) -> TensorDataset:
    chance = np.random.default_rng(num)
    x = torch.from_numpy(chance.normal(size=(num, size, size)).astype(np.float32))
    return TensorDataset(x, torch.from_numpy(chance.integers(0, 4, (num, size, size))))


def told(task: Any, data: Dataset[Any], **settings: Any) -> Any:
    return measure(nn.Identity(), task, data, Evaluation(**settings), CPU)


@pytest.mark.parametrize("own", ["", "beside", "alone"])
@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_parts_have_the_figures_of_the_whole(monkeypatch: pytest.MonkeyPatch, own: str, batch_size: int) -> None:
    data = volumes(10, 7)
    whole = told(Voxels(own), data, batch_size=batch_size)
    for most in (1, 40, 49, 100):
        monkeypatch.setattr(measuring, "MANY", most)
        parts = told(Voxels(own), data, batch_size=batch_size)
        assert parts.num_samples == whole.num_samples == 490
        for name, figure in whole.scalars().items():
            assert np.allclose(parts.scalars()[name], figure, rtol=0, atol=1e-9), name
        for ours, theirs in zip(parts.curves, whole.curves, strict=True):
            assert (ours.positives == theirs.positives).all() and (ours.scores == theirs.scores).all()


@pytest.mark.parametrize("own", ["", "beside", "alone"])
def test_where_one_part_is_not_finite_nothing_of_the_site_counts(monkeypatch: pytest.MonkeyPatch, own: str) -> None:
    data = volumes(6, 5)
    data.tensors[0][4, 2, 2] = float("nan")
    whole = told(Voxels(own), data, batch_size=2)
    assert whole.num_left_out == whole.num_samples == 150 and whole.num_not_finite == 1
    monkeypatch.setattr(measuring, "MANY", 20)
    assert told(Voxels(own), data, batch_size=2) == whole


def test_memory_does_not_grow_with_the_number_of_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "MANY", 1 << 14)
    peaks = []
    for num in (20, 60):
        data = volumes(num, 128)
        tracemalloc.start()
        told(Voxels(), data, batch_size=2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


class Pictures(Dataset[Any]):
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return 3000

    def __getitem__(self, index: int) -> Any:
        return {"image": torch.zeros(3, self.size, self.size), "mask": [np.zeros((self.size, self.size))], "id": index}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (TensorDataset(torch.zeros(5, 13), torch.zeros(5)), 1024),
        (TensorDataset(torch.zeros(2, 1, 512, 512), torch.zeros(2, 512, 512)), 8),
        (Pictures(224), 20),
        (Pictures(4096), 1),
    ],
)
def test_large_samples_are_measured_few_at_once(data: Dataset[Any], expected: int) -> None:
    assert measuring._at_once(data) == expected
