"""What a site tells of its table adds up, and no number of it stands for fewer records than was agreed."""

from __future__ import annotations

import datetime
import decimal
import math
from functools import reduce
from itertools import permutations, product
from operator import add
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Subset, TensorDataset

from hierfl.config.learning import Statistics
from hierfl.errors import DataError
from hierfl.learning.statistics import Column, TableStatistics, as_table, statistics_of
from hierfl.learning.task import SiteData

NUMBERS = st.lists(st.none() | st.floats(-50, 150, width=32) | st.sampled_from([0.0, 1.0, 2.0]), max_size=60)
WORDS = st.lists(st.none() | st.sampled_from(["a", "b", "c", "d", "e" * 65]), max_size=60)
RANGES = {"x": [0.0, 100.0]}


def column(values: list[Any], **wanted: Any) -> Column:
    return statistics_of(pa.table({"x": pa.array(values)}), Statistics(**wanted)).columns["x"]


def told_numbers(found: Column) -> list[int]:
    """All numbers of records that somebody could read."""
    return [found.count, *(found.values or {}).values(), found.others, *(found.bins or ()), found.moments.count]


@given(NUMBERS | WORDS, st.integers(1, 12), st.integers(0, 4), st.integers(2, 9))
def test_no_number_stands_for_fewer_records_than_agreed(values: list[Any], least: int, most: int, bins: int) -> None:
    found = column(values, min_count=least, max_values=most, bins=bins, ranges=RANGES)
    assert all(number == 0 or number >= least for number in told_numbers(found))
    there = [value for value in values if value is not None]
    assert found.missing == len(values) - len(there)
    assert (found.count, found.num_withheld) == ((0, 1) if 0 < len(there) < least else (len(there), 0))
    for parts in (found.bins, None if found.values is None else [*found.values.values(), found.others]):
        assert parts is None or sum(parts) == found.count
    assert len(found.values or ()) <= most


@pytest.mark.parametrize("most", [0, 20])
@pytest.mark.parametrize("ranges", [{}, {"x": [0, 3]}])
def test_who_knows_which_values_there_can_be_cannot_reckon_how_often_a_rare_one_is_there(
    most: int, ranges: dict[str, list[float]]
) -> None:
    """What is told are equations in how often 0, 1 and 2 are there, which have several solutions."""
    every = np.array([counts for counts in product(range(15), repeat=3) if sum(counts) < 15])
    sums, squares = every @ [0, 1, 2], every @ [0, 1, 4]
    for place, counts in enumerate(every):
        told = column(np.repeat(np.arange(3.0), counts).tolist(), min_count=4, max_values=most, bins=3, ranges=ranges)
        alike = every.sum(axis=1) == told.count
        if told.moments.count:
            alike &= (sums == sums[place]) & (squares == squares[place])
        for value, number in (told.values or {}).items():
            alike &= every[:, int(value)] == number
        for value in range(3):
            assert not 0 < counts[value] < 4 or not told.count or len(set(every[alike, value])) > 1, (counts, told)


def test_moments_that_would_count_few_records_are_kept_back() -> None:
    assert column([0.0] * 100 + [1.0] * 3).moments.count == 0
    assert column([0.0] * 100 + [50.5] * 3).moments.count == 0
    assert column([0.0] * 100 + [1.0] * 3 + [2.0] * 4, max_values=0).moments.count == 0
    assert column([float(age) for age in range(30, 95)] * 5 + [100.0]).moments.count == 65 * 5 + 1
    assert column([float(age) for age in range(20, 100)] * 5 + [110.0], bins=90, ranges=RANGES).moments.count == 0
    assert column([36.5, 36.7, 37.0, 37.5, 37.9, 38.3]).moments.count == 6
    both = column([0.0] * 100 + [1.0] * 3) + column([0.0] * 5 + [1.0] * 5)
    said = both.as_json(None)
    assert (said["count"], said["mean"], said["std"], said["mean_of"]) == (113, 0.5, 0.5, 10)
    assert (said["values"], said["others"]) == ({"0": 5, "1": 5}, 103)
    assert column([0.0] * 6, ranges=RANGES).as_json([0, 100])["mean"] == 0


