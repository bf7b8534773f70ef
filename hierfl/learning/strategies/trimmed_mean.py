"""Coordinate-wise trimmed mean of the members' changes (Yin et al. 2018, "Byzantine-Robust Distributed Learning:
Towards Optimal Statistical Rates", Definition 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.strategies._robust import Robust, blocks
from hierfl.learning.strategy import State, Vector

__all__ = ["TrimmedMean"]


@dataclass(frozen=True)
class TrimmedMean(Robust):
    """In every coordinate the mean without the f smallest and the f largest; n > 2 f. Members' weights do not count."""

    def rule(self, deltas: Vector, weights: NDArray[np.float64], state: State) -> Vector:
        """Drop f values at each end of each coordinate and average the rest."""
        trimmed: Vector = np.empty_like(deltas[0])
        f = self.num_byzantine
        for cut in blocks(deltas):
            ordered = np.sort(deltas[:, cut].astype(np.float64), axis=0)
            trimmed[cut] = ordered[f : len(ordered) - f].mean(axis=0)
        return trimmed
