"""A record's gradient is its own, however a task makes batches, and whatever its layers give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from series_task import Padding, network, series
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from hierfl.errors import SiteFailed
from hierfl.learning.flat import FlatModel
from hierfl.learning.per_record import UNITS, PerRecord

BOUND = 0.3


class LongFirst(Padding):
    """Puts time before the records, as recurrent layers have it unless told."""

    def collate(self, samples: Sequence[Any]) -> Any:
        series, labels = zip(*samples, strict=True)
        return {"x": pad_sequence([*series]), "y": torch.tensor(labels)}

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch["x"]).mean(dim=0), batch["y"])


class Mixing(Padding):
    """Mixes each sample with the next one of its batch (mixup)."""

    def collate(self, samples: Sequence[Any]) -> Any:
        whole = super().collate(samples)
        return {**whole, "x": 0.5 * (whole["x"] + whole["x"].roll(1, dims=0))}


class Telling(Padding):
    """Puts a number beside the tensors, which torch.func cannot take."""

    def collate(self, samples: Sequence[Any]) -> Any:
        return {**super().collate(samples), "longest": max(len(one) for one, _ in samples)}


def summed(task: Any, data: Any, at_once: int | None, model: FlatModel | None = None) -> Any:
    return PerRecord(model or network(), task, data, BOUND, at_once).clipped_sum(torch.arange(len(data)))


@pytest.mark.parametrize("lengths", [(4, 9, 4, 2, 9, 6), (4, 4, 4, 4)])
@pytest.mark.parametrize("task", [Padding(), LongFirst(), Mixing()], ids=lambda task: type(task).__name__)
def test_a_batch_of_the_tasks_own_making_has_one_record_alone(task: Any, lengths: Sequence[int]) -> None:
    data: Any = series(lengths)
    each = [summed(task, [one], 4) for one in data]
    assert np.abs(summed(task, data, 4) - sum(each)).max() < 1e-6 * UNITS
    assert np.abs(summed(task, data, None) - sum(each)).max() < 1e-6 * UNITS
    without = summed(task, data[:1] + data[2:], 4)
    assert np.linalg.norm(summed(task, data, 4) - without) <= 1.000001 * UNITS


def test_what_cannot_be_taken_at_once_is_told_so_and_goes_one_after_another() -> None:
    data: Any = series()
    with pytest.raises(SiteFailed, match="method: loop"):
        summed(Telling(), data, 4)
    assert np.array_equal(summed(Telling(), data, None), summed(Padding(), data, None))


def test_a_sparse_gradient_is_taken_as_any_other() -> None:
    def rows(sparse: bool) -> FlatModel:
        torch.manual_seed(3)
        return FlatModel(nn.Sequential(nn.Embedding(7, 4, sparse=sparse), nn.Linear(4, 3)))

    generator = torch.Generator().manual_seed(2)
    data: Any = [(torch.randint(0, 7, (5,), generator=generator), place % 3) for place in range(6)]
    found = [summed(Padding(), data, None, rows(sparse)) for sparse in (False, True)]
    assert np.array_equal(*found) and found[0].any()