@pytest.mark.parametrize(
    ("far", "least", "is_told"),
    [
        ([], 5, True),
        ([1e6], 5, False),
        ([-1e6], 5, False),
        ([1e6, 999.5], 5, False),  # who has the second farthest knows the farthest
        ([1e6, 1.1e6], 5, False),
        ([1e6, 1.1e6, 9e5], 5, True),
        ([1e6, 1.1e6, 3e5], 5, False),  # by the squares
        ([4000.5], 5, False),
        ([250.5], 5, True),
        ([1e6], 2, True),
    ],
)
def test_a_mean_that_would_tell_one_value_is_kept_back(far: list[float], least: int, is_told: bool) -> None:
    near = np.random.default_rng(0).normal(60, 9, 200).tolist()
    told = column([*near, *far], min_count=least)
    assert told.count == 200 + len(far) and bool(told.moments.count) is is_told
    same = column([60.0] * 30, min_count=least)
    assert same.moments.count == 30, "of values that are all the same none is far"


def test_digits_that_few_values_have_are_in_no_sum() -> None:
    ages = np.random.default_rng(0).integers(20, 80, 200).astype(float).tolist()
    rounded = column([*ages, 1.0, 34.0])
    assert column([*ages, 1.25, 33.75]).moments == rounded.moments and rounded.moments.count == 202
    many = [age + 0.25 for age in ages[:5]]
    assert column([*ages[5:], *many]).moments != column(ages).moments, "so many may have digits of their own"
    tenths = [round(age / 7, 1) for age in ages]
    assert column([*tenths, 5.123]).moments == column([*tenths, 5.1]).moments
    assert column([*(10 * age for age in ages), 333.0]).moments == column([*(10 * age for age in ages), 330.0]).moments
    tens = [10.0 * (number % 30) for number in range(200)]
    assert column([*tens, 73.0]).moments == column([*tens, 70.0]).moments
    few = [10.0, 20.0, 30.0, 40.0, 50.0]
    assert column([*few, 73.0, 84.0, 95.0, 106.0]).moments.count == 0, "that would be no fine rounding"
    measured = np.random.default_rng(1).normal(60, 9, 300).astype(np.float32).astype(float)
    assert column(measured.tolist()).moments.count == 300


def test_a_column_is_told_by_value_or_by_bin() -> None:
    values = [1.0] * 20 + [2.0] * 2 + [3.0] * 9 + [4.0] * 6  # by value 17 are others; by bin 9 + 2 are one
    assert column(values, ranges={"x": [1, 5]}, bins=4).values is None
    assert column(values).values is not None and column(values).bins is None


@given(st.lists(NUMBERS | WORDS, min_size=1, max_size=4))
def test_sites_add_up_the_same_in_any_order_and_over_any_tree(sites: list[list[Any]]) -> None:
    found = [
        statistics_of(pa.table({"x": pa.array(values), f"own_{n}": pa.array(values)}), Statistics(ranges=RANGES))
        for n, values in enumerate(sites)
    ]
    whole = reduce(add, found, TableStatistics())
    assert TableStatistics.total(found) == whole and list(TableStatistics.total(found).columns) == list(whole.columns)
    for order in permutations(found):
        assert reduce(add, order) == whole
    assert reduce(add, found[:2]) + reduce(add, found[2:], TableStatistics()) == whole


