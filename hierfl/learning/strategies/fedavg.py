"""FedAvg: federated averaging (McMahan et al. 2017; Algorithm 1 of Rieke et al. 2020 with weights N_k / N).

The other strategies of this folder average alike and differ in the hub's step, or in what the sites optimise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hierfl.errors import ConfigError
from hierfl.kinds import nearest
from hierfl.learning.local import LocalRule, Objective
from hierfl.learning.strategy import WEIGHTS, State, Strategy, Vector

__all__ = ["FedAvg"]


@dataclass(frozen=True)
class FedAvg:
    """The weighted mean of the members' models: the model plus the mean change, without a server optimiser."""

    linear: ClassVar[bool] = True
    lasting: ClassVar[tuple[str, ...]] = ()

    weights: str = "samples"
    """How members are weighed: samples (N_k), uniform, or given (`weight:` of each member)."""

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise ConfigError(f"weights {self.weights!r}{nearest(self.weights, WEIGHTS)}")

    def objective(self) -> LocalRule:
        """Add nothing to the task's loss."""
        return Objective()

    def inherited(self) -> Strategy:
        """An inner hub that names no strategy averages, weighing as this one does."""
        return FedAvg(weights=self.weights)

    def init(self, model: Vector) -> State:
        """Averaging has no state."""
        return {}

    def broadcast(self, model: Vector, state: State) -> Vector:
        """Send the model."""
        return model

    def step(self, model: Vector, delta: Vector, state: State, share: float = 1.0) -> tuple[Vector, State]:
        """Add the mean change, rounded once to the model's dtype."""
        return np.add(model, delta), state
