r"""Mixing of models that differ, in exact sums: what a member of a peer-to-peer hub does with its neighbours' models.

A member i with the model b_i takes the part W_ij of each z_j = b_j + d_j, where the change d_j comes as an update, that
is as integers q_j on the round's grid with j's weight n_j. With N, the weight of all who take part, and u, the grid's
unit for it (see `ring`):

    S_i = sum_j  round(W_ij N / n_j * q_j)  +  round(W_ij / u * (b_j - b_i))        x_i = b_i + S_i u

W_ij is a fraction of integers, rounded once to float64 with what it is multiplied by; each term is rounded half to even
to an integer, and integers add up in any order. Where all start from one model and W_ij is n_j / N, the terms are the
q_j themselves, and x_i has the bits of the weighted mean at a star.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import QUOTED, UpdateRefused
from hierfl.learning.blocks import blocks
from hierfl.learning.ring import Grid, PartialSum, decode
from hierfl.learning.state import Layout, ModelState

__all__ = ["average", "mix"]


def mix(
    grid: Grid,
    layout: Layout,
    own: int,
    weights: Sequence[Fraction],
    total: int,
    models: Sequence[ModelState],
    parts: Sequence[PartialSum] = (),
) -> ModelState:
    """Give x_i: `models` b_j, floats (P,) and ints (Q,) each, `own` the index of b_i, `parts` the updates q_j or none.

    Errors: UpdateRefused, naming the tensor, where two models are further apart than the grid's clip.
    """
    base = models[own]
    floats = np.zeros(base.floats.shape, np.int64)
    ints = np.zeros(base.ints.shape, np.int64)
    for part, weight in zip(parts, weights, strict=False):
        ratio = weight * total / part.weight
        _add_scaled(floats, part.floats, ratio)
        ints += _scaled(part.ints, ratio)
    for model, weight in zip(models, weights, strict=True):
        if model is not base:
            _add_apart(floats, model.floats, base.floats, float(weight) / grid.unit(total), grid.clip, layout)
            ints += _scaled(model.ints - base.ints, weight * total)
    change, counted = decode(PartialSum(floats, ints, total), grid)
    return ModelState(np.add(base.floats, change), base.ints + counted)


def average(clip: float, weights: Sequence[int], models: Sequence[ModelState]) -> ModelState:
    """Give the weighted mean of models, or of the same slice of them; of equal ones their very bits.

    Errors: UpdateRefused where two of them are further apart than `clip`.
    """
    total, first = sum(weights), models[0]
    grid = Grid(64, clip, total, str(first.floats.dtype))
    layout = Layout.of({"the members' models": ((first.floats.size,), str(first.floats.dtype))})
    shares = [Fraction(weight, total) for weight in weights]
    return mix(grid, layout, 0, shares, total, models)


def _add_scaled(into: NDArray[np.int64], values: NDArray[Any], ratio: Fraction) -> None:
    """Add round(ratio * values); with a ratio of 1 exactly the values."""
    if ratio == 1:
        np.add(into, values, out=into)
        return
    factor = np.float64(ratio.numerator / ratio.denominator)
    for cut in blocks(into.size):
        into[cut] += np.rint(values[cut] * factor).astype(np.int64)


def _add_apart(
    into: NDArray[np.int64], other: NDArray[Any], base: NDArray[Any], factor: np.float64, clip: float, layout: Layout
) -> None:
    """Add round(factor * (other - base)). Errors: UpdateRefused."""
    for cut in blocks(into.size):
        apart = np.subtract(other[cut], base[cut])
        if not (apart.max() <= clip and apart.min() >= -clip):
            index = int(np.flatnonzero(~(np.abs(apart) <= clip))[0])
            name = layout.locate(cut.start + index, is_float=True)
            raise UpdateRefused(
                f"two members are apart by more than the clip of {clip:g}; mix more (gossip_steps, a denser graph),"
                f" lower training.lr, or raise arithmetic.clip{QUOTED}{name} is {apart[index]:g} apart"
            )
        into[cut] += np.rint(np.multiply(apart, factor, dtype=np.float64)).astype(np.int64)


def _scaled(values: NDArray[np.int64], ratio: Fraction) -> NDArray[np.int64]:
    """Multiply integers by a fraction, rounding half to even; exact for any size."""
    if ratio == 1:
        return values
    return np.array([round(int(value) * ratio) for value in values], np.int64)
