"""What the ring refuses, by name, with the sum left as it was."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ring_rounds import DTYPES, Member, add_up, equal, rounds

from hierfl.errors import QUOTED, UpdateRefused
from hierfl.learning import blocks
from hierfl.learning.ring import Accumulator, Grid, PartialSum, decode
from hierfl.learning.state import Layout, ModelState

GRIDS = [(width, dtype) for width in (32, 64) for dtype in DTYPES]
each_grid = pytest.mark.parametrize(("width", "dtype"), GRIDS, ids=[f"{w}-{d}" for w, d in GRIDS])
NAMES = [f"body.weight[{row}, {column}]" for row in (0, 1) for column in (0, 1)]
NAMES += ["scale", "head.bias[0]", "head.bias[1]"]


@each_grid
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data(), index=st.integers(0, 6), bad=st.sampled_from(["nan", "inf", "-inf", "over", "under"]))
def test_a_value_off_the_grid_is_refused_by_name_and_leaves_no_trace(
    width: int, dtype: str, data: st.DataObject, index: int, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks of two, so that blocks before the bad one are added and have to be taken back."""
    round_ = data.draw(rounds(width=width, dtype=dtype))
    clip, first, last = round_.grid.clip, round_.members[0], round_.members[-1]
    values = {"over": 1.001 * clip, "under": -1.001 * clip}
    floats = first.local.floats.copy()
    floats[index] = round_.start.floats[index] + values[bad] if bad in values else float(bad)
    monkeypatch.setattr(blocks, "BLOCK", 2)
    total = Accumulator(round_.grid, round_.layout)
    for member in round_.members[:-1]:
        total.add_update(member.local, round_.start, member.weight)
    before = total.weight
    says = f"over the clip of {clip:g}; " if bad in values else "not finite any more; "
    names = f"{NAMES[index]} changed by " if bad in values else f"{NAMES[index]} is {bad}"
    with pytest.raises(UpdateRefused, match=f"{re.escape(says)}.*{re.escape(QUOTED + names)}"):
        total.add_update(ModelState(floats, last.local.ints), round_.start, last.weight)
    assert total.weight == before
    total.add_update(last.local, round_.start, last.weight)
    assert equal(total.total(), add_up(round_, round_.members))


LAYOUT = Layout.of({"w": ((3,), "float32"), "bn.num_batches_tracked": ((), "int64"), "hits": ((2,), "int64")})


def state(floats: list[float] = [0, 0, 0], ints: list[int] = [0, 0, 0]) -> ModelState:  # noqa: B006
    return ModelState(np.array(floats, np.float32), np.array(ints, np.int64))


@pytest.mark.parametrize(
    ("index", "says"),
    [
        (1, r"a change is over the clip of 8.*w\[1\] changed by 9"),
        (
            3,
            r"a change of a buffer is over the clip of 8; .*fedbn.*persistent=False.*running_var\[1\] changed",
        ),
        (4, r"a change is over the clip of 8.*channel control\[0\] changed by 9"),
    ],
)
def test_of_a_buffer_that_moves_too_far_it_is_told_what_helps_there(index: int, says: str) -> None:
    shapes = {"w": ((2,), "float32"), "bn.running_var": ((2,), "float32")}
    layout = Layout.of(shapes, buffers=["bn.running_var"]).with_channels({"control": 1})
    start = ModelState(np.zeros(5, np.float32), np.zeros(0, np.int64))
    floats = start.floats.copy()
    floats[index] = 9.0
    total = Accumulator(Grid(32, 8.0, 10), layout)
    with pytest.raises(UpdateRefused, match="(?s)^" + says):
        total.add_update(ModelState(floats, start.ints), start, 1)
    for places in (None, np.arange(5)):
        with pytest.raises(UpdateRefused, match="(?s)^" + says):
            total.add_change(floats, start.ints, 1, places)


def test_the_first_bad_value_is_told_with_a_way_out() -> None:
    total = Accumulator(Grid(32, 8.0, 10), LAYOUT)
    with pytest.raises(
        UpdateRefused, match=r"lower training\.lr, set training\.clip_norm.*\n  in detail: w\[1\] is nan"
    ):
        total.add_update(state([1, float("nan"), float("inf")]), state(), 1)
    with pytest.raises(UpdateRefused, match=r"the clip of 8; .* raise arithmetic\.clip\n.*: w\[2\] changed by 9\.5$"):
        total.add_update(state([1, 1, 10]), state([0, 0, 0.5]), 1)


def test_the_clip_itself_is_allowed() -> None:
    total = Accumulator(Grid(32, 8.0, 1), LAYOUT)
    total.add_update(state([8, -8, 0]), state(), 1)
    assert decode(total.total(), total.grid)[0].tolist() == [8, -8, 0]


