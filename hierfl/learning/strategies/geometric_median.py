"""Robust federated averaging: the weighted geometric median of the members' changes, by the smoothed Weiszfeld
algorithm (Pillutla et al. 2022, "Robust Aggregation for Federated Learning", Algorithm 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.strategies._fields import between
from hierfl.learning.strategies._robust import Robust, blocks
from hierfl.learning.strategy import State, Vector

__all__ = ["GeometricMedian"]


@dataclass(frozen=True)
class GeometricMedian(Robust):
    """The point whose weighted distances to all changes add up to the least; bad members must hold below half of the
    weight.
    """

    iterations: int = 8
    """Steps of the algorithm; the paper finds few enough."""
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
        """Move the weighted mean to where each change counts by its weight over its distance."""
        shares = weights
        for _ in range(self.iterations):
            away = np.sqrt(_distances_to_mean(deltas, shares))
            shares = weights / np.maximum(away, self.smoothing)
            shares = shares / shares.sum()
        return _mean(deltas, shares)


def _mean(deltas: Vector, shares: NDArray[np.float64]) -> Vector:
    """Average with shares that add up to 1, in float64 block by block."""
    mean: Vector = np.empty_like(deltas[0])
    for cut in blocks(deltas):
        mean[cut] = (shares[:, None] * deltas[:, cut]).sum(axis=0)
    return mean


def _distances_to_mean(deltas: Vector, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give each change's squared distance to the weighted mean, shape (n,)."""
    found = np.zeros(len(deltas))
    for cut in blocks(deltas):
        rows = deltas[:, cut].astype(np.float64)
        found += np.square(rows - (shares[:, None] * rows).sum(axis=0)).sum(axis=1)
    return found
