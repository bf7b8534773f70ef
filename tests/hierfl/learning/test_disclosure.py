"""What a site's column would tell of single records is kept back, or rounded; what is usual is told."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hierfl.config.learning import Statistics
from hierfl.learning.disclosure import together
from hierfl.learning.statistics import Column, statistics_of


def column(values: Any, **wanted: Any) -> Column:
    return statistics_of(pa.table({"x": pa.array(values)}), Statistics(**wanted)).columns["x"]


def near(seed: int = 0, n: int = 200) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(60, 9, n)


def guess(told: Column, second: float) -> float:
    """Who knows the second farthest takes it out, and says that the farthest is as far as the rest's moments allow."""
    mean, std = told.moments.mean_and_std()
    count, total = told.moments.count - 1, mean[0] * told.moments.count - second
    squares = (std[0] ** 2 + mean[0] ** 2) * told.moments.count - second**2
    return float(total / count + math.sqrt((squares / count - (total / count) ** 2) * (count - 1)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("far", [100.0, 250.0, 350.0, 400.0, 1000.0, 1e4, 1e6])
def test_no_one_can_tell_the_farthest_value_by_sum_and_sum_of_squares(far: float, seed: int) -> None:
    values = near(seed)
    middle = np.median(values)
    second = float(values[np.abs(values - middle).argmax()])
    told = column([*values, far])
    assert bool(told.moments.count) is (far < 300)
    freely = column([*values, far], min_count=2)
    is_near = abs(guess(freely, second) - far) < 0.1 * (far - middle)
    assert not told.moments.count or not is_near
    assert is_near or far < 400, "what is kept back would have been told"


@pytest.mark.parametrize(
    "draw",
    [
        lambda random, n: random.normal(60, 9, n),
        lambda random, n: random.exponential(3, n),
        lambda random, n: random.lognormal(0, 0.5, n),
        lambda random, n: random.lognormal(0, 1, n),
        lambda random, n: random.integers(20, 90, n).astype(float),
        lambda random, n: random.normal(60, 9, n).round(1),
    ],
)
def test_columns_with_the_usual_tails_are_told(draw: Callable[[np.random.Generator, int], Any]) -> None:
    random = np.random.default_rng(0)
    for n, least in ((100, 54), (300, 58), (1000, 59)):
        columns = [draw(random, n) for _ in range(60)]
        told = [column(one) for one in columns]
        assert sum(bool(one.moments.count) for one in told) >= least
        for one, values in zip(told, columns, strict=True):
            assert not one.moments.count or one.moments.mean_and_std()[0][0] == pytest.approx(values.mean(), rel=1e-6)


def test_what_bins_and_counts_by_value_tell_of_the_others_is_known() -> None:
    """Who has a histogram knows the others' sum of squares as near as its bins are wide: the rest is the far one's."""
    ages, asked = near(), {"ranges": {"x": [20.0, 80.0]}, "bins": 20}
    assert column([*ages, 120.0]).moments.count and not column([*ages, 120.0], **asked).moments.count
    assert column(ages, **asked).moments.count and column([*ages, 88.0], **asked).moments.count
    doses = [0.0, 10.0, 20.0, 30.0] * 20
    for others, is_told in (([41.0, 55.0, 63.0, 77.0, 92.0], True), ([41.0, 42.0, 43.0, 44.0, 500.0], False)):
        told = column([*doses, *others])
        assert told.others == 5 and bool(told.moments.count) is is_told


STEPS = {"fives": 5.0, "halves": 0.5, "eighths": 0.125, "thirds": 1 / 3, "inches": 2.54, "pounds": 0.45359237}


@pytest.mark.parametrize("is_narrow", [False, True])
@pytest.mark.parametrize("steps", [40, 400])
@pytest.mark.parametrize("name", STEPS)
def test_values_between_steps_that_most_are_multiples_of_are_in_no_sum(name: str, steps: int, is_narrow: bool) -> None:
    step, random = STEPS[name], np.random.default_rng(0)
    on = step * random.integers(steps, 2 * steps, 200)

    def told(share: float) -> Column:
        values = np.array([*on, (steps + 7 + share) * step, (steps + 21 - share / 2) * step])
        return column((values.astype(np.float32) if is_narrow else values).tolist())

    assert told(0.37).moments == told(0.24).moments and told(0.37).moments.count == 202
    assert told(0.37).as_json(None)["mean"] == pytest.approx(told(0.0).as_json(None)["mean"], rel=1e-6)


def test_steps_may_begin_anywhere_and_be_coarse() -> None:
    random = np.random.default_rng(0)
    celsius = (random.integers(960, 1060, 200) / 10 - 32) / 1.8  # of Fahrenheit
    assert column([*celsius, 38.01]).moments == column([*celsius, 38.02]).moments
    minutes = 1.7e9 + 60.0 * random.integers(0, 5000, 200)
    told = column([*minutes, 1.7e9 + 7207])
    assert told.moments == column([*minutes, 1.7e9 + 7190]).moments and told.moments.count == 201
    ages = 5.0 * random.integers(4, 28, 100)
    assert column([*ages, 63.0], max_values=5).moments == column([*ages, 65.0], max_values=5).moments
    often = np.repeat(np.arange(20.0, 140.0, 5.0), 6)
    for odd in ([63.0], [22.0, 47.0, 63.0, 88.0]):  # between all that are looked at, too
        assert column([*often, *odd]).moments == column([*often, *(5 * np.round(np.array(odd) / 5))]).moments
    assert column([*often, *often[:5] + 1]).moments.count, "so many may lie between"


@given(st.lists(st.integers(0, 12) | st.just(0), min_size=4, max_size=24), st.integers(1, 12))
def test_bins_put_together_add_up(counts: list[int], least: int) -> None:
    if sum(counts) < least:
        counts[0] += least
    told, where = together(counts, least)
    assert sum(told) == sum(counts) and all(number == 0 or number >= least for number in told)
    assert all(told[where[place]] for place, count in enumerate(counts) if count)
    assert sorted(where) == where
    if all(count == 0 or count >= least for count in counts):
        assert list(told) == counts


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ([3, 1, 1, 20, 0], (0, 5, 0, 20, 0)),
        ([1, 3, 1, 20, 0], (0, 5, 0, 20, 0)),  # where in a group they are is not seen
        ([0, 0, 50, 60, 0, 0, 0, 0, 1, 0], (0, 0, 50, 56, 0, 0, 5, 0, 0, 0)),
        ([0, 0, 50, 60, 0, 1, 0, 2, 1, 0], (0, 0, 50, 59, 0, 0, 5, 0, 0, 0)),
        ([1, 0, 0, 0, 40, 6, 0], (0, 0, 5, 0, 36, 6, 0)),
        ([0, 0, 7, 0, 1, 0], (0, 0, 0, 8, 0, 0)),
    ],
)
def test_a_group_is_told_half_way_wherever_in_it_its_values_are(counts: list[int], told: tuple[int, ...]) -> None:
    assert together(counts, 5)[0] == told


def test_codes_are_not_counted_beside_training_records_that_are_nearly_all() -> None:
    """The sum over training records of a feature that is 0 or 1 counts them, too."""
    table = pa.table({"sex": [0, 1] * 50, "word": ["a", "b"] * 50, "day": [datetime.date(2027, 1, 1)] * 100})
    asked = [statistics_of(table, Statistics(ranges=ranges)) for ranges in ({}, {"sex": [0.0, 2.0]})]
    for found in asked:
        kept = found.beside_training(98, 5).columns
        assert kept["sex"] == Column("number", num_withheld=1) and kept["word"] == Column("category", num_withheld=1)
        assert kept["day"] == Column("other", 100)
        for num_train, least in ((100, 5), (95, 5), (0, 5), (98, 1), (98, 2)):
            assert found.beside_training(num_train, least) == found