def test_numbers_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).normal(60, 12, 5000).astype(np.float32)
    parts = [column(list(map(float, part)), bins=50, ranges={"x": [0, 120]}) for part in np.array_split(values, 7)]
    said = reduce(add, parts).as_json([0, 120])
    wide = values.astype(np.float64)
    assert said["count"] == 5000 and math.isclose(said["mean"], wide.mean()) and math.isclose(said["std"], wide.std())
    assert np.abs(np.array(said["quartiles"]) - np.quantile(wide, [0.25, 0.5, 0.75])).max() < 120 / 50
    whole = column(list(map(float, values)), min_count=1, bins=50, ranges={"x": [0, 120]})
    assert list(whole.bins or ())[1:-1] == np.histogram(wide, 50, (0, 120))[0].tolist()
    assert (whole.bins or ())[0] == (wide < 0).sum() and (whole.bins or ())[-1] == (wide > 120).sum()


def test_what_lies_beyond_the_range_has_no_quartile() -> None:
    found = column([10.0] * 5 + [50.0] * 5 + [500.0] * 10, bins=4, ranges={"x": [0, 100]}).as_json([0, 100])
    assert found["histogram"] == {"edges": [0.0, 25.0, 50.0, 75.0, 100.0], "counts": [0, 5, 0, 5, 0, 10]}
    assert found["quartiles"] == [25.0, 75.0, None]


def test_rare_values_are_told_with_others_and_with_one_that_is_not_where_they_are_too_few() -> None:
    words = ["a"] * 20 + ["b"] * 9 + ["c"] * 6 + ["d"] * 2
    assert column(words).values == {"a": 20, "b": 9} and column(words).others == 8
    assert column(words, min_count=2).values == {"a": 20, "b": 9, "c": 6, "d": 2}
    assert column(words, min_count=1, max_values=2).others == 8
    assert column(["a"] * 5 + ["b"]).values == {} and column(["a"] * 5 + ["b"]).others == 6
    assert column(["Jane Doe, born 1931-04-02, ward 7, bed 3, allergic to penicillin, see letter"] * 9).values == {}


def test_few_values_are_told_half_way_of_the_bins_they_are_put_together_with() -> None:
    values = [5.0] * 3 + [15.0] * 4 + [25.0] * 9 + [95.0]
    assert column(values, bins=10, ranges=RANGES).bins == (0, 7, 0, 5, 0, 0, 0, 5, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("values", "kind", "count", "missing", "told"),
    [
        ([True] * 6 + [False] * 7 + [None], "number", 13, 1, {"0": 7, "1": 6}),
        ([1.5, float("nan"), float("inf"), 2e39, *[3.25] * 5], "number", 6, 3, None),
        ([decimal.Decimal("1.00")] * 5, "number", 5, 0, {"1": 5}),
        ([datetime.date(2027, 1, 1)] * 6 + [None], "other", 6, 1, None),
        ([None] * 4, "", 0, 4, None),
        ([7] * 4, "number", 0, 0, None),
        (list(range(30)) * 5, "number", 150, 0, None),
    ],
)
def test_kinds_of_columns(values: list[Any], kind: str, count: int, missing: int, told: Any) -> None:
    found = column(values)
    assert (found.kind, found.count, found.missing) == (kind, count, missing)
    assert found.values == told
    assert statistics_of(pa.table({"x": pa.array(["a"] * 6).dictionary_encode()}), Statistics()).columns["x"] == column(
        ["a"] * 6
    )


def test_a_column_that_is_numbers_here_and_words_there_is_told_as_such() -> None:
    found = column([1.0] * 9) + column(["1"] * 8)
    assert found == Column("mixed", 17)
    assert found.as_json(None) == {"kind": "mixed", "count": 17, "missing": 0}
    assert column([1.0] * 9) + column(["1"] * 3) == Column(
        "number", 9, 0, 1, column([1.0] * 9).moments, {"1": 9}, 0, None
    )


def test_many_sites_with_many_values_of_their_own_are_added_without_a_copy_for_each() -> None:
    copied = 0

    class Watched(TableStatistics):
        def __add__(self, other: TableStatistics) -> TableStatistics:
            nonlocal copied
            copied += self.num_rows + other.num_rows
            return Watched(self.num_rows + other.num_rows)

    assert TableStatistics.total([Watched(1)] * 100).num_rows == 100
    assert copied <= 100 * 7  # as many times as one can halve them


