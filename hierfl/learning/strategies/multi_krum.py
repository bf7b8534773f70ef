"""Multi-Krum: the mean of the changes with the lowest Krum scores (Blanchard et al. 2017, "Machine Learning with
Adversaries: Byzantine Tolerant Gradient Descent", Section 6).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.strategies._fields import between
from hierfl.learning.strategies._robust import blocks
from hierfl.learning.strategies.krum import Krum
from hierfl.learning.strategy import State, Vector

__all__ = ["MultiKrum"]


@dataclass(frozen=True)
class MultiKrum(Krum):
    """The plain mean of the `num_selected` best; n > 2 f + 2."""

    num_selected: int | None = None
    """m: changes that are averaged, at most n - f - 2 for the paper's proof; null takes that many."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_selected is not None:
            between("num_selected", self.num_selected, 1, open_low=False)

    def least(self) -> int:
        """Give the fewest members: n > 2 f + 2, and enough to select from."""
        return max(super().least(), (self.num_selected or 1) + self.num_byzantine + 2)

    def rule(self, deltas: Vector, weights: NDArray[np.float64], state: State) -> Vector:
        """Average the changes with the lowest scores, of equals the first by name."""
        count = self.num_selected or len(deltas) - self.num_byzantine - 2
        chosen = np.sort(np.argsort(self.scores(deltas), kind="stable")[:count])
        mean: Vector = np.empty_like(deltas[0])
        for cut in blocks(deltas):
            mean[cut] = deltas[chosen, cut].mean(axis=0, dtype=np.float64)
        return mean
