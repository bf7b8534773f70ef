"""Rounds as Hypothesis draws them: a grid, a model to start from, and members with weights and trained models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from hierfl.learning.ring import Accumulator, Grid, PartialSum
from hierfl.learning.state import Layout, ModelState

__all__ = [
    "DTYPES",
    "Member",
    "Round",
    "add_up",
    "equal",
    "exact_mean",
    "frozen",
    "layout_of",
    "oracle",
    "rounds",
    "trees",
]

DTYPES = ("float32", "float64")


def layout_of(dtype: str) -> Layout:
    """Seven floats in three tensors and three integers in two."""
    return Layout.of(
        {
            "body.weight": ((2, 2), dtype),
            "body.seen": ((), "int64"),
            "scale": ((), dtype),
            "head.bias": ((2,), dtype),
            "counts": ((2,), "int32"),
        }
    )


@dataclass(frozen=True)
class Member:
    weight: int
    local: ModelState


@dataclass(frozen=True)
class Round:
    """One round: all `members` start from `start`; their weights add up to the grid's total or to less."""

    grid: Grid
    layout: Layout
    start: ModelState
    members: tuple[Member, ...]

    @property
    def weight(self) -> int:
        return sum(member.weight for member in self.members)


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """As arrays from an object store are: read-only."""
    array.setflags(write=False)
    return array


def add_up(round_: Round, members: Iterable[Member]) -> PartialSum:
    """One accumulator that takes the members in the order given."""
    total = Accumulator(round_.grid, round_.layout)
    for member in members:
        total.add_update(member.local, round_.start, member.weight)
    return total.total()


def equal(left: PartialSum, right: PartialSum) -> bool:
    """Bit for bit."""
    return (
        left.weight == right.weight
        and left.floats.dtype == right.floats.dtype
        and left.floats.tobytes() == right.floats.tobytes()
        and left.ints.tobytes() == right.ints.tobytes()
    )


def oracle(round_: Round) -> tuple[list[int], list[int]]:
    """The sums by the specification, in Python's unbounded integers: multiply once, then round half to even."""
    grid = round_.grid
    floats, ints = [0] * round_.layout.num_floats, [0] * round_.layout.num_ints
    for member in round_.members:
        factor = member.weight / grid.total_weight / grid.step if grid.width == 32 else 1.0 / grid.step
        times = 1 if grid.width == 32 else member.weight
        for index in range(len(floats)):
            change = member.local.floats[index] - round_.start.floats[index]
            floats[index] += times * round(float(change) * factor)
        for index in range(len(ints)):
            ints[index] += member.weight * (int(member.local.ints[index]) - int(round_.start.ints[index]))
    return floats, ints


def exact_mean(round_: Round, index: int) -> Fraction:
    """The weighted mean change of one parameter, in fractions; each change as the model's dtype has it."""
    total = Fraction(0)
    for member in round_.members:
        total += member.weight * Fraction(float(member.local.floats[index] - round_.start.floats[index]))
    return total / round_.weight


@st.composite
def rounds(draw: st.DrawFn, *, width: int, dtype: str, max_members: int = 12) -> Round:
    """Draw a round; changes reach the clip on both sides, and fall on halves of the grid's step."""
    layout = layout_of(dtype)
    clip = 2.0 ** draw(st.integers(-6, 6))
    weights = draw(st.lists(st.integers(1, 40) | st.integers(1, 2**40), min_size=1, max_size=max_members))
    grid = Grid(width, clip, sum(weights) + draw(st.sampled_from([0, 0, 1, 1000])), dtype)
    bits = 32 if dtype == "float32" else 64
    halves = st.integers(-9, 9).map(lambda k: k * grid.step / 2)
    values = st.floats(-clip / 2, clip / 2, width=bits) | st.sampled_from([-clip / 2, clip / 2]) | halves
    vectors = st.lists(values, min_size=layout.num_floats, max_size=layout.num_floats)
    counts = st.lists(st.integers(-(10**5), 10**5), min_size=layout.num_ints, max_size=layout.num_ints)
    bound = min(10**5, 2**62 // grid.total_weight // 2)

    def state() -> ModelState:
        ints = np.clip(np.array(draw(counts), np.int64), -bound, bound)
        return ModelState(frozen(np.array(draw(vectors), dtype)), frozen(ints))

    start = state()
    return Round(grid, layout, start, tuple(Member(weight, state()) for weight in weights))


@st.composite
def trees(draw: st.DrawFn, leaves: Sequence[Any], depth: int = 4) -> Any:
    """Draw a tree over all leaves, each once: nested lists of any shape."""
    if len(leaves) == 1 and (depth == 0 or draw(st.booleans())):
        return leaves[0]
    if depth == 0:
        return list(leaves)
    cuts = sorted(draw(st.sets(st.integers(1, len(leaves) - 1), max_size=4))) if len(leaves) > 1 else []
    edges = [0, *cuts, len(leaves)]
    return [draw(trees(leaves[low:high], depth - 1)) for low, high in pairwise(edges)]
