"""Krum: the one change that lies nearest to most others (Blanchard et al. 2017, "Machine Learning with Adversaries:
Byzantine Tolerant Gradient Descent", Section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.strategies._robust import Robust, distances
from hierfl.learning.strategy import State, Vector

__all__ = ["Krum"]


@dataclass(frozen=True)
class Krum(Robust):
    """The change with the smallest sum of squared distances to its n - f - 2 nearest; n > 2 f + 2."""

    def least(self) -> int:
        """Give the fewest members: n > 2 f + 2."""
        return 2 * self.num_byzantine + 3

    def rule(self, deltas: Vector, weights: NDArray[np.float64], state: State) -> Vector:
        """Choose the change with the lowest score, of equals the first by name."""
        chosen: Vector = deltas[int(np.argmin(self.scores(deltas)))].copy()
        return chosen

    def scores(self, deltas: Vector) -> NDArray[np.float64]:
        """Give each member's sum of squared distances to its n - f - 2 nearest others, shape (n,)."""
        others = np.sort(distances(deltas), axis=1)[:, 1:]
        scores: NDArray[np.float64] = others[:, : len(deltas) - self.num_byzantine - 2].sum(axis=1)
        return scores