@pytest.mark.parametrize(
    ("floats", "ints"),
    [(np.zeros(4, np.float32), np.zeros(3, np.int64)), (np.zeros(3, np.float32), np.zeros(2, np.int64))],
)
def test_another_shape_is_refused(floats: np.ndarray, ints: np.ndarray) -> None:
    total = Accumulator(Grid(32, 8.0, 4), LAYOUT)
    with pytest.raises(UpdateRefused, match=r"the model has \(3,\) and \(3,\)"):
        total.add_update(ModelState(floats, ints), state(), 1)
    with pytest.raises(UpdateRefused, match=r"the model has \(3,\) and \(3,\)"):
        total.add_sum(PartialSum(floats.astype(np.int32), ints, 1))
    assert total.weight == 0 and not total.total().floats.any()


@pytest.mark.parametrize(
    ("start", "local", "name"),
    [
        ([0, 0, 0], [2**60, 0, 0], "bn.num_batches_tracked"),
        ([0, 0, 0], [0, 0, -(2**60)], r"hits\[1\]"),
        ([0, -(2**63), 0], [0, 2**63 - 1, 0], r"hits\[0\]"),
        ([0, 0, 2**63 - 1], [0, 0, -(2**63)], r"hits\[1\]"),
        ([0, 0, -(2**62)], [0, 0, 2**62], r"hits\[1\]"),
    ],
    ids=["up", "down", "wraps-up", "wraps-down", "half-way"],
)
def test_integers_whose_sum_could_wrap_are_refused_by_name(start: list[int], local: list[int], name: str) -> None:
    total = Accumulator(Grid(32, 8.0, 10), LAYOUT)
    total.add_update(state(ints=[1, 2, 3]), state(), 3)
    with pytest.raises(
        UpdateRefused, match=rf"an integer changed out of range\n.*: {name} changed from -?\d+ to -?\d+$"
    ):
        total.add_update(state(ints=local), state(ints=start), 1)
    summed = total.total()
    assert summed.weight == 3 and summed.ints.tolist() == [3, 6, 9] and not summed.floats.any()


def test_weights_over_the_opened_total_are_refused() -> None:
    total = Accumulator(Grid(32, 8.0, 10), LAYOUT)
    total.add_update(state([1, 1, 1]), state(), 7)
    part = total.total()
    for weight in (4, 0, -1):
        with pytest.raises(UpdateRefused, match=rf"weight {weight} after 7 of a total of 10"):
            total.add_update(state([1, 1, 1]), state(), weight)
        with pytest.raises(UpdateRefused, match=rf"weight {weight} after 7 of 10"):
            total.add_sum(PartialSum(part.floats.copy(), part.ints.copy(), weight))
    total.add_update(state([1, 1, 1]), state(), 3)
    assert decode(total.total(), total.grid)[0].tolist() == pytest.approx([1, 1, 1])


@each_grid
def test_a_sum_of_another_width_is_refused(width: int, dtype: str) -> None:
    layout = Layout.of({"w": ((3,), dtype)})
    total = Accumulator(Grid(width, 8.0, 10, dtype), layout)
    other = np.int64 if total.grid.integer == np.int32 else np.int32
    with pytest.raises(UpdateRefused, match=f"a partial sum of {np.dtype(other)}; this round sums"):
        total.add_sum(PartialSum(np.zeros(3, other), np.zeros(0, np.int64), 1))


@pytest.mark.parametrize(
    ("width", "clip", "total_weight", "says"),
    [
        (16, 8.0, 1, "width 16; allowed: 32, 64"),
        (32, 3.0, 1, "clip 3.0; a power of two"),
        (32, 0.0, 1, "clip 0.0; a power of two"),
        (32, -8.0, 1, "clip -8.0; a power of two"),
        (32, float("inf"), 1, "clip inf; a power of two"),
        (32, float("nan"), 1, "clip nan; a power of two"),
        (64, 8.0, 0, "total weight 0; between 1 and"),
        (64, 8.0, 2**53, "total weight 9007199254740992; between 1 and"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(width: int, clip: float, total_weight: int, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Grid(width, clip, total_weight)


def test_a_mean_of_no_members_is_a_mistake_of_ours() -> None:
    grid = Grid(32, 8.0, 10)
    with pytest.raises(AssertionError, match="no members"):
        decode(Accumulator(grid, LAYOUT).total(), grid)


def test_a_member_is_what_hypothesis_drew() -> None:
    """Guards the drawing itself: members with several weights, changes that are not all zero."""
    seen: list[tuple[int, bool]] = []

    @settings(max_examples=30)
    @given(rounds(width=32, dtype="float32"))
    def look(round_: object) -> None:
        members: tuple[Member, ...] = round_.members  # type: ignore[attr-defined]
        seen.append((len(members), any(member.local.floats.any() for member in members)))

    look()
    assert max(num for num, _ in seen) > 3
    assert sum(moved for _, moved in seen) > 10
