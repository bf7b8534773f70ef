"""A mean that is written over its sum has the bits of one that is not."""

import numpy as np
import pytest

from hierfl.learning import blocks
from hierfl.learning.ring import Accumulator, Grid, PartialSum, decode
from hierfl.learning.state import Layout, ModelState


@pytest.mark.parametrize(("width", "dtype"), [(32, "float32"), (64, "float32"), (64, "float64"), (32, "float64")])
def test_consumed_sum_gives_the_same_mean(width: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 7)
    monkeypatch.setattr(blocks, "each_block", lambda work, size: work(blocks.blocks(size)[::-1]))  # as threads may
    grid = Grid(width, 8.0, 96, dtype)
    sums = np.random.default_rng(1).integers(-(2**30), 2**30, 1000).astype(grid.integer)
    kept = PartialSum(sums.copy(), np.array([5, -3]), 77)
    mean, ints = decode(kept, grid)
    assert (kept.floats == sums).all()
    again, ints_again = decode(PartialSum(sums, np.array([5, -3]), 77), grid, consume=True)
    assert again.dtype == mean.dtype == dtype
    assert again.tobytes() == mean.tobytes() and ints.tolist() == ints_again.tolist()
    assert np.shares_memory(again, sums)


@pytest.mark.parametrize("num_parts", [1, 2, 9])
@pytest.mark.parametrize("updates_first", [False, True])
@pytest.mark.parametrize(("width", "dtype"), [(32, "float32"), (64, "float32"), (64, "float64")])
def test_a_mean_has_the_bits_of_the_sum_and_leaves_the_parts_as_they_were(
    width: int, dtype: str, updates_first: bool, num_parts: int
) -> None:
    random, size = np.random.default_rng(num_parts), 1000
    layout = Layout.of({"w": ((size,), dtype), "n": ((2,), "int64")})
    grid = Grid(width, 8.0, 96, dtype)
    parts = []
    for _ in range(num_parts):
        floats = random.integers(-(2**24), 2**24, size).astype(grid.integer)
        floats.flags.writeable = False
        parts.append(PartialSum(floats, np.array([5, -3]), 7))
    zero = ModelState(np.zeros(size, dtype), np.zeros(2, np.int64))
    own = ModelState(random.normal(size=size).astype(dtype), np.array([1, 2]))

    def filled(memory: np.ndarray | None = None) -> Accumulator:
        total = Accumulator(grid, layout, memory)
        if updates_first:
            total.add_update(own, zero, 3)
        for part in parts:
            total.add_sum(part)
        return total

    mean, ints = decode(filled().total(), grid)
    anything = np.full(size, 12345, grid.integer)
    total = filled(anything)
    again, ints_again = total.mean()
    assert again.dtype == dtype and again.tobytes() == mean.tobytes() and ints.tolist() == ints_again.tolist()
    assert np.shares_memory(again, total.memory) and total.memory is anything
    assert total.weight == 7 * num_parts + 3 * updates_first
