"""No federation: every site trains a model of its own, from the same start, and nothing of it leaves the site."""

from __future__ import annotations

from dataclasses import dataclass

from hierfl.learning.local import LocalRule, Parts
from hierfl.learning.strategies._partial import Partial
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.learning.strategy import Strategy

__all__ = ["Alone"]


@dataclass(frozen=True)
class Alone(FedAvg):
    """Rounds without an exchange: the hub's model stays as it began, each site goes on from where it was."""

    def objective(self) -> LocalRule:
        """Keep every tensor."""
        return _Everything(("*",))

    def inherited(self) -> Strategy:
        """So it is in the whole subtree."""
        return self


@dataclass(frozen=True)
class _Everything(Partial):
    """The sites' side: all tensors are the site's own, which is what is wanted here."""

    def misfit(self, parts: Parts) -> str:
        """Fit any model."""
        return ""
