"""How a change becomes integers: multiply, then round half to even, and add. See `ring` for what the numbers mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.learning import blocks as by
from hierfl.learning import native

__all__ = ["add", "by_numpy", "first_outside", "prepare"]


def prepare() -> None:
    """Make the machine code, where there is to be some: no site's time is to be measured by that."""
    native.adder(np.dtype(np.float32), np.dtype(np.int32))


def add(
    into: NDArray[Any], local: NDArray[Any], start: NDArray[Any] | None, factor: float, multiple: int, clip: float
) -> bool:
    """Add multiple * round(factor * (local - start)) to integers (P,), changes in the dtype of `local`.

    `start` None: `local` is the change. False if an element of the change is NaN or beyond the clip; then `into` is as
    it was.
    """
    from_start = [] if start is None else [start]
    are_alike = local.shape == into.shape and all((s.shape, s.dtype) == (local.shape, local.dtype) for s in from_start)
    loop = native.adder(local.dtype, into.dtype) if are_alike and native.has_place(into, local, *from_start) else None
    if loop is None:
        return by_numpy(into, local, start, factor, multiple, clip)
    if loop(into, local, start, factor, multiple, clip):
        return True
    loop(into, local, start, factor, -multiple, clip)  # integers can be taken back
    return False


def by_numpy(
    into: NDArray[Any], local: NDArray[Any], start: NDArray[Any] | None, factor: float, multiple: int, clip: float
) -> bool:
    """Do the same in NumPy, block by block."""
    size, dtype = min(by.BLOCK, local.size), local.dtype
    change = by.SCRATCH.vector("change", size, dtype)
    product = by.SCRATCH.vector("product", size, np.float64)
    is_as_wide = dtype.itemsize == into.itemsize  # then the units may lie where the change lay, which is used up
    whole = change.view(into.dtype) if is_as_wide else by.SCRATCH.vector("whole", size, into.dtype)
    cuts = by.blocks(local.size)

    def run(stop: int, put: Callable[..., Any]) -> int | None:
        """Quantise the blocks before `stop`; give the block that must be refused, if there is one."""
        for cut in cuts:
            first: int = cut.start
            if first >= stop:
                break
            block = into[cut]
            delta, scaled, units = change[: block.size], product[: block.size], whole[: block.size]
            np.subtract(local[cut], 0 if start is None else start[cut], out=delta)
            if not (float(np.maximum.reduce(delta)) <= clip and float(np.minimum.reduce(delta)) >= -clip):
                return first
            scaled[:] = delta
            np.multiply(scaled, factor, out=scaled)
            np.rint(scaled, out=scaled)
            units[:] = scaled
            if multiple != 1:
                np.multiply(units, multiple, out=units)
            put(block, units, out=block)
        return None

    with np.errstate(invalid="ignore", over="ignore"):
        bad = run(local.size, np.add)
        if bad is not None:
            run(bad, np.subtract)
    return bad is None


def first_outside(local: NDArray[Any], start: NDArray[Any] | None, clip: float) -> tuple[int, Any]:
    """Give the first element of the change that is NaN or beyond the clip, and by how much that one changed."""
    with np.errstate(invalid="ignore", over="ignore"):
        for cut in by.blocks(local.size):
            change = local[cut] if start is None else local[cut] - start[cut]
            found = np.flatnonzero(~(np.abs(change).astype(np.float64) <= clip))
            if found.size:
                return cut.start + int(found[0]), change[found[0]]
    raise AssertionError("every change is within the clip")
