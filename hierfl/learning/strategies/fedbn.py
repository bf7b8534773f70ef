"""FedBN: each site keeps its own normalisation layers (Li et al. 2021, "FedBN: Federated Learning on Non-IID Features
via Local Batch Normalization"): scales, shifts and statistics are those of its own scanners and patients.
"""

from __future__ import annotations

from dataclasses import dataclass

from hierfl.learning.local import LocalRule
from hierfl.learning.strategies._partial import Partial
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.learning.strategy import Strategy

__all__ = ["FedBN"]


@dataclass(frozen=True)
class FedBN(FedAvg):
    """The mean of all but the normalisation layers (batch, layer, group, instance and RMS norm of torch)."""

    def objective(self) -> LocalRule:
        """Keep them at the site."""
        return Partial(norms=True)

    def inherited(self) -> Strategy:
        """So it is in the whole subtree."""
        return self
