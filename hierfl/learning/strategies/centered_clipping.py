"""Centred clipping: changes are kept within a radius of the last aggregate (Karimireddy et al. 2021, "Learning from
History for Byzantine Robust Optimization", Algorithm 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.strategies._clip import averaged_within
from hierfl.learning.strategies._fields import between
from hierfl.learning.strategies._robust import Robust
from hierfl.learning.strategy import State, Vector

__all__ = ["CenteredClipping"]


@dataclass(frozen=True)
class CenteredClipping(Robust):
    """The last aggregate plus the mean of what the changes add to it, each cut to `radius`; the paper's proof takes
    f below n / 10.
    """

    stays_among: ClassVar[bool] = False

    radius: float = 1.0
    """tau: how far from the last aggregate a change counts in full, above 0."""
    iterations: int = 1
    """Times that the centre is moved within a round."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between("radius", self.radius, 0.0)
        between("iterations", self.iterations, 1, open_low=False)

    def promise(self, num_members: int) -> str:
        """What one member can do is bounded, round for round."""
        most = f"no member moves the aggregate by more than its weight times {self.radius:g} a round"
        return f"{super().promise(num_members)} where few are bad (n > 10 f in the paper's proof); {most}"

    def init(self, model: Vector) -> State:
        """Start from an aggregate of zero, shape (P,)."""
        return {"center": np.zeros_like(model)}

    def rule(self, deltas: Vector, weights: NDArray[np.float64], state: State) -> Vector:
        """Move the centre by the mean of the clipped differences."""
        centre = state["center"]
        for _ in range(self.iterations):
            centre = averaged_within(deltas, weights, centre, self.radius)
        return centre

    def step(self, model: Vector, delta: Vector, state: State, share: float = 1.0) -> tuple[Vector, State]:
        """Add the aggregate, which is the next round's centre."""
        return np.add(model, delta), {"center": delta.copy()}
