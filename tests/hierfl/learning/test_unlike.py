"""Sites whose features are not what the others call so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hierfl.learning import unlike as module
from hierfl.learning.standardise import Moments
from hierfl.learning.unlike import FEWEST, Unlike, asked, unlike, unlike_columns

NAMES = ["height", "temperature", "age", "smokes", "sex=f", "sex=*"]


def table(seed: int, num: int = 200) -> NDArray[np.float64]:
    """Make records (num, 6): centimetres, degrees Celsius, years, 1 of 100 who smokes, 6 of 10 men, and no others."""
    random = np.random.RandomState(seed)
    draws = random.randn(num, 3) * (10.0, 0.7, 15.0) + (170.0, 37.0, 60.0)
    return np.column_stack([draws, np.arange(num) % 100 == 0, np.arange(num) % 10 < 4, np.zeros(num)])


def found(*tables: NDArray[np.float64], names: Any = NAMES) -> dict[str, list[str]]:
    told = unlike({site: Moments.of(one, wide=True) for site, one in zip("abcdef", tables, strict=False)}, names)
    return {site: [one.said for one in differing] for site, differing in told.items()}


def column(values: NDArray[np.float64]) -> Moments:
    return Moments.of(values[:, np.newaxis], wide=True)


def columns(*tables: NDArray[np.float64], names: Any = NAMES) -> dict[str, dict[str, Moments]]:
    """Take the same records column by column, as statistics tell them."""
    by_name = [dict(zip(names, map(column, one.T), strict=True)) for one in tables]
    return dict(zip("abcdef", by_name, strict=False))


def metres(x: NDArray[np.float64]) -> None:
    x[:, 0] /= 100


def fahrenheit(x: NDArray[np.float64]) -> None:
    x[:, 1] = x[:, 1] * 1.8 + 32


def a_code_for_gaps(x: NDArray[np.float64]) -> None:
    x[:8, 2] = 999


def never_filled_in(x: NDArray[np.float64]) -> None:
    x[:, 2] = 0


def millimetres(x: NDArray[np.float64]) -> None:
    x[:, 0] = (x[:, 0] * 8 + 160) * 10 / 9  # by 8.9 in the deviation, as by chance it may be


def decimetres(x: NDArray[np.float64]) -> None:
    x[:, 0] = (x[:, 0] + 20) / 9


def inches(x: NDArray[np.float64]) -> None:
    x[:, 0] /= 2.3  # of taller people


def ones_and_twos(x: NDArray[np.float64]) -> None:
    x[:, 4] += 1


def a_code_among_shares(x: NDArray[np.float64]) -> None:
    x[:50, 4] = 9


def minus_nine_for_gaps(x: NDArray[np.float64]) -> None:
    x[:100, 4] = -9


def other_words(x: NDArray[np.float64]) -> None:
    x[:, 4:] = 0, 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (other_words, "sex=* is 1 in all 200 records, typically 1 in 0% of them"),
        (ones_and_twos, "sex=f is 1.4 ± 0.49, typically 0.4 ± 0.49"),
        (a_code_among_shares, "sex=f is 2.55 ± "),
        (metres, "height is 1."),
        (millimetres, "height is 16"),
        (decimetres, "height is 21."),
        (inches, "height is 7"),
        (minus_nine_for_gaps, "sex=f is -4."),
        (fahrenheit, "temperature is 98."),
        (a_code_for_gaps, "age is 9"),
        (never_filled_in, "age is 0 in all 200 records, typically 5"),
    ],
)
def test_what_is_not_the_same_is_told_of_the_one_site_in_which_it_is_not(
    spoil: Callable[[NDArray[np.float64]], None], said: str
) -> None:
    tables = [table(seed) for seed in range(4)]
    assert found(*tables) == {}
    spoil(tables[2])
    told = found(*tables)
    assert list(told) == ["c"] and len(told["c"]) == 1 and told["c"][0].startswith(said), told
    assert found(*tables, names=None)["c"][0].startswith("feature ")
    [of_column] = unlike_columns(columns(*tables))["c"]
    assert of_column.said == told["c"][0].replace(" records,", " values,")
    assert found(*tables, names=7) == found(*tables, names=None), "a task's key of that name may be anything"


def test_of_two_sites_each_is_held_against_the_other() -> None:
    tables = [table(0), table(1)]
    metres(tables[1])
    told = found(*tables)
    assert told["a"][0].endswith(told["b"][0].split("is ")[1].split(",")[0]) and list(told) == ["a", "b"]


def test_two_sites_whose_numbers_are_below_0_are_compared_without_a_warning_of_numpy_s() -> None:
    assert not found(*(table(seed) - (180.0, 40.0, 70.0, 0.0, 0.0, 0.0) for seed in (0, 1)))


def test_what_may_well_differ_is_not_told() -> None:
    elderly, children, women, few = (table(seed) for seed in range(4))
    elderly[:, 2] += 25
    elderly[:, 3] = 0
    children[:, 0] -= 60
    women[:, 4] = 1
    metres(few)
    assert found(elderly, children, women[:22], few[: FEWEST - 1]) == {}, "all may be women of 22 who come"
    assert found(elderly, children, women)["c"] == ["sex=f is 1 in all 200 records, typically 1 in 40% of them"]
    assert found(few) == {} and found() == {}


@pytest.mark.parametrize(
    ("most", "other"),
    [((60.0, 15.0), (5.0, 4.0)), ((5.0, 4.0), (56.0, 15.0)), ((1.70e9, 9e6), (1.62e9, 5e6))],
    ids=["children", "adults", "days"],
)
def test_another_mean_with_another_ratio_to_the_deviation_is_no_unit(
    most: tuple[float, float], other: tuple[float, float]
) -> None:
    z = np.random.RandomState(0).randn(100, 1)
    z = (z - z.mean()) / z.std()
    tables = [z * std + mean for mean, std in (other, most, most)]
    assert found(*tables, names=["age"]) == {}


def test_what_varies_at_few_sites_is_not_told_of_all_the_others() -> None:
    tables = [table(seed) for seed in range(5)]
    for one in tables[:3]:
        never_filled_in(one)
    assert found(*tables) == {}


def test_what_is_rarely_other_than_0_is_0_in_all_records_of_a_small_site_by_chance() -> None:
    random = np.random.RandomState(0)
    days = [(random.rand(300, 1) < 0.02) * random.poisson(10.0, (300, 1)) for _ in range(5)]
    assert all(one[:, 0].any() for one in days)
    days[0] = days[0][:40] * 0
    assert found(*days, names=["days"]) == {}
    days[0] = np.zeros((3000, 1))
    assert found(*days, names=["days"])["a"][0].startswith("days is 0 in all 3,000 records")


def test_what_whole_sites_have_is_told_of_one_alone_and_not_where_each_has_its_own() -> None:
    """The country, or the kind of hospital, in columns of 0 and 1."""
    is_of_site = np.repeat(np.eye(4)[:, np.newaxis], 100, axis=1)
    assert found(*is_of_site, names=list("wxyz")) == {}
    teaching = [np.full((100, 1), value) for value in (0.0, 1.0, 0.0, 0.0, 1.0)]
    assert found(*teaching, names=["teaching"]) == {}
    assert list(found(*teaching[:4], names=["teaching"])) == ["b"]
    assert unlike_columns(columns(*is_of_site, names=list("wxyz"))) == {}


def test_columns_are_judged_by_what_is_told_of_each() -> None:
    """One site keeps a column back, one has gaps in it, one has few values; another column two sites alone have."""
    told = columns(*(table(seed) for seed in range(5)))
    del told["a"]["height"]
    told["b"]["height"] = column(table(1)[:150, 0])
    told["d"]["height"] = column(table(3)[: FEWEST - 1, 0] / 100)
    assert unlike_columns(told) == {}
    told["c"]["height"] = column(table(2)[:, 0] / 100)
    told["a"]["weight"], told["b"]["weight"] = column(table(0)[:, 1]), column(table(1)[:, 1] * 1000)
    said = unlike_columns(told)
    assert [(path, [one.said.partition(" ")[0] for one in what]) for path, what in said.items()] == [
        *(("a", ["weight"]), ("b", ["weight"]), ("c", ["height"]))
    ]
    assert said["c"][0].said.startswith("height is 1.6") and ", typically 170" in said["c"][0].said


def test_a_column_without_a_value_at_a_site_is_told_as_that_with_a_way_out() -> None:
    gaps = [(np.arange(60)[:, np.newaxis] % every == 0) + np.zeros(3) for every in (10, 9, 1, 8)]
    moments = {site: Moments.of(one) for site, one in zip("abcd", gaps, strict=True)}
    told = unlike(moments, ["crp is missing", "sex=*", "dose is missing"])["c"]
    assert told[0] == Unlike("crp is missing in all 60 records, and others have it", is_gap=True)
    assert told[1].said.startswith("sex=* is 1 in all 60 records, typically") and not told[1].is_gap
    others, of_gaps = asked([*told, *[told[0]] * 2])
    assert others.endswith("% of them: is it the same quantity, in the same unit, with no code for gaps?")
    assert of_gaps.startswith(f"{told[0].said}; {told[2].said}; {told[0].said}; and 1 more: if it stands there under")
    assert "(flag_gaps)" in of_gaps and "quantity" not in of_gaps
    never = unlike({**dict.fromkeys("abd", moments["c"]), "e": Moments.of(np.zeros((60, 3)))}, ["crp is missing"] * 3)
    said = "crp is missing in none of 60 records, typically in 100% of them"
    assert never == {"e": [Unlike(said)] * 3}, "there may be a code for gaps"


def test_so_many_figures_that_the_start_would_wait_are_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [table(0), table(1)]
    metres(tables[1])
    monkeypatch.setattr(module, "MOST", 12)
    assert len(found(*tables)) == 2
    monkeypatch.setattr(module, "MOST", 11)
    assert found(*tables) == {}
    assert unlike_columns(columns(*tables)) == {}
    monkeypatch.setattr(module, "MOST", 12)
    assert len(unlike_columns(columns(*tables))) == 2
