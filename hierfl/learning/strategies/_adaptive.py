"""Adaptive server optimisers (Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2): all but the second
moment is the same for FedAdagrad, FedAdam and FedYogi.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.strategies._fields import between
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.learning.strategy import State, Vector

__all__ = ["Adaptive"]


@dataclass(frozen=True)
class Adaptive(FedAvg):
    """A server step x + lr * m / (sqrt(v) + tau), without bias correction as in the paper."""

    linear: ClassVar[bool] = False

    lr: float = 0.1
    """The server's learning rate (eta)."""
    beta1: float = 0.9
    """Decay of the first moment, from 0 to below 1."""
    tau: float = 1e-3
    """Degree of adaptivity, above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between("lr", self.lr, 0.0)
        between("beta1", self.beta1, 0.0, 1.0, open_low=False)
        between("tau", self.tau, 0.0)

    def init(self, model: Vector) -> State:
        """Start with m = 0 and v = tau^2, shapes (P,), as the paper's experiments do."""
        return {"m": np.zeros_like(model), "v": np.full_like(model, self.tau**2)}

    def step(self, model: Vector, delta: Vector, state: State, share: float = 1.0) -> tuple[Vector, State]:
        """Take one adaptive step along the mean change."""
        dtype = model.dtype.type
        m = state["m"] * dtype(self.beta1) + dtype(1.0 - self.beta1) * delta
        v = self.second(state["v"], np.square(delta))
        return _adaptive_step(model, m, v, self.lr, self.tau), {"m": m, "v": v}

    def second(self, v: Vector, squared: Vector) -> Vector:
        """Return the next second moment, shape (P,), from the squared mean change."""
        raise NotImplementedError


def _adaptive_step(model: Vector, momentum: Vector, second: Vector, lr: float, tau: float) -> NDArray[Any]:
    """Return x + lr * m / (sqrt(v) + tau) in the model's dtype (Reddi et al. 2021, Algorithm 2, last line)."""
    dtype = model.dtype.type
    scaled = np.sqrt(second)
    scaled += dtype(tau)
    np.divide(momentum, scaled, out=scaled)
    scaled *= dtype(lr)
    scaled += model
    return scaled
