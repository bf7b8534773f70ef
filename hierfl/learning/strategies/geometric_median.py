"""Robust federated averaging: the weighted geometric median of the members' changes, by the smoothed Weiszfeld
algorithm (Pillutla et al. 2022, "Robust Aggregation for Federated Learning", Algorithm 2).

The algorithm starts at the weighted median of each coordinate. From the mean, which one bad member may put anywhere, a
step takes away f / (n - f) of what f of n have done; from the median, near the good members, no step leads away from
them, since none makes the sum of the distances larger.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.strategies._fields import between
from hierfl.learning.strategies._robust import Robust, blocks
from hierfl.learning.strategy import State, Vector

__all__ = ["GeometricMedian"]

ROUNDING = 1e-12
"""Weights whose sums differ by no more than this part are taken for halves alike."""


@dataclass(frozen=True)
class GeometricMedian(Robust):
    """The point whose weighted distances to all changes add up to the least; bad members must hold below half of the
    weight.
    """

    iterations: int = 8
    """Steps of the algorithm, from the median of each coordinate; the paper finds few enough."""
    smoothing: float = 1e-6
    """Distances count at least this much, above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between("iterations", self.iterations, 1, open_low=False)
        between("smoothing", self.smoothing, 0.0)

    def promise(self, num_members: int) -> str:
        """The weight counts, not the number alone."""
        return f"{super().promise(num_members)} that hold less than half of the weight"

    def rule(self, deltas: Vector, weights: NDArray[np.float64], state: State) -> Vector:
        """Move to the mean in which each change counts by its weight over its distance, again and again."""
        shares = self._nearer(weights, _distances_to_median(deltas, weights))
        for _ in range(self.iterations - 1):
            shares = self._nearer(weights, _distances_to_mean(deltas, shares))
        return _mean(deltas, shares)

    def _nearer(self, weights: NDArray[np.float64], squared: NDArray[np.float64]) -> NDArray[np.float64]:
        """Let each change count by its weight over its distance, whose square is given; shares add up to 1."""
        shares: NDArray[np.float64] = weights / np.maximum(np.sqrt(squared), self.smoothing)
        return shares / np.sum(shares)


def _mean(deltas: Vector, shares: NDArray[np.float64]) -> Vector:
    """Average with shares that add up to 1, in float64 block by block."""
    mean: Vector = np.empty_like(deltas[0])
    for cut in blocks(deltas):
        mean[cut] = (shares[:, None] * deltas[:, cut]).sum(axis=0)
    return mean


def _distances_to_median(deltas: Vector, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give each change's squared distance to the weighted median of each coordinate, shape (n,)."""
    found = np.zeros(len(deltas))
    for cut in blocks(deltas):
        rows = deltas[:, cut].astype(np.float64)
        found += np.square(rows - _median(rows, weights)).sum(axis=1)
    return found


def _median(rows: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give each column's weighted median: half of the weight lies below; midway, where a gap parts the halves."""
    order = np.argsort(rows, axis=0, kind="stable")
    ranked, below = np.take_along_axis(rows, order, axis=0), np.cumsum(weights[order], axis=0)
    half = below[-1] / 2.0
    first, last = (np.argmax(below >= half * bound, axis=0) for bound in (1.0 - ROUNDING, 1.0 + ROUNDING))
    low, high = (np.take_along_axis(ranked, place[None], axis=0)[0] for place in (first, last))
    middle: NDArray[np.float64] = (low + high) / 2.0
    return middle


def _distances_to_mean(deltas: Vector, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give each change's squared distance to the weighted mean, shape (n,)."""
    found = np.zeros(len(deltas))
    for cut in blocks(deltas):
        rows = deltas[:, cut].astype(np.float64)
        found += np.square(rows - (shares[:, None] * rows).sum(axis=0)).sum(axis=1)
    return found
