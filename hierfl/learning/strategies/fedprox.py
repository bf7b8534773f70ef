"""FedProx: averaging with a proximal term at the sites (Li et al. 2020, "Federated Optimization in Heterogeneous
Networks", Eq. 2): each site minimises F_k(w) + mu / 2 * ||w - w_t||^2.
"""

from __future__ import annotations

from dataclasses import dataclass

from hierfl.learning.local import LocalRule, Objective
from hierfl.learning.strategies._fields import between
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.learning.strategy import Strategy

__all__ = ["FedProx"]


@dataclass(frozen=True)
class FedProx(FedAvg):
    """FedAvg whose sites are held near the model they were sent; `mu` 0 is FedAvg."""

    mu: float = 0.01
    """Strength of the proximal term, at least 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between("mu", self.mu, 0.0, open_low=False)

    def objective(self) -> LocalRule:
        """Add mu / 2 * ||w - w_t||^2 to the task's loss."""
        return Objective(mu=self.mu)

    def inherited(self) -> Strategy:
        """The proximal term holds for the whole subtree."""
        return self
