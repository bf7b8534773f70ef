"""The laws of the ring (docs/arithmetic.md), bit for bit, at both widths and for both dtypes."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ring_rounds import DTYPES, Member, Round, add_up, equal, exact_mean, frozen, layout_of, oracle, rounds, trees

from hierfl.learning import blocks, ring
from hierfl.learning.ring import Accumulator, Grid, PartialSum, decode, sum_all
from hierfl.learning.state import Layout, ModelState

GRIDS = [(width, dtype) for width in (32, 64) for dtype in DTYPES]
FEW = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])

each_grid = pytest.mark.parametrize(("width", "dtype"), GRIDS, ids=[f"{w}-{d}" for w, d in GRIDS])


def tree_sum(round_: Round, node: Any) -> PartialSum:
    """What a hub hands up: the sum of what its members hand up, a site's update at the leaves."""
    if isinstance(node, Member):
        return add_up(round_, [node])
    return sum_all([tree_sum(round_, child) for child in node], round_.grid, round_.layout)


@each_grid
@FEW
@given(data=st.data())
def test_the_sum_is_the_specification_in_plain_integers(width: int, dtype: str, data: st.DataObject) -> None:
    round_ = data.draw(rounds(width=width, dtype=dtype))
    total = add_up(round_, round_.members)
    assert (total.floats.tolist(), total.ints.tolist()) == oracle(round_)
    assert total.weight == round_.weight


@each_grid
@FEW
@given(data=st.data())
def test_the_order_of_arrival_changes_no_bit(width: int, dtype: str, data: st.DataObject) -> None:
    round_ = data.draw(rounds(width=width, dtype=dtype))
    arrived = data.draw(st.permutations(round_.members))
    assert equal(add_up(round_, arrived), add_up(round_, round_.members))


@each_grid
@FEW
@given(data=st.data())
def test_any_tree_over_the_members_has_the_bits_of_the_flat_sum(width: int, dtype: str, data: st.DataObject) -> None:
    round_ = data.draw(rounds(width=width, dtype=dtype))
    tree = data.draw(trees(data.draw(st.permutations(round_.members))))
    assert equal(tree_sum(round_, tree), add_up(round_, round_.members))


@each_grid
@FEW
@given(data=st.data())
def test_what_an_earlier_sum_left_in_its_memory_does_not_count(width: int, dtype: str, data: st.DataObject) -> None:
    round_ = data.draw(rounds(width=width, dtype=dtype))
    used = np.full(round_.layout.num_floats, 7, round_.grid.integer)
    total = Accumulator(round_.grid, round_.layout, used)
    for member in round_.members:
        if data.draw(st.booleans()):
            total.add_update(member.local, round_.start, member.weight)
        else:
            total.add_sum(add_up(round_, [member]))
    found = total.total()
    assert found.floats is used and equal(found, add_up(round_, round_.members))
    assert not Accumulator(round_.grid, round_.layout, np.full_like(used, 7)).total().floats.any()


@each_grid
@FEW
@given(data=st.data())
def test_updates_and_partial_sums_may_mix_in_one_accumulator(width: int, dtype: str, data: st.DataObject) -> None:
    """More parts than are folded in one pass, members' own updates between them."""
    round_ = data.draw(rounds(width=width, dtype=dtype, max_members=24))
    total = Accumulator(round_.grid, round_.layout)
    for member in round_.members:
        if data.draw(st.booleans()):
            total.add_update(member.local, round_.start, member.weight)
        else:
            part = add_up(round_, [member])
            total.add_sum(PartialSum(frozen(part.floats), frozen(part.ints), part.weight))
    assert equal(total.total(), add_up(round_, round_.members))


@each_grid
@FEW
@given(data=st.data())
def test_the_size_of_a_block_changes_no_bit(
    width: int, dtype: str, data: st.DataObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    round_ = data.draw(rounds(width=width, dtype=dtype))
    whole = add_up(round_, round_.members)
    with monkeypatch.context() as patch:
        patch.setattr(blocks, "BLOCK", data.draw(st.integers(1, 6)))
        assert equal(sum_all([add_up(round_, [m]) for m in round_.members], round_.grid, round_.layout), whole)
        cut = decode(whole, round_.grid)
    mean = decode(whole, round_.grid)
    assert cut[0].tobytes() == mean[0].tobytes() and cut[1].tobytes() == mean[1].tobytes()


@each_grid
@FEW
@given(data=st.data())
def test_the_mean_is_as_near_as_the_docstring_says(width: int, dtype: str, data: st.DataObject) -> None:
    """Against exact fractions; `float_error` is what "beside float rounding" means, see docs/arithmetic.md."""
    round_ = data.draw(rounds(width=width, dtype=dtype))
    grid, weight = round_.grid, round_.weight
    mean, _ = decode(add_up(round_, round_.members), grid)
    step, total = Fraction(grid.step), Fraction(grid.total_weight)
    if width == 32:
        scaling = Fraction(grid.clip) * total / weight * Fraction(2) ** -51
        bound = len(round_.members) * step * total / (2 * weight) + scaling
    else:
        bound = step / 2
    assert mean.dtype == np.dtype(dtype)
    for index in range(round_.layout.num_floats):
        exact = exact_mean(round_, index)
        size = abs(exact) + bound
        float_error = size * Fraction(2) ** -51 + (size * Fraction(2) ** -24 if dtype == "float32" else 0)
        smallest = Fraction(2) ** -149
        assert abs(Fraction(float(mean[index])) - exact) <= bound + float_error + smallest


@each_grid
@FEW
@given(data=st.data())
def test_integers_are_summed_exactly_and_their_mean_is_rounded_half_to_even(
    width: int, dtype: str, data: st.DataObject
) -> None:
    round_ = data.draw(rounds(width=width, dtype=dtype))
    _, mean = decode(add_up(round_, round_.members), round_.grid)
    assert mean.dtype == np.int64
    assert mean.tolist() == [round(Fraction(total, round_.weight)) for total in oracle(round_)[1]]


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1), st.integers(1, 2**53 - 1) | st.integers(1, 6))
def test_division_of_integers_rounds_half_to_even(values: list[int], divisor: int) -> None:
    divided = ring._divide_half_even(np.array(values, np.int64), divisor)
    assert divided.tolist() == [round(Fraction(value, divisor)) for value in values]


