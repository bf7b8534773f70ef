"""FedYogi (Reddi et al. 2021, Algorithm 2): v <- v - (1 - beta2) * delta^2 * sign(v - delta^2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hierfl.learning.strategies._adaptive import Adaptive
from hierfl.learning.strategies._fields import between
from hierfl.learning.strategy import Vector

__all__ = ["FedYogi"]


@dataclass(frozen=True)
class FedYogi(Adaptive):
    """Yogi at the hub: the second moment moves by bounded steps."""

    beta2: float = 0.99
    """Decay of the second moment, from 0 to below 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between("beta2", self.beta2, 0.0, 1.0, open_low=False)

    def second(self, v: Vector, squared: Vector) -> Vector:
        """Move the second moment towards the squared change by a bounded step."""
        dtype = v.dtype.type
        second: Vector = v - dtype(1.0 - self.beta2) * squared * np.sign(v - squared)
        return second
