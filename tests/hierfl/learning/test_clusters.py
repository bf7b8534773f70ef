"""Intervals hold where patients have several samples, and what they are made of adds up in any order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import TensorDataset

from hierfl.config.schema import Evaluation
from hierfl.learning import measuring
from hierfl.learning.clusters import Clusters, Right, Size, Spread
from hierfl.learning.intervals import alike, effective, intervals, wilson
from hierfl.learning.labels import tally_of_labels
from hierfl.learning.metrics import Tally
from hierfl.learning.task import Prediction

Z = NormalDist().inv_cdf(0.975)
SAMPLES = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 9).map(lambda n: n / 10), st.integers(0, 2)), min_size=1, max_size=30
)


def tally_of(samples: Sequence[tuple[int, float, int]], classes: int = 2) -> Tally:
    """Count (patient, score, class) of one site."""
    owners, scores, labels = (np.array(one) for one in zip(*samples, strict=True))
    labels = labels % classes
    if classes == 3:
        scores = np.stack([scores / 2, 0.5 - scores / 2, np.full(len(scores), 0.5)], axis=1)
    owners, spread = np.unique(owners, return_inverse=True)[1], Spread(len(set(owners.tolist())))
    spread.add(owners, scores, labels)
    return replace(Tally.of(scores, labels, loss_sum=1.0), clusters=spread.clusters())


def intervals_of(tally: Tally, *, with_patients: bool = True) -> dict[str, list[float]]:
    return intervals(tally.scalars(), tally.told_apart, 0.95, clusters=tally.clusters if with_patients else None)


@given(st.lists(SAMPLES, min_size=1, max_size=5), st.integers(2, 3), st.randoms(use_true_random=False))
def test_they_add_up_in_any_order_and_grouping(sites: list[Any], classes: int, random: Any) -> None:
    """As of one site that has all patients of the others, none of whom is in two."""
    whole = tally_of([(100 * at + who, *rest) for at, site in enumerate(sites) for who, *rest in site], classes)
    parts = [tally_of(site, classes) for site in sites]
    assert Tally.total(parts).clusters == whole.clusters
    while len(parts) > 1:
        random.shuffle(parts)
        parts = [parts[0] + parts[1], *parts[2:]]
    assert parts[0].clusters == whole.clusters and parts[0] + Tally() == parts[0]


@given(SAMPLES, st.integers(2, 3))
def test_with_one_sample_each_they_are_the_plain_ones_bit_for_bit(samples: list[Any], classes: int) -> None:
    found = tally_of([(place, *rest) for place, (_, *rest) in enumerate(samples)], classes)
    assert found.clusters is not None and found.clusters == Clusters.alone(*found.numbers())
    at = {"operating_sensitivity": 0.5, "operating_specificity": 0.25}
    told = {**found.scalars(), **({name: share for name, share in at.items() if classes == 2})}
    plain, by_patient = (intervals(told, found.told_apart, 0.95, clusters=one) for one in (None, found.clusters))
    assert {name: list(map(float.hex, ends)) for name, ends in by_patient.items()} == {
        name: list(map(float.hex, ends)) for name, ends in plain.items()
    }


@given(SAMPLES, SAMPLES)
def test_who_does_not_know_patients_has_one_for_each_sample(known: list[Any], unknown: list[Any]) -> None:
    plain = replace(tally_of(unknown), clusters=None)
    alone = tally_of([(place, *rest) for place, (_, *rest) in enumerate(unknown)])
    assert (tally_of(known) + plain).clusters == (tally_of(known) + alone).clusters
    assert (plain + plain).clusters is None
    left_out = Tally(num_samples=4, num_not_finite=1, num_left_out=4)
    assert (tally_of(known) + left_out).clusters == tally_of(known).clusters


@given(SAMPLES)
def test_the_effective_number_is_the_paper_s(samples: list[Any]) -> None:
    """Rao & Scott 1992 patient by patient, before the correction for few of them."""
    found = tally_of(samples)
    assert found.clusters is not None and found.confusion is not None
    size, spread, n = found.clusters.sizes[0], found.clusters.right[0], len(samples)
    right: dict[int, list[int]] = {}
    for who, score, label in samples:
        right.setdefault(who, []).append(int((score > 0.5) == (label % 2 == 1)))
    good, m = sum(map(sum, right.values())), len(right)
    assert size == Size(m, sum(len(one) ** 2 for one in right.values()))
    assert spread == Right(sum(sum(one) ** 2 for one in right.values()), sum(sum(r) * len(r) for r in right.values()))
    number, kish = effective(good, n, size, spread, Z), alike(n, size)
    if m == 1 or good in (0, n):
        assert number == kish
        return
    p = Fraction(good, n)
    variance = Fraction(m, m - 1) * sum((sum(one) - p * len(one)) ** 2 for one in right.values()) / n**2
    by_the_paper = float(n / max(Fraction(1), variance / (p * (1 - p) / (n - 1))))
    assert min(kish, by_the_paper) * (1 - 1e-9) <= number <= by_the_paper * (1 + 1e-9)


@pytest.mark.parametrize(("freedom", "exact"), [(2, 4.3027), (4, 2.7764), (9, 2.2622), (29, 2.0452), (10**6, Z)])
def test_few_patients_widen_an_interval_by_student_s_t(freedom: int, exact: float) -> None:
    """2000 samples of each patient, half of whose are right: the effect is 1, and t's quantile is what is left."""
    m = freedom + 1
    number, size = 2000 * m, Size(m, 2000**2 * m)
    plain = 1000 * m, number, size, Right(1000**2 * m, 1000 * 2000 * m)
    found = effective(*plain, Z)
    assert found == pytest.approx(max(m, number * (NormalDist().inv_cdf(0.975) / exact) ** 2), rel=0.02)


