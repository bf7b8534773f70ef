"""What every strategy of this folder shares: members are averaged, and a server step may follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import ConfigError
from hierfl.kinds import nearest
from hierfl.learning.strategy import WEIGHTS, Objective, State, Strategy, Vector

__all__ = ["Average", "adaptive_step", "between"]


@dataclass(frozen=True)
class Average:
    """Weighted averaging without a server optimiser: the next model is the model plus the mean change."""

    linear: ClassVar[bool] = True

    weights: str = "samples"
    """How members are weighed: samples (N_k), uniform, or given (`weight:` of each member)."""

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise ConfigError(f"weights {self.weights!r}{nearest(self.weights, WEIGHTS)}")

    def objective(self) -> Objective:
        """Add nothing to the task's loss."""
        return Objective()

    def inherited(self) -> Strategy:
        """An inner hub that names no strategy averages, weighing as this one does."""
        return Average(weights=self.weights)

    def init(self, model: Vector) -> State:
        """Averaging has no state."""
        return {}

    def step(self, model: Vector, delta: Vector, state: State) -> tuple[Vector, State]:
        """Add the mean change, rounded once to the model's dtype."""
        return np.add(model, delta), state


def adaptive_step(model: Vector, momentum: Vector, second: Vector, lr: float, tau: float) -> NDArray[Any]:
    """Return x + lr * m / (sqrt(v) + tau) in the model's dtype (Reddi et al. 2021, Algorithm 2, last line)."""
    dtype = model.dtype.type
    scaled = np.sqrt(second)
    scaled += dtype(tau)
    np.divide(momentum, scaled, out=scaled)
    scaled *= dtype(lr)
    scaled += model
    return scaled


def between(name: str, value: float, low: float, high: float = float("inf"), *, open_low: bool = True) -> None:
    """Refuse a field outside its range, by name. Errors: ConfigError."""
    if not ((value > low if open_low else value >= low) and value < high):
        above = "above" if open_low else "at least"
        below = "" if high == float("inf") else f" and below {high:g}"
        raise ConfigError(f"{name} is {value}; {above} {low:g}{below}")
