r"""One ring for every sum: updates are fixed-point integers, and integer addition is exact.

A member of weight n_k sends, for a change d of each parameter, with W the public total weight of the round:

    32 bits:  q_k = round_half_even(n_k / W * d / step)      mean = step * W * sum(q_k) / sum(n_k)
    64 bits:  q_k = n_k * round_half_even(d / step)          mean = step * sum(q_k) / sum(n_k)

The scale (n_k / W / step, or 1 / step) is one float64 number; the product with d is rounded once to float64 and then
half to even to an integer: multiply, then round. Sums cannot wrap: |d| <= clip is checked for every element, and the
members' weights add up to at most W, so that |sum| <= clip / step for 32 bits and clip / step * W for 64. The sum
is the same for any order, any grouping, any tree, and any worker that adds up a part of it.

A model with float64 tensors always travels in int64. Integer buffers are summed as n_k * d exactly, in int64; their
mean is rounded half to even. Errors of the mean: at most num_members * step * W / (2 * sum(n_k)) for 32 bits and
step / 2 for 64, beside float rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import QUOTED, UpdateRefused
from hierfl.learning import blocks as by
from hierfl.learning import native, quantise
from hierfl.learning.state import Layout, ModelState

__all__ = ["Accumulator", "Grid", "PartialSum", "check_part", "decode", "over_clip", "sum_all"]

MAX_FAN_IN = 8
"""Partial sums that are added in one pass over the accumulator."""

BUFFERS = (
    "it follows the data and not the steps: bring the features to one scale (standardise), let the layer stay at the"
    " sites (strategy: fedbn or fedper), leave the buffer out of the state (persistent=False), or raise arithmetic.clip"
)
"""What helps where a buffer moves too far."""


@dataclass(frozen=True)
class Grid:
    """The fixed-point grid of one round, the same for all its members; part of the round's opening record.

    `width` bits per float32 parameter, `clip` the largest magnitude of a change (a power of two), `total_weight` W,
    `dtype` of the model.
    Errors: ValueError if the sum of W could leave the width.
    """

    width: int
    clip: float
    total_weight: int
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.width not in (32, 64):
            raise ValueError(f"width {self.width}; allowed: 32, 64")
        if not self.clip > 0 or math.frexp(self.clip)[0] != 0.5:
            raise ValueError(f"clip {self.clip}; a power of two above 0")
        if not 1 <= self.total_weight < 2**53:
            raise ValueError(f"total weight {self.total_weight}; between 1 and 2**53")
        assert self.clip / self.step * (1 if self.normalised else self.total_weight) < 2 ** (self.bits - 1)

    @property
    def normalised(self) -> bool:
        """Whether members apply the public normalised weight n_k / W, and not the integer n_k."""
        return self.width == 32

    @property
    def bits(self) -> int:
        """Give the bits of one element of the sum: 32 only for float32 models at width 32."""
        return 32 if self.width == 32 and self.dtype == "float32" else 64

    @cached_property
    def step(self) -> float:
        """Give the grid's spacing, a power of two: the finest that leaves one bit of headroom."""
        spare = 0 if self.normalised else self.total_weight.bit_length()
        return math.ldexp(self.clip, -(self.bits - 2 - spare))

    @property
    def integer(self) -> np.dtype[Any]:
        """Give the dtype of the sums."""
        return np.dtype(np.int32 if self.bits == 32 else np.int64)

    def scale(self, weight: int) -> tuple[np.float64, int]:
        """Give the float64 factor before rounding and the integer factor after it, for a member of `weight`."""
        if self.normalised:
            return np.float64(weight / self.total_weight / self.step), 1
        return np.float64(1.0 / self.step), weight

    def unit(self, weight: int) -> np.float64:
        """Give the value of one unit of the sum in the mean, for members of `weight` in all."""
        return np.float64(self.step * (self.total_weight / weight if self.normalised else 1.0 / weight))


@dataclass(frozen=True, slots=True)
class PartialSum:
    """The exact sum over some members: `floats` (P,) int32 or int64, `ints` (Q,) int64, `weight` their sum of n_k."""

    floats: NDArray[Any]
    ints: NDArray[np.int64]
    weight: int

    @property
    def num_bytes(self) -> int:
        """Count the bytes that travel."""
        return int(self.floats.nbytes + self.ints.nbytes)


