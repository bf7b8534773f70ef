"""What every rule that looks at each member keeps; the folder is listed, so a new one is tested as it comes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hierfl.errors import ConfigError, UpdateRefused
from hierfl.kinds import load, names
from hierfl.learning.gathered import Gathered
from hierfl.learning.ring import Accumulator, Grid, PartialSum
from hierfl.learning.state import Layout, ModelState
from hierfl.learning.strategy import Reducer

KINDS = [kind for kind in names("strategy") if isinstance(load("strategy", kind)(), Reducer)]
SIZE = 40
LAYOUT = Layout.of({"w": ((SIZE,), "float32"), "seen": ((1,), "int64")})

each_kind = pytest.mark.parametrize("kind", KINDS)


def honest(n: int, seed: int = 0, dtype: str = "float32") -> NDArray[Any]:
    """Changes of length about 1 that differ by some tenths, read-only."""
    random = np.random.default_rng(seed)
    rows = (random.standard_normal(SIZE) + 0.2 * random.standard_normal((n, SIZE))) / np.sqrt(SIZE)
    rows = rows.astype(dtype)
    rows.setflags(write=False)
    return rows


def reduced(strategy: Any, rows: NDArray[Any], weights: NDArray[np.float64] | None = None) -> NDArray[Any]:
    even = np.full(len(rows), 1 / len(rows)) if weights is None else weights
    return np.asarray(strategy.reduce(rows, even, strategy.init(np.zeros(SIZE, rows.dtype))))


def test_the_folder_has_the_known_rules() -> None:
    known = {"median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "norm_bounding", "centered_clipping"}
    assert known <= set(KINDS)


@each_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mixing", [False, True])
def test_shape_and_dtype_stay_and_nothing_given_is_written(kind: str, dtype: str, mixing: bool) -> None:
    rows = honest(9, dtype=dtype)
    before = rows.tobytes()
    found = reduced(load("strategy", kind)(mixing=mixing), rows)
    assert (found.shape, found.dtype) == ((SIZE,), np.dtype(dtype))
    assert rows.tobytes() == before and not np.shares_memory(found, rows)


@each_kind
@pytest.mark.parametrize("mixing", [False, True])
def test_members_in_another_order_give_the_same(kind: str, mixing: bool) -> None:
    strategy, rows = load("strategy", kind)(mixing=mixing), honest(9)
    weights = np.arange(1, 10) / 45
    order = np.random.default_rng(1).permutation(9)
    np.testing.assert_allclose(
        reduced(strategy, rows[order], weights[order]), reduced(strategy, rows, weights), atol=1e-6
    )


@each_kind
def test_what_all_members_say_is_what_comes_out(kind: str) -> None:
    row = honest(1)[0] / 2  # shorter than any bound
    np.testing.assert_allclose(reduced(load("strategy", kind)(), np.tile(row, (9, 1))), row, atol=1e-6)


@each_kind
@pytest.mark.parametrize("mixing", [False, True])
@pytest.mark.parametrize("attack", ["far", "flipped", "together", "at the clip"])
def test_bad_members_do_not_move_it_far(kind: str, mixing: bool, attack: str) -> None:
    """Two of 21 send anything: what comes out stays near the honest mean, which the plain mean does not."""
    rows = np.array(honest(21))
    bad = {
        "far": 1e6 * np.random.default_rng(2).standard_normal((2, SIZE)),
        "flipped": -100 * rows[:2],
        "together": np.tile(rows[2:].mean(axis=0) + 50, (2, 1)),
        "at the clip": np.full((2, SIZE), 8.0),
    }[attack]
    rows[:2] = bad
    middle = rows[2:].mean(axis=0)
    away = np.linalg.norm(reduced(load("strategy", kind)(num_byzantine=2, mixing=mixing), rows) - middle)
    assert away < 0.4 < np.linalg.norm(rows.mean(axis=0, dtype=np.float64) - middle)


@each_kind
def test_fewer_members_than_the_rule_takes_are_refused_with_a_way_out(kind: str) -> None:
    strategy = load("strategy", kind)(num_byzantine=3)
    least = min(n for n in range(1, 30) if not strategy.shortage(n))
    assert all(strategy.shortage(n) for n in range(1, least))
    reduced(strategy, honest(least))
    if least > 1:
        assert f"at least {least} members, there are {least - 1}" in strategy.shortage(least - 1)
        with pytest.raises(UpdateRefused, match="num_byzantine 3 takes"):
            reduced(strategy, honest(least - 1))


@each_kind
def test_it_says_what_it_promises(kind: str) -> None:
    assert load("strategy", kind)().promise(9)
    with pytest.raises(ConfigError, match="num_byzantine is -1"):
        load("strategy", kind)(num_byzantine=-1)


@each_kind
def test_with_nobody_bad_mixing_makes_all_rows_the_mean(kind: str) -> None:
    strategy = load("strategy", kind)(num_byzantine=0, mixing=True)
    rows = honest(9) / 2
    np.testing.assert_allclose(reduced(strategy, rows), rows.mean(axis=0), atol=1e-6)


def test_rows_are_exact_and_stand_in_the_order_of_names() -> None:
    grid = Grid(32, 8.0, 10)
    zero = ModelState(np.zeros(SIZE, np.float32), np.zeros(1, np.int64))
    sent = {"b": (3, honest(3)[0]), "a": (1, honest(3)[1]), "c": (6, honest(3)[2])}

    def part(weight: int, row: NDArray[Any]) -> PartialSum:
        own = Accumulator(grid, LAYOUT)
        own.add_update(ModelState(row, np.array([weight])), zero, weight)
        return own.total()

    found = []
    for order in (("a", "b", "c"), ("c", "b", "a")):
        gathered = Gathered(grid, LAYOUT)
        for name in order:
            gathered.add(name, part(*sent[name]))
        found.append(gathered.rows())
    assert found[0][0].tobytes() == found[1][0].tobytes()
    deltas, weights, ints = found[0]
    assert weights.tolist() == [0.1, 0.3, 0.6] and ints.tolist() == [round((1 * 1 + 3 * 3 + 6 * 6) / 10)]
    for row, name in zip(deltas, ("a", "b", "c"), strict=True):
        np.testing.assert_allclose(row, sent[name][1], atol=grid.step * grid.total_weight)


def test_a_late_and_a_present_update_of_one_member_are_one_row() -> None:
    grid = Grid(64, 8.0, 10)
    zero = ModelState(np.zeros(SIZE, np.float32), np.zeros(1, np.int64))
    gathered = Gathered(grid, LAYOUT)
    for weight, row in ((1, honest(2)[0]), (3, honest(2)[1])):
        own = Accumulator(grid, LAYOUT)
        own.add_update(ModelState(row, zero.ints), zero, weight)
        gathered.add("a", own.total())
    deltas, weights, _ = gathered.rows()
    assert deltas.shape == (1, SIZE) and weights.tolist() == [1.0]
    np.testing.assert_allclose(deltas[0], (honest(2)[0] + 3 * honest(2)[1]) / 4, atol=1e-6)


def test_more_weight_than_the_round_opened_with_is_refused() -> None:
    gathered = Gathered(Grid(32, 8.0, 4), LAYOUT)
    part = PartialSum(np.zeros(SIZE, np.int32), np.zeros(1, np.int64), 3)
    gathered.add("a", part)
    with pytest.raises(UpdateRefused, match="weight 3 after 3 of 4"):
        gathered.add("b", part)
    with pytest.raises(UpdateRefused, match="the model has"):
        gathered.add("b", dataclasses.replace(part, floats=np.zeros(2, np.int32), weight=1))
