"""What every attack keeps, and each against its paper in a few lines; the folder is listed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hierfl.errors import ConfigError, DataError
from hierfl.kinds import load, names
from hierfl.learning.attack import Attack
from hierfl.learning.attacks.alie import paper_z

KINDS = names("attack")
FIELDS: dict[str, dict[str, Any]] = {"label_flip": {"num_classes": 3}}
each_kind = pytest.mark.parametrize("kind", KINDS)


def attack(kind: str, **fields: Any) -> Any:
    return load("attack", kind)(**{**FIELDS.get(kind, {}), **fields})


def changes(seed: int = 0, n: int = 7, size: int = 40, dtype: str = "float32") -> NDArray[Any]:
    found = np.random.default_rng(seed).standard_normal((n, size)).astype(dtype)
    found.setflags(write=False)
    return found


def test_the_folder_is_not_empty() -> None:
    assert {"alie", "inner_product", "label_flip", "sign_flip"} <= set(KINDS)


@each_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_change_has_the_shape_and_kind_of_its_own_and_repeats_itself(kind: str, dtype: str) -> None:
    one, rows = attack(kind), changes(dtype=dtype)
    assert isinstance(one, Attack)
    honest = rows[1:] if one.knows_honest else rows[:0]
    sent = one.change(rows[0], honest, 2)
    assert sent.dtype == rows.dtype and sent.shape == rows[0].shape
    assert np.array_equal(sent, one.change(rows[0].copy(), honest.copy(), 2))


@each_kind
def test_an_attack_that_knows_the_honest_sends_the_same_from_every_attacker(kind: str) -> None:
    one, rows = attack(kind), changes()
    if one.knows_honest:
        assert np.array_equal(one.change(rows[0], rows[2:], 2), one.change(rows[1], rows[2:], 2))


def test_sign_flip_turns_its_own_change() -> None:
    own = changes()[0]
    assert np.array_equal(attack("sign_flip").change(own, own[:0], 1), own * np.float32(-10))


def test_inner_product_turns_the_honest_mean() -> None:
    rows = changes(dtype="float64")
    sent = attack("inner_product", epsilon=2.0).change(rows[0], rows[1:], 1)
    for i in range(rows.shape[1]):
        assert sent[i] == pytest.approx(-2.0 * sum(float(row[i]) for row in rows[1:]) / 6)
    assert sent @ rows[1:].mean(axis=0) < 0


def test_a_little_is_enough_stays_within_z_deviations() -> None:
    rows = changes(dtype="float64")
    sent = attack("alie", z=1.5).change(rows[0], rows[1:], 1)
    for i in range(rows.shape[1]):
        values = [float(row[i]) for row in rows[1:]]
        mean = sum(values) / len(values)
        deviation = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
        assert sent[i] == pytest.approx(mean - 1.5 * deviation)


@pytest.mark.parametrize(
    ("n", "bad", "below"),
    [(50, 24, 24 / 26), (20, 4, 9 / 16), (10, 1, 4 / 9)],  # s = n // 2 + 1 - bad: 2, 7, 5
)
def test_z_is_the_papers(n: int, bad: int, below: float) -> None:
    from statistics import NormalDist

    z = paper_z(n - bad, bad)
    assert z == pytest.approx(max(0.0, NormalDist().inv_cdf(below)))
    assert (z > 0.0) == (below > 0.5)


def test_labels_are_turned_round_and_features_stay() -> None:
    import torch
    from torch.utils.data import TensorDataset

    x, y = torch.arange(8.0).reshape(4, 2), torch.tensor([0, 1, 2, 2])
    poisoned = attack("label_flip").poison(TensorDataset(x, y))
    assert torch.equal(poisoned.tensors[0], x) and poisoned.tensors[1].tolist() == [2, 1, 0, 0]
    with pytest.raises(DataError, match=r"labels go from 0 to 2, and num_classes 2"):
        attack("label_flip", num_classes=2).poison(TensorDataset(x, y))
    with pytest.raises(DataError, match="whole numbers"):
        attack("label_flip").poison(TensorDataset(x, y.float()))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("sign_flip", {"factor": 0.0}),
        ("alie", {"z": -1.0}),
        ("inner_product", {"epsilon": float("inf")}),
        ("label_flip", {"num_classes": 1}),
    ],
)
def test_fields_out_of_range_are_refused_by_name(kind: str, fields: dict[str, float]) -> None:
    (name,) = fields
    with pytest.raises(ConfigError, match=f"^{name} is "):
        attack(kind, **fields)
