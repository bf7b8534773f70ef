"""Norm bounding: changes longer than a bound are scaled down to it before they are averaged (Sun et al. 2019, "Can You
Really Backdoor Federated Learning?", Section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.strategies._clip import averaged_within
from hierfl.learning.strategies._fields import between
from hierfl.learning.strategies._robust import Robust
from hierfl.learning.strategy import State, Vector

__all__ = ["NormBounding"]


@dataclass(frozen=True)
class NormBounding(Robust):
    """The weighted mean of changes cut to a Euclidean norm: it bounds what bad members do, and does not undo it."""

    bound: float = 1.0
    """The norm to which longer changes are scaled, above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between("bound", self.bound, 0.0)

    @property
    def tolerates(self) -> int:
        """None: what a bad member sends counts, if bounded."""
        return 0

    def promise(self, num_members: int) -> str:
        """Nothing is held off, all is bounded."""
        return f"no member moves the model by more than its weight times {self.bound:g}"

    def least(self) -> int:
        """Any number of members will do; to mix, one more than what is left out."""
        return self.num_byzantine + 1 if self.mixing else 1

    def rule(self, deltas: Vector, weights: NDArray[np.float64], state: State) -> Vector:
        """Scale long changes down, and average."""
        return averaged_within(deltas, weights, np.zeros_like(deltas[0]), self.bound)
