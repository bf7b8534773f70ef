"""FedDyn: each site's loss is regularised anew every round, so that its optimum and the federation's agree (Acar et al.
2021, "Federated Learning Based on Dynamic Regularization", Algorithm 1).

Site k minimises L_k(w) - <g_k, w> + alpha / 2 ||w - w_t||^2, and then g_k <- g_k - alpha (w_k - w_t). The hub:

    h <- h - alpha * |P| / m * mean(w_k - w_t)      w <- mean(w_k) - h / alpha
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hierfl.learning.local import Finished, LocalRule, Parts, Pass, PlainRule, Pull, Trained
from hierfl.learning.strategies._below import Below
from hierfl.learning.strategies._fields import between
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.learning.strategy import State, Strategy, Vector

__all__ = ["FedDyn"]


@dataclass(frozen=True)
class FedDyn(FedAvg):
    """Dynamic regularisation; the paper weighs members alike (`weights: uniform`)."""

    linear: ClassVar[bool] = False
    lasting: ClassVar[tuple[str, ...]] = ("weights",)
    """With others h is no mean of the g_k any more, and the model ends beside the optimum."""

    alpha: float = 0.01
    """Strength of the regularisation, above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between("alpha", self.alpha, 0.0)

    def objective(self) -> LocalRule:
        """Regularise each site's loss by what it kept."""
        return _Dynamic(self.alpha)

    def inherited(self) -> Strategy:
        """Inner hubs average; their sites are regularised like all others."""
        return Below.hub(self)

    def init(self, model: Vector) -> State:
        """Start with h = 0, shape (P,)."""
        return {"h": np.zeros_like(model)}

    def step(self, model: Vector, delta: Vector, state: State, share: float = 1.0) -> tuple[Vector, State]:
        """Correct the mean model by h."""
        dtype = model.dtype.type
        h = state["h"] - dtype(self.alpha * share) * delta
        return model + delta - h / dtype(self.alpha), {"h": h}


@dataclass(frozen=True)
class _Dynamic(PlainRule):
    """The sites' side; `gradient` is g_k."""

    alpha: float

    keeps: ClassVar[bool] = True
    accumulates: ClassVar[bool] = True

    def passes(self, model: Vector, sent: State, kept: State, parts: Parts) -> Sequence[Pass]:
        """Train once on the regularised loss."""
        own = kept.get("gradient")
        return (Pass(model, Pull(self.alpha, shift=None if own is None else -own)),)

    def finish(self, model: Vector, trained: Trained, sent: State, kept: State, parts: Parts) -> Finished:
        """Move g_k against the site's own change; buffers have none."""
        end, dtype = trained.ends[-1], model.dtype.type
        moved = np.where(parts.trainable, end - model, dtype(0))
        own = kept.get("gradient", np.zeros_like(model)) - dtype(self.alpha) * moved
        return Finished(end, kept={"gradient": own})
