"""FedAvg: federated averaging (McMahan et al. 2017; Algorithm 1 of Rieke et al. 2020 with weights N_k / N)."""

from __future__ import annotations

from dataclasses import dataclass

from hierfl.learning.strategies._average import Average

__all__ = ["FedAvg"]


@dataclass(frozen=True)
class FedAvg(Average):
    """The weighted mean of the members' models."""
