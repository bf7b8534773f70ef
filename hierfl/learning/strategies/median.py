"""Coordinate-wise median of the members' changes (Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards
Optimal Statistical Rates", Definition 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.strategies._robust import Robust, blocks
from hierfl.learning.strategy import State, Vector

__all__ = ["Median"]


@dataclass(frozen=True)
class Median(Robust):
    """The median in every coordinate; n > 2 f. Members' weights do not count."""

    def rule(self, deltas: Vector, weights: NDArray[np.float64], state: State) -> Vector:
        """Take the median of each coordinate; of an even number the mean of the middle two."""
        middle: Vector = np.empty_like(deltas[0])
        for cut in blocks(deltas):
            middle[cut] = np.median(deltas[:, cut].astype(np.float64), axis=0)
        return middle
