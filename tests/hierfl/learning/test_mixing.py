"""Mixing of models that differ, against plain floats, and where it must be exact."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from hierfl.errors import UpdateRefused
from hierfl.learning.mixing import average, mix
from hierfl.learning.ring import Accumulator, Grid, PartialSum, decode, sum_all
from hierfl.learning.state import Layout, ModelState

SIZES = (40, 3, 57, 100)
TOTAL = sum(SIZES)
RANDOM = np.random.default_rng(0)


def layout(dtype: str, num: int = 70_000) -> Layout:
    return Layout.of({"w": ((num,), dtype), "n": ((3,), "int64")})


def model(dtype: str, num: int = 70_000) -> ModelState:
    return ModelState(RANDOM.standard_normal(num).astype(dtype), RANDOM.integers(0, 99, 3))


def update(grid: Grid, lay: Layout, start: ModelState, end: ModelState, weight: int) -> PartialSum:
    own = Accumulator(grid, lay)
    own.add_update(end, start, weight)
    return own.total()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [32, 64])
def test_against_plain_floats(width: int, dtype: str) -> None:
    grid, lay = Grid(width, 8.0, TOTAL, dtype), layout(dtype)
    starts, ends = ([model(dtype) for _ in SIZES] for _ in range(2))
    parts = [update(grid, lay, *pair, size) for *pair, size in zip(starts, ends, SIZES, strict=True)]
    taken = [Fraction(1, 2), Fraction(1, 3), Fraction(0), Fraction(1, 6)]
    found = mix(grid, lay, 1, taken, TOTAL, starts, parts)
    expected = sum(float(part) * end.floats.astype(np.float64) for part, end in zip(taken, ends, strict=True))
    exact = np.finfo(dtype).eps * 4 + grid.step * sum(TOTAL / size for size in SIZES)
    assert np.abs(found.floats - expected).max() < exact and found.floats.dtype == dtype
    ints = sum(part * int(end.ints[0]) for part, end in zip(taken, ends, strict=True))
    assert abs(int(found.ints[0]) - ints) <= 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [32, 64])
def test_from_one_model_with_the_weights_of_a_star_it_has_its_bits(width: int, dtype: str) -> None:
    grid, lay = Grid(width, 8.0, TOTAL, dtype), layout(dtype)
    start = model(dtype)
    parts = [update(grid, lay, start, model(dtype), size) for size in SIZES]
    delta, counted = decode(sum_all(parts, grid, lay), grid)
    taken = [Fraction(size, TOTAL) for size in SIZES]
    copies = [ModelState(start.floats.copy(), start.ints.copy()) for _ in SIZES]
    for own in range(len(SIZES)):
        found = mix(grid, lay, own, taken, TOTAL, copies, parts)
        assert np.array_equal(found.floats, start.floats + delta) and np.array_equal(found.ints, start.ints + counted)


def test_who_is_alone_has_its_own_training() -> None:
    grid, lay = Grid(64, 8.0, TOTAL, "float32"), layout("float32")
    start, end = model("float32"), model("float32")
    found = mix(grid, lay, 0, [Fraction(1)], TOTAL, [start], [update(grid, lay, start, end, 3)])
    assert np.abs(found.floats - end.floats).max() < 1e-6 and np.array_equal(found.ints, end.ints)


def test_the_mean_of_equal_models_is_their_very_bits_and_of_others_the_weighted_mean() -> None:
    tiny = ModelState(np.array([1e-30, -3e-9, 0.1, 7.0], np.float32), np.array([5]))
    same = average(8.0, SIZES, [ModelState(tiny.floats.copy(), tiny.ints.copy()) for _ in SIZES])
    assert np.array_equal(same.floats, tiny.floats) and np.array_equal(same.ints, tiny.ints)
    models = [model("float32") for _ in SIZES]
    found = average(8.0, SIZES, models)
    expected = np.average([one.floats.astype(np.float64) for one in models], axis=0, weights=SIZES)
    assert np.abs(found.floats - expected).max() < 1e-6
    turned = average(8.0, [*SIZES[:1], *SIZES[:0:-1]], [models[0], *models[:0:-1]])
    assert np.array_equal(turned.floats, found.floats), "in any order after the first"


@pytest.mark.parametrize("value", [9.0, float("nan")])
def test_models_too_far_apart_are_refused_by_name(value: float) -> None:
    grid, lay = Grid(32, 8.0, TOTAL, "float32"), layout("float32")
    one, other = (ModelState(np.zeros(70_000, np.float32), np.zeros(3, np.int64)) for _ in range(2))
    other.floats[66_000] = value
    arguments: Any = (grid, lay, 0, [Fraction(1, 2)] * 2, TOTAL, [one, other])
    with pytest.raises(
        UpdateRefused, match=r"apart by more than the clip of 8; mix more .*\n  in detail: w\[66000\] is (9|nan) apart"
    ):
        mix(*arguments)
