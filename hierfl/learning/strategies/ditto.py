"""Ditto: beside the federation's model each site trains one of its own, held near it (Li et al. 2021, "Ditto: Fair and
Robust Federated Learning Through Personalization", Algorithm 1): v_k <- v_k - eta (grad F_k(v_k) + lambda (v_k - w)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hierfl.learning.local import Finished, LocalRule, Parts, Pass, PlainRule, Pull, Trained
from hierfl.learning.strategies._fields import between
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.learning.strategy import State, Strategy, Vector

__all__ = ["Ditto"]


@dataclass(frozen=True)
class Ditto(FedAvg):
    """FedAvg, bit for bit, and a personal model at each site, which is the one that is measured there."""

    lam: float = 0.1
    """lambda: how strongly a personal model is held near the federation's; 0 trains it alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between("lam", self.lam, 0.0, open_low=False)

    def objective(self) -> LocalRule:
        """Train two models."""
        return _Personal(self.lam)

    def inherited(self) -> Strategy:
        """So it is in the whole subtree."""
        return self


@dataclass(frozen=True)
class _Personal(PlainRule):
    """The sites' side: the personal model first, then the federation's as plain averaging does."""

    lam: float

    keeps: ClassVar[bool] = True
    is_personal: ClassVar[bool] = True

    def passes(self, model: Vector, sent: State, kept: State, parts: Parts) -> Sequence[Pass]:
        """Train v_k towards its loss and the model, then the model."""
        personal = self.personal(model, kept, parts)
        return (Pass(personal, Pull(self.lam, anchor=model), "personal"), Pass(model))

    def num_steps(self, steps: int) -> int:
        """Train two models."""
        return 2 * steps

    def finish(self, model: Vector, trained: Trained, sent: State, kept: State, parts: Parts) -> Finished:
        """Keep the one, send the other."""
        return Finished(trained.ends[-1], kept={"model": trained.ends[0]})

    def personal(self, model: Vector, kept: State, parts: Parts) -> Vector:
        """Use v_k; before the first round the hub's model."""
        return kept.get("model", model)
