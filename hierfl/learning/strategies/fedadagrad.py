"""FedAdagrad (Reddi et al. 2021, Algorithm 2): v <- v + delta^2."""

from __future__ import annotations

from dataclasses import dataclass

from hierfl.learning.strategies._adaptive import Adaptive
from hierfl.learning.strategy import Vector

__all__ = ["FedAdagrad"]


@dataclass(frozen=True)
class FedAdagrad(Adaptive):
    """Adagrad at the hub; the paper runs it with beta1 = 0."""

    beta1: float = 0.0
    """Decay of the first moment, from 0 to below 1."""

    def second(self, v: Vector, squared: Vector) -> Vector:
        """Add the squared change."""
        return v + squared