def test_where_nothing_can_be_estimated_a_patient_s_samples_are_all_alike() -> None:
    size = Size(10, 10 * 49)
    for right, spread in ((70, Right(490, 490)), (0, Right())):
        assert effective(right, 70, size, spread, Z) == 10
    assert effective(3, 7, Size(1, 49), Right(9, 21), Z) == 1
    assert wilson(70, 70, Z, 10) == pytest.approx(wilson(10, 10, Z))
    two = tally_of([(0, 0.9, 1)] * 9 + [(1, 0.8, 1)] + [(2, 0.2, 0), (3, 0.1, 0), (4, 0.85, 0)])
    assert "auc" in intervals_of(two, with_patients=False) and "auc" not in intervals_of(two), "1.2 positives"


def test_the_intervals_hold_the_truth_as_often_as_they_say_where_samples_go_together() -> None:
    """1000 draws of 60 patients with 1 to 10 samples of one class, whose scores have a correlation of 0.8."""
    chance, m, most, together = np.random.default_rng(7), 60, 10, 0.8
    hits: dict[str, dict[str, int]] = {}
    normal = NormalDist()
    truth = {"auc": normal.cdf(1 / math.sqrt(2)), **dict.fromkeys(("accuracy", "sensitivity"), normal.cdf(0.5))}
    truth |= {"specificity": normal.cdf(0.5), "operating_sensitivity": normal.cdf(1.0)}
    for _ in range(1000):
        owners = np.repeat(np.arange(m), chance.integers(1, most + 1, m))
        labels = (np.arange(m) < m // 2)[owners].astype(int)
        noise = math.sqrt(together) * chance.standard_normal(m)[owners]
        latent = labels - 0.5 + noise + math.sqrt(1 - together) * chance.standard_normal(len(owners))
        scores, spread = 1 / (1 + np.exp(-latent)), Spread(m)
        spread.add(owners, scores, labels)
        tally = Tally.of(scores, labels, loss_sum=0.0)
        told = {**tally.scalars(), "operating_sensitivity": float((latent[labels == 1] > -0.5).mean())}
        for way, clusters in (("by patient", spread.clusters()), ("by sample", None)):
            for name, (low, high) in intervals(told, tally.told_apart, 0.95, clusters=clusters).items():
                held = hits.setdefault(name, {"by patient": 0, "by sample": 0})
                held[way] += name in truth and low <= truth[name] <= high
    for name in truth:
        by_patient, by_sample = hits[name]["by patient"] / 1000, hits[name]["by sample"] / 1000
        assert 0.925 < by_patient < 0.995 and by_sample < 0.75, (name, by_patient, by_sample)


def test_labels_have_the_numbers_of_each() -> None:
    labels = np.array([[1, 0], [1, -1], [0, 1], [1, 0]])
    owners, spread, again = np.array([0, 0, 1, 1]), Spread(2), Spread(2)
    known = labels >= 0
    spread.add_labels(owners, labels, known, has_curves=True)
    assert spread.clusters() == Clusters((Size(2, 25), Size(2, 5), Size(1, 1), Size(1, 1), Size(2, 2)))
    again.add_labels(owners, labels, known, has_curves=False)
    assert again.clusters() == Clusters((Size(2, 25),))
    tally = tally_of_labels(np.full((4, 2), 0.4), labels.astype(float), ("a", "b"), loss_sum=1.0)
    told = {"operating_sensitivity_a": 2 / 3, "operating_specificity_b": 1.0}
    by_patient = intervals(told, tally.told_apart, 0.95, labels=True, clusters=spread.clusters())
    assert by_patient["operating_sensitivity_a"] == list(wilson(2, 3, Z, 9 / 5))
    assert by_patient["operating_specificity_b"] == list(wilson(2, 2, Z, 2.0))


@dataclass(frozen=True)
class Scored:
    """Scores and labels as they lie in the data; `shape`: of the predictions, as they are of the batch."""

    flat: bool = False

    def model(self) -> nn.Module:
        return nn.Linear(1, 1)

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return torch.zeros(())

    def predict(self, model: nn.Module, batch: Any) -> Prediction:
        scores, labels = batch
        return Prediction(scores.reshape(-1), labels.reshape(-1)) if self.flat else Prediction(scores.flatten(), labels)


def measured(task: Scored, scores: torch.Tensor, labels: torch.Tensor, owners: Any, batch_size: int) -> Tally:
    data, cpu = TensorDataset(scores, labels), torch.device("cpu")
    evaluation = Evaluation(batch_size=batch_size, intervals=0.95)
    return measuring.measure(task.model(), task, data, evaluation, cpu, 0, owners)  # type: ignore[arg-type]


def test_a_patient_is_one_across_batches_and_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(0)
    owners, scores, labels = chance.integers(0, 7, 90), torch.rand(90), torch.randint(0, 2, (90,))
    owners = np.unique(owners, return_inverse=True)[1]
    expected = tally_of([*zip(owners.tolist(), scores.double().tolist(), labels.tolist(), strict=True)])
    whole = measured(Scored(), scores, labels, owners, 90)
    assert whole.clusters == expected.clusters
    monkeypatch.setattr(measuring, "MANY", 8)
    for size in (7, 90):
        assert measured(Scored(), scores, labels, owners, size).clusters == whole.clusters
    assert measured(Scored(), scores, labels, None, 7).clusters is None
    scores[3] = math.nan
    spoilt = measured(Scored(), scores, labels, owners, 7)
    assert spoilt.num_left_out == 90 and spoilt.clusters is None


def test_several_predictions_of_a_sample_are_its_patient_s_where_they_stand_by_samples() -> None:
    owners, scores, labels = np.array([0, 1, 0]), torch.rand(3, 4), torch.randint(0, 2, (3, 4))
    found = measured(Scored(), scores, labels, owners, 2)
    assert found.clusters is not None and found.clusters.sizes[0] == Size(2, 8**2 + 4**2)
    assert measured(Scored(flat=True), scores, labels, owners, 2).clusters is None
    assert measured(Scored(flat=True), scores, labels, owners, 1) == found


def test_sums_are_exact_beyond_64_bits() -> None:
    spread = Spread(3)
    spread.add(np.array([0, 1, 1, 2]), np.array([0.9, 0.1, 0.9, 0.1]), np.array([1, 1, 0, 0]))
    spread._counts = spread._counts * 2**40
    assert spread.clusters().sizes[0] == Size(3, (1 + 4 + 1) * 2**80)
