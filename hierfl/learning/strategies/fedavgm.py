"""FedAvgM: averaging with server momentum (Hsu et al. 2019, "Measuring the Effects of Non-Identical Data
Distribution for Federated Visual Classification"): v <- beta * v + delta; x <- x + lr * v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hierfl.learning.strategies._fields import between
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.learning.strategy import State, Vector

__all__ = ["FedAvgM"]


@dataclass(frozen=True)
class FedAvgM(FedAvg):
    """FedAvg with momentum at the hub."""

    linear: ClassVar[bool] = False

    momentum: float = 0.9
    """Beta, from 0 to below 1."""
    lr: float = 1.0
    """The server's learning rate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between("momentum", self.momentum, 0.0, 1.0, open_low=False)
        between("lr", self.lr, 0.0)

    def init(self, model: Vector) -> State:
        """Start with a velocity of zero, shape (P,)."""
        return {"velocity": np.zeros_like(model)}

    def step(self, model: Vector, delta: Vector, state: State, share: float = 1.0) -> tuple[Vector, State]:
        """Take one momentum step along the mean change."""
        dtype = model.dtype.type
        velocity = state["velocity"] * dtype(self.momentum) + delta
        return model + dtype(self.lr) * velocity, {"velocity": velocity}
