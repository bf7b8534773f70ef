"""SCAFFOLD: control variates correct the drift of sites whose data differ (Karimireddy et al. 2020, "SCAFFOLD:
Stochastic Controlled Averaging for Federated Learning", Algorithm 1, option II).

Each step of site k follows g - c_k + c. After K steps of rate eta from x to y:

    c_k <- c_k - c + (x - y) / (K eta)      x <- x + lr * mean(y - x)      c <- c + |S| / N * mean(c_k' - c_k)

with the hub's weights in its means. The control variates c go down with the model, their changes come up with the
updates, in the same exact sums; c_k stays at the site. The paper's sites take plain SGD steps: with momentum or an
adaptive optimizer (x - y) / (K eta) is no mean gradient any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hierfl.learning.local import Finished, LocalRule, Parts, Pass, PlainRule, Pull, Trained, joined
from hierfl.learning.strategies._below import Below
from hierfl.learning.strategies._fields import between
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.learning.strategy import State, Strategy, Vector

__all__ = ["Scaffold"]


@dataclass(frozen=True)
class Scaffold(FedAvg):
    """FedAvg with control variates at the hub and at every site below it."""

    linear: ClassVar[bool] = False
    plain_steps: ClassVar[bool] = True
    """Whether it counts on sites' plain steps of SGD; those who take others are warned of."""
    lasting: ClassVar[tuple[str, ...]] = ("weights",)
    """With others c is no mean of the c_k any more, and the model ends beside the optimum."""

    lr: float = 1.0
    """The hub's learning rate (eta_g)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between("lr", self.lr, 0.0)

    def objective(self) -> LocalRule:
        """Correct each step by c - c_k."""
        return _ControlVariates()

    def inherited(self) -> Strategy:
        """Inner hubs average the model, move c as far as their members took part, and hand both down."""
        return _InnerHub.hub(self)

    def init(self, model: Vector) -> State:
        """Start with c = 0, shape (P,)."""
        return {"control": np.zeros_like(model)}

    def broadcast(self, model: Vector, state: State) -> Vector:
        """Send the model and c."""
        return joined([model, state["control"]])

    def step(self, model: Vector, delta: Vector, state: State, share: float = 1.0) -> tuple[Vector, State]:
        """Move the model along the mean change, and c along its own, as far as members took part."""
        dtype, size = model.dtype.type, model.size
        control = state["control"] + dtype(share) * delta[size:]
        return model + dtype(self.lr) * delta[:size], {"control": control}


@dataclass(frozen=True)
class _InnerHub(Below):
    """What a hub below does: c is the mean over all sites, so that of those who stayed away nothing is made up."""

    def step(self, model: Vector, delta: Vector, state: State, share: float = 1.0) -> tuple[Vector, State]:
        """Move the model along the mean change, and c along its own, as far as members took part."""
        if share != 1.0:
            size = delta.size // 2
            delta = joined([delta[:size], delta.dtype.type(share) * delta[size:]])
        return super().step(model, delta, state, share)


@dataclass(frozen=True)
class _ControlVariates(PlainRule):
    """The sites' side."""

    keeps: ClassVar[bool] = True
    accumulates: ClassVar[bool] = True

    def channels(self, num_floats: int) -> Mapping[str, int]:
        """C goes down, and changes of c come up."""
        return {"control": num_floats}

    def passes(self, model: Vector, sent: State, kept: State, parts: Parts) -> Sequence[Pass]:
        """Train once, each gradient corrected."""
        own = kept.get("control")
        return (Pass(model, Pull(shift=sent["control"] if own is None else sent["control"] - own)),)

    def finish(self, model: Vector, trained: Trained, sent: State, kept: State, parts: Parts) -> Finished:
        """Make the site's next control variate; buffers have none."""
        own = kept.get("control", np.zeros_like(model))
        mean_gradient = (model - trained.ends[-1]) / model.dtype.type(max(1, trained.num_steps) * trained.lr)
        following = np.where(parts.trainable, own - sent["control"] + mean_gradient, model.dtype.type(0))
        return Finished(trained.ends[-1], {"control": following - own}, {"control": following})