class Accumulator:
    """One hub's (or worker's) running sum of one round; takes updates of members and partial sums of others.

    `memory`: an earlier sum's vector that nobody needs any more, to be written over; fresh memory of a large model
    costs more than the arithmetic.
    """

    def __init__(self, grid: Grid, layout: Layout, memory: NDArray[Any] | None = None) -> None:
        assert np.dtype(grid.dtype) == layout.float_dtype
        self.grid = grid
        self.layout = layout
        self.weight = 0
        fits = memory is not None and memory.shape == (layout.num_floats,) and memory.dtype == grid.integer
        # Memory that is fresh from the system is zero at no price; np.zeros does not touch it.
        self._floats = memory if memory is not None and fits else np.zeros(layout.num_floats, grid.integer)
        self._is_zero = not fits
        self._ints = np.zeros(layout.num_ints, np.int64)
        self._waiting: list[PartialSum] = []
        self._fresh = True

    def add_update(self, local: ModelState, start: ModelState, weight: int) -> None:
        """Quantise `local - start` where it was born and add it, in one pass over blocks.

        Errors: UpdateRefused (NaN, Inf, over the clip, another shape), naming the tensor; the sum stays as it was.
        """
        self._check_weight(weight)
        _check_shape(local.floats, local.ints, self.layout)
        self._check_ints(local, start, weight)
        self._clear()
        self._quantise(local.floats, start.floats, weight)
        if self._ints.size:  # most models have none, and to add nothing takes as long as a layer's step
            self._ints += (local.ints - start.ints) * np.int64(weight)
        self.weight += weight

    def add_change(
        self, change: NDArray[Any], ints: NDArray[np.int64], weight: int, places: NDArray[Any] | None = None
    ) -> None:
        """Quantise and add a change by itself: the whole vector, or, at `places`, each named once, some of it.

        Errors: as of `add_update`.
        """
        size = self.layout.num_floats
        if places is not None and (places.shape != change.shape or (places.size and int(places.max()) >= size)):
            raise UpdateRefused(
                f"places of an update that are not those of its {change.size} values, or outside {size}"
            )
        none = np.zeros(self.layout.num_ints, np.int64)
        self._check_weight(weight)
        _check_shape(change if places is None else self._floats, ints, self.layout)
        self._check_ints(ModelState(change, ints), ModelState(change, none), weight)
        self._clear()
        if places is None:
            self._quantise(change, None, weight)
        else:
            self._scatter(change, places, weight)
        self._ints += ints * np.int64(weight)
        self.weight += weight

    def add_sum(self, part: PartialSum) -> None:
        """Add another's partial sum; it may be read-only, and is read at the latest in `total`.

        Errors: UpdateRefused if its shape, dtype or weight cannot belong to this round.
        """
        check_part(part, self.grid, self.layout, self.weight)
        self.weight += part.weight
        self._waiting.append(part)
        if len(self._waiting) >= MAX_FAN_IN:
            self._fold()

    def total(self) -> PartialSum:
        """Give the sum so far; it shares memory with the accumulator, which must not be added to afterwards."""
        self._fold()
        self._clear()
        return PartialSum(self._floats, self._ints, self.weight)

    def mean(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Give the weighted mean change, as `decode` does, in `memory`; the accumulator must not be used afterwards.

        A partial sum that is the only one is read where it lies. Errors: AssertionError for a sum of no members.
        """
        if self._fresh and len(self._waiting) == 1:
            out = self.memory.view(self.grid.dtype)[: self.layout.num_floats]
            return decode(self._waiting[0], self.grid, out=out)
        return decode(self.total(), self.grid, consume=True)

    @property
    def memory(self) -> NDArray[Any]:
        """Give the sum's own vector, for another sum once nobody needs this one, nor its mean, any more."""
        return self._floats

    def _clear(self) -> None:
        """Set a sum that nothing was added to yet to zero: its memory may hold anything."""
        if self._fresh:
            if not self._is_zero:
                self._floats.fill(0)
            self._fresh = False

    def _fold(self) -> None:
        """Add the waiting partial sums, all of them block by block; what they add up to stays in cache until the last.

        So the accumulator's memory is written once, and read only if it held a sum before.
        """
        parts, self._waiting = self._waiting, []
        if not parts:
            return
        vectors = [part.floats for part in parts] if self._fresh else [self._floats, *(part.floats for part in parts)]
        self._fresh = False
        may_loop = len(vectors) > 1 and native.has_place(self._floats, *vectors)
        loop = native.summer(self._floats.dtype, self._floats.size) if may_loop else None
        by.each_block(partial(_add_up, self._floats, vectors, loop), self._floats.size)
        for part in parts:
            np.add(self._ints, part.ints, out=self._ints)

    def _quantise(self, local: NDArray[Any], start: NDArray[Any] | None, weight: int) -> None:
        """Add round(scale * (local - start)); `start` None: of `local` itself."""
        factor, multiple = self.grid.scale(weight)
        local = local.astype(self.grid.dtype, copy=False)
        if not quantise.add(self._floats, local, start, float(factor), multiple, self.grid.clip):
            self._refuse(local, start)

    def _scatter(self, change: NDArray[Any], places: NDArray[Any], weight: int) -> None:
        """Add round(scale * change) at places."""
        if change.size and not (change.max() <= self.grid.clip and change.min() >= -self.grid.clip):
            bad = int(np.flatnonzero(~(np.abs(change) <= self.grid.clip))[0])
            said = over_clip(self.layout, int(places[bad]), self.grid.clip)
            raise UpdateRefused(f"{said} changed by {change[bad]:g}")
        factor, multiple = self.grid.scale(weight)
        units = np.rint(np.multiply(change, factor, dtype=np.float64)).astype(self.grid.integer)
        self._floats[places] += units * self.grid.integer.type(multiple)

    def _check_weight(self, weight: int) -> None:
        """Refuse a weight that the round has no room for."""
        if weight < 1 or self.weight + weight > self.grid.total_weight:
            raise UpdateRefused(
                f"weight {weight} after {self.weight} of a total of {self.grid.total_weight}: weights are positive"
                " and were fixed when the round opened"
            )

    def _refuse(self, local: NDArray[Any], start: NDArray[Any] | None) -> None:
        """Name the first element that has no place on the grid."""
        index, moved = quantise.first_outside(local, start, self.grid.clip)
        name, value = self.layout.locate(index, is_float=True), local[index]
        if np.isfinite(value):
            help_ = "lower training.lr, set training.clip_norm, or raise arithmetic.clip"
            raise UpdateRefused(over_clip(self.layout, index, self.grid.clip, help_) + f" changed by {moved:g}")
        raise UpdateRefused(
            "the model is not finite any more; lower training.lr, set training.clip_norm, or look at the site's"
            f" data{QUOTED}{name} is {value}"
        )

    def _check_ints(self, local: ModelState, start: ModelState, weight: int) -> None:
        """Refuse integer buffers whose weighted sum could wrap."""
        if not local.ints.size:
            return
        bound = 2**62 // self.grid.total_weight
        change = local.ints - start.ints
        wrapped = (change < 0) != (local.ints < start.ints)
        outside = wrapped | (change > bound) | (change < -bound)
        if outside.any():
            index = int(np.flatnonzero(outside)[0])
            name = self.layout.locate(index, is_float=False)
            raise UpdateRefused(
                f"an integer changed out of range{QUOTED}{name} changed from {start.ints[index]} to {local.ints[index]}"
            )


def _add_up(
    into: NDArray[Any], vectors: Sequence[NDArray[Any]], loop: native.Sum | None, cuts: Iterable[slice]
) -> None:
    """Write the sum of vectors over another, which may be the first of them, in some blocks."""
    if loop is not None:
        for cut in cuts:
            loop(into[cut], [vector[cut] for vector in vectors])
        return
    cached = by.SCRATCH.vector("running", min(by.WIDE * by.BLOCK, into.size), into.dtype)
    for cut in cuts:
        block = into[cut]
        running: NDArray[Any] = vectors[0][cut]
        for vector in vectors[1:-1]:
            running = np.add(running, vector[cut], out=cached[: block.size])
        if len(vectors) == 1:
            np.copyto(block, running)
        else:
            np.add(running, vectors[-1][cut], out=block)


def over_clip(layout: Layout, index: int, clip: float, help_: str = "") -> str:
    """Say that an element changed by more than the clip, and what helps; a buffer follows the data, not the steps. What
    is behind it goes on, "by how much".
    """
    said = f"a change is over the clip of {clip:g}" + (f"; {help_}" if help_ else "")
    if layout.is_buffer(index):
        said = f"a change of a buffer is over the clip of {clip:g}; {BUFFERS}"
    return f"{said}{QUOTED}{layout.locate(index, is_float=True)}"


def check_part(part: PartialSum, grid: Grid, layout: Layout, weight: int) -> None:
    """Errors: UpdateRefused if a partial sum cannot belong to a round in which `weight` is in already."""
    _check_shape(part.floats, part.ints, layout)
    if part.floats.dtype != grid.integer:
        raise UpdateRefused(f"a partial sum of {part.floats.dtype}; this round sums {grid.integer}")
    if part.weight < 1 or weight + part.weight > grid.total_weight:
        raise UpdateRefused(f"weight {part.weight} after {weight} of {grid.total_weight} in all")


def decode(
    total: PartialSum, grid: Grid, *, consume: bool = False, out: NDArray[Any] | None = None
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Give the weighted mean change: floats in the model's dtype, ints rounded half to even.

    `consume`: write the floats over the sum, which is then gone; at large models fresh memory costs more than the
    arithmetic. `out`: write them there. Errors: AssertionError for a sum of no members.
    """
    assert total.weight > 0, "a mean of no members"
    sums = total.floats
    # No element of the mean is wider than one of the sum, so what is written over was read.
    mean = sums.view(grid.dtype)[: sums.size] if consume else np.empty(sums.shape, grid.dtype) if out is None else out
    scale = partial(_scale, mean, sums, grid.unit(total.weight))
    if consume and mean.itemsize < sums.itemsize:  # a block of the mean lies over an earlier one of the sum
        scale(by.blocks(mean.size, by.WIDE))
    else:
        by.each_block(scale, mean.size)
    return mean, _divide_half_even(total.ints, total.weight)


def _scale(mean: NDArray[Any], sums: NDArray[Any], unit: np.float64, cuts: Iterable[slice]) -> None:
    """Write sums times the value of their unit, rounded once to the mean's dtype, in some blocks."""
    is_apart = mean.itemsize == sums.itemsize or not np.may_share_memory(mean, sums)
    loop = native.scaler(mean.dtype, sums.dtype) if is_apart and native.has_place(mean, sums) else None
    for cut in cuts:
        if loop is not None:
            loop(mean[cut], sums[cut], float(unit))
        else:
            np.multiply(sums[cut], unit, out=mean[cut], dtype=np.float64, casting="unsafe")


def sum_all(parts: Sequence[PartialSum], grid: Grid, layout: Layout) -> PartialSum:
    """Add partial sums; for tests and tools."""
    total = Accumulator(grid, layout)
    for part in parts:
        total.add_sum(part)
    return total.total()


def _check_shape(floats: NDArray[Any], ints: NDArray[Any], layout: Layout) -> None:
    """Refuse vectors that are not of this layout."""
    if floats.shape != (layout.num_floats,) or ints.shape != (layout.num_ints,):
        raise UpdateRefused(
            f"an update of {floats.shape} and {ints.shape} elements;"
            f" the model has {(layout.num_floats,)} and {(layout.num_ints,)}"
        )


def _divide_half_even(values: NDArray[np.int64], divisor: int) -> NDArray[np.int64]:
    """Divide integers, rounding half to even, without leaving the integers."""
    if not values.size:
        return values.copy()
    quotient, remainder = np.divmod(values, np.int64(divisor))
    doubled = 2 * remainder
    up = (doubled > divisor) | ((doubled == divisor) & (quotient % 2 == 1))
    rounded: NDArray[np.int64] = quotient + up.astype(np.int64)
    return rounded
