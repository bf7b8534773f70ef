"""A mean that is written over its sum has the bits of one that is not."""

import numpy as np
import pytest

from hierfl.learning import blocks
from hierfl.learning.ring import Grid, PartialSum, decode


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