@pytest.mark.parametrize("dtype", DTYPES)
@FEW
@given(data=st.data(), times=st.integers(2, 1000))
def test_weights_scale_out_at_width_32(dtype: str, data: st.DataObject, times: int) -> None:
    round_ = data.draw(rounds(width=32, dtype=dtype))
    larger = Grid(32, round_.grid.clip, round_.grid.total_weight * times, dtype)
    members = tuple(Member(m.weight * times, ModelState(m.local.floats, round_.start.ints)) for m in round_.members)
    scaled = Round(larger, round_.layout, round_.start, members)
    ours = decode(add_up(round_, round_.members), round_.grid)[0]
    assert decode(add_up(scaled, scaled.members), larger)[0].tobytes() == ours.tobytes()


@each_grid
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("weights", [[1] * 3001, [1], [2**53 - 1], [2**52, 2**52 - 1], [1, 2**30, 7], [3] * 64])
def test_the_sum_has_room_for_every_member_at_the_clip(width: int, dtype: str, sign: int, weights: list[int]) -> None:
    layout = Layout.of({"w": ((1,), dtype)})
    grid = Grid(width, 8.0, sum(weights), dtype)
    none = np.zeros(0, np.int64)
    start = ModelState(np.zeros(1, dtype), none)
    local = ModelState(np.full(1, sign * grid.clip, dtype), none)
    total = Accumulator(grid, layout)
    expected = 0
    for weight in weights:
        total.add_update(local, start, weight)
        factor, times = grid.scale(weight)
        expected += times * round(sign * grid.clip * float(factor))
    summed = total.total()
    assert summed.floats.tolist() == [expected]
    assert abs(expected) < 2 ** (grid.bits - 1)
    assert decode(summed, grid)[0][0] == pytest.approx(sign * grid.clip, rel=len(weights) * 2.0**-31 + 2.0**-23)


@given(
    width=st.sampled_from([32, 64]),
    dtype=st.sampled_from(DTYPES),
    exponent=st.integers(-60, 60),
    total_weight=st.integers(1, 2**53 - 1) | st.integers(0, 52).map(lambda k: 2**k),
)
def test_every_grid_has_headroom_and_the_finest_power_of_two(
    width: int, dtype: str, exponent: int, total_weight: int
) -> None:
    grid = Grid(width, 2.0**exponent, total_weight, dtype)
    reach = Fraction(grid.clip) / Fraction(grid.step) * (1 if width == 32 else total_weight)
    assert reach <= 2 ** (grid.bits - 2), "one bit beside the sign stays free, for members' roundings"
    assert reach > 2 ** (grid.bits - 4), "and no more than two are wasted"
    assert np.dtype(grid.integer).itemsize * 8 == grid.bits


@each_grid
def test_a_lone_member_of_full_weight_gets_back_what_it_sent(width: int, dtype: str) -> None:
    grid = Grid(width, 8.0, 17, dtype)
    layout = Layout.of({"w": ((5,), dtype)})
    none = np.zeros(0, np.int64)
    change = np.array([0.0, 8.0, -8.0, 0.15625, -3.5], dtype)
    total = Accumulator(grid, layout)
    total.add_update(ModelState(change, none), ModelState(np.zeros(5, dtype), none), 17)
    assert decode(total.total(), grid)[0].tolist() == change.tolist()


@each_grid
@FEW
@given(data=st.data())
def test_what_is_added_stays_as_it_was(width: int, dtype: str, data: st.DataObject) -> None:
    """Arrays from an object store belong to everyone; those of `rounds` are read-only besides."""
    round_ = data.draw(rounds(width=width, dtype=dtype))
    before = [(m.local.floats.tobytes(), m.local.ints.tobytes()) for m in round_.members]
    parts = [add_up(round_, [member]) for member in round_.members]
    bits = [(part.floats.tobytes(), part.ints.tobytes()) for part in parts]
    sum_all(parts, round_.grid, round_.layout)
    assert [(part.floats.tobytes(), part.ints.tobytes()) for part in parts] == bits
    assert [(m.local.floats.tobytes(), m.local.ints.tobytes()) for m in round_.members] == before


def test_narrow_tensors_travel_in_float32() -> None:
    assert Layout.of({"w": ((3,), "bfloat16"), "b": ((1,), "float16")}).float_dtype == np.float32
    assert layout_of("float64").float_dtype == np.float64