def test_what_is_far_from_zero_for_its_spread_keeps_it() -> None:
    seconds = [1.7e9 + number for number in range(100)]
    said = column(seconds).as_json(None)
    assert (said["mean"], said["std"]) == (1.7e9 + 49.5, pytest.approx(np.std(range(100)), rel=1e-12))
    assert column([-value for value in seconds]).as_json(None)["mean"] == -1.7e9 - 49.5
    assert column([1.7e9 + 1] * 9).as_json(None)["mean"] == 1.7e9 + 1
    parts = [column(seconds[start::3]) for start in range(3)]
    assert reduce(add, parts).moments == column(seconds).moments


def test_a_constant_has_no_deviation() -> None:
    assert column([3.5] * 8).as_json(None) == {"kind": "number", "count": 8, "missing": 0, "mean": 3.5, "std": 0.0}


def test_columns_that_are_not_wanted_or_not_there_are_left_out_and_a_name_twice_is_refused() -> None:
    table = pa.table({"age": [1] * 6, "sex": [0] * 6})
    assert list(statistics_of(table, Statistics(columns=["sex", "weight"])).columns) == ["sex"]
    with pytest.raises(DataError, match="several columns 'age'"):
        statistics_of(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["age", "age"]), Statistics())


def test_data_without_a_table_of_their_own() -> None:
    x, y = torch.arange(12.0).reshape(6, 2), torch.tensor([0, 1, 0, 1, 1, 1])
    table = as_table(SiteData(TensorDataset(x[:4], y[:4]), TensorDataset(x[4:], y[4:])))
    assert table.column_names == ["feature_0", "feature_1", "label"]
    assert table["feature_1"].to_pylist() == [1, 3, 5, 7, 9, 11] and table["label"].to_pylist() == y.tolist()
    images = TensorDataset(torch.zeros(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64))
    assert as_table(SiteData(images, TensorDataset(*(t[:0] for t in images.tensors)))).column_names == ["label"]
    lazy = as_table(SiteData(Subset(images, [0, 1]), Subset(images, [2])))
    assert lazy.num_rows == 3 and statistics_of(lazy, Statistics()).columns["record"] == Column(missing=3)


def test_columns_as_arrow_may_have_them() -> None:
    words = pa.array(["a"] * 6 + [None] * 2 + ["b"] * 5)
    for values in (words.cast("large_string"), words.dictionary_encode(), pc.run_end_encode(words)):
        assert statistics_of(pa.table({"x": values}), Statistics()).columns["x"] == column(words.to_pylist())
    hidden = pa.DictionaryArray.from_arrays(pa.array([0] * 6 + [1] * 2 + [2] * 5), pa.array(["a", None, "b"]))
    assert statistics_of(pa.table({"x": hidden}), Statistics()).columns["x"] == column(words.to_pylist())
    lists = pa.DictionaryArray.from_arrays(pa.array([0] * 6 + [None]), pa.array([[1, 2]]))
    assert statistics_of(pa.table({"x": lists}), Statistics()).columns["x"] == Column("other", 6, 1)
    no_text = pa.Array.from_buffers(
        pa.string(), 6, [None, pa.py_buffer(np.arange(7, dtype=np.int32)), pa.py_buffer(b"\xff" * 6)]
    )
    with pytest.raises(DataError, match="column 'x' holds text that is not UTF-8"):
        statistics_of(pa.table({"x": no_text}), Statistics())


def test_identifiers_beyond_float64_are_not_counted_one_by_one() -> None:
    assert column([2**53 + 1] * 6).values is None and column([2**53 + 1] * 6).count == 6
    assert column([2**53 - 1] * 6).values == {"9007199254740991": 6}


def test_the_end_of_a_range_is_in_its_last_bin() -> None:
    assert column([100.0] * 6 + [0.0] * 5, bins=10, ranges=RANGES).bins == (0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0)
