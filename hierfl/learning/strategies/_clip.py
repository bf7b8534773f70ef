"""Averages of changes that are kept within a distance of a centre."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.strategies._robust import blocks
from hierfl.learning.strategy import Vector

__all__ = ["averaged_within"]


def averaged_within(deltas: Vector, weights: NDArray[np.float64], centre: Vector, bound: float) -> Vector:
    """Return centre + sum_i w_i (d_i - centre) min(1, bound / ||d_i - centre||), shape (P,); in float64 inside."""
    squares = np.zeros(len(deltas))
    for cut in blocks(deltas):
        squares += np.square(deltas[:, cut] - centre[cut].astype(np.float64)).sum(axis=1)
    lengths = np.sqrt(squares)
    shares = weights * np.minimum(1.0, bound / np.maximum(lengths, np.finfo(np.float64).tiny))
    averaged = np.empty_like(centre)
    for cut in blocks(deltas):
        middle = centre[cut].astype(np.float64)
        averaged[cut] = middle + (shares[:, None] * (deltas[:, cut] - middle)).sum(axis=0)
    return averaged
