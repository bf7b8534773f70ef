"""A patient's gradient is that of all of his or her records, and is clipped as one."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from series_task import Padding, network, series
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from hierfl.config.schema import Training
from hierfl.errors import SiteFailed
from hierfl.learning.noise import Stream
from hierfl.learning.patients import knows_patients, places_by_patient
from hierfl.learning.per_record import UNITS, PerRecord
from hierfl.privacy.dp_sgd import DpSgd

BOUND = 0.3
OWNERS = [7, 2, 7, 7, 9, 2, 9, 4, 4]


class Wards:
    """Plain tensors, the last of which says whose each record is."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    def patients(self, train: Any) -> Any:
        return train.tensors[2]


class Series(Padding):
    """Sequences of unlike lengths."""

    def __init__(self, owners: Any) -> None:
        self.owners = owners

    def patients(self, train: Any) -> Any:
        return self.owners


def table(owners: Any = OWNERS) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(len(owners), 5, generator=generator)
    return TensorDataset(x, torch.arange(len(owners)) % 3, torch.tensor(owners))


def summed(task: Any, data: Any, at_once: int | None, chosen: Any = None) -> Any:
    patients = places_by_patient(task, data)
    made = PerRecord(network(), task, data, BOUND, at_once, patients)
    return made.clipped_sum(torch.arange(len(patients)) if chosen is None else torch.tensor(chosen))


def by_hand(data: TensorDataset) -> Any:
    """Clip the gradient of the mean loss over each patient's records, and add up; in units of C."""
    model = network().module
    total = np.zeros(sum(one.numel() for one in model.parameters()))
    for owner in set(data.tensors[2].tolist()):
        mine = data.tensors[2] == owner
        loss = F.cross_entropy(model(data.tensors[0][mine]), data.tensors[1][mine])
        found = (
            torch.cat([one.reshape(-1) for one in torch.autograd.grad(loss, [*model.parameters()])]).double().numpy()
        )
        total += found / max(np.linalg.norm(found), BOUND)
    return total


@pytest.mark.parametrize("at_once", [None, 1, 2, 32])
def test_all_records_of_a_patient_make_one_gradient(at_once: int | None) -> None:
    assert np.abs(summed(Wards(), table(), at_once) / UNITS - by_hand(table())).max() < 1e-5


@pytest.mark.parametrize("method", ["loop", "vmap"])
def test_a_private_step_follows_the_mean_over_patients(method: str) -> None:
    """With noise too small to see: of records the mean would be another."""
    model, data = network(), table()
    training = Training(batch_size=100, local_steps=1)

    def followed(unit: str) -> Any:
        mechanism = DpSgd(noise_multiplier=1e-6, max_grad_norm=BOUND, unit=unit, method=method)
        [_] = mechanism.gradients(model, cast(Any, Wards()), data, training, 1, Stream(b"key"))
        return torch.cat([one.grad.reshape(-1) for one in model.module.parameters() if one.grad is not None]).numpy()

    expected = by_hand(data) * BOUND / len(set(OWNERS))
    assert np.abs(followed("patient") - expected).max() < 1e-5
    assert np.abs(followed("record") - expected).max() > 1e-3


@pytest.mark.parametrize("at_once", [None, 4])
def test_sequences_of_unlike_lengths_are_padded_within_a_patient(at_once: int | None) -> None:
    data: Any = series()
    whole = summed(Series([1, 1, 2, 3, 3, 3]), data, at_once)
    each = [summed(Series([0] * len(one)), one, None) for one in (data[:2], data[2:3], data[3:])]
    assert np.abs(whole - sum(each)).max() < 1e-5 * UNITS


@pytest.mark.parametrize("at_once", [None, 4])
def test_patients_of_one_record_each_have_the_bits_of_records(at_once: int | None) -> None:
    data = table(list(range(9)))
    alone = PerRecord(network(), Wards(), data, BOUND, at_once).clipped_sum(torch.arange(9))
    assert np.array_equal(summed(Wards(), data, at_once), alone)


@pytest.mark.parametrize("at_once", [None, 4])
def test_a_patient_changes_the_sum_by_the_bound_at_most_however_many_records_there_are(at_once: int | None) -> None:
    owners = [1, 2, 3] + [4] * 30
    data = table(owners)
    data.tensors[0][3:] = 50 * data.tensors[0][3]  # all of one patient's pull one way
    data.tensors[1][3:] = 1
    change = np.linalg.norm(summed(Wards(), data, at_once) - summed(Wards(), data, at_once, [0, 1, 2]))
    assert 0.99 * UNITS < change <= UNITS
    records = PerRecord(network(), Wards(), data, BOUND, at_once)
    by_record = np.linalg.norm(records.clipped_sum(torch.arange(33)) - records.clipped_sum(torch.arange(3)))
    assert by_record > 20 * UNITS


WORDS = [f"p{owner}" for owner in OWNERS]


@pytest.mark.parametrize(
    "owners", [OWNERS, np.array(OWNERS), torch.tensor(OWNERS), WORDS, np.array(WORDS, dtype=object)], ids=str
)
def test_patients_are_known_by_numbers_or_words(owners: Any) -> None:
    found = places_by_patient(Series(owners), OWNERS)  # type: ignore[arg-type]
    assert [places.tolist() for places in found] == [[1, 5], [7, 8], [0, 2, 3], [4, 6]]
    assert places_by_patient(Series([]), []) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "owners", [OWNERS[1:], [0.5] * 9, [None] * 9, None, torch.zeros(9, 1, dtype=torch.int64), [[1]] * 8 + [[]]], ids=str
)
def test_what_says_nothing_of_each_record_is_refused(owners: Any) -> None:
    with pytest.raises(SiteFailed, match="the task's patients"):
        places_by_patient(Series(owners), OWNERS)  # type: ignore[arg-type]


def test_what_was_given_in_place_of_patients_is_told() -> None:
    with pytest.raises(SiteFailed, match=r"gave ndarray of int64, shape \(8,\); needed: for each of the 9 training"):
        places_by_patient(Series(np.array(OWNERS[1:])), OWNERS)  # type: ignore[arg-type]
    with pytest.raises(SiteFailed, match="gave ndarray of object, shape"):
        places_by_patient(Series(np.array([*WORDS[1:], 7], dtype=object)), OWNERS)  # type: ignore[arg-type]
    with pytest.raises(SiteFailed, match=r"gave list of <U32, shape \(9,\), words among others; needed"):
        places_by_patient(Series([*WORDS[1:], float("nan")]), OWNERS)  # type: ignore[arg-type]


def test_a_key_of_the_yaml_is_no_answer() -> None:
    from hierfl.tasks.heart_disease import HeartDisease
    from hierfl.tasks.parquet import Parquet

    assert not knows_patients(HeartDisease(patients="all"))
    assert not knows_patients(Parquet(features=["x"], label="y"))
    assert knows_patients(Parquet(features=["x"], label="y", patient="pid"))
