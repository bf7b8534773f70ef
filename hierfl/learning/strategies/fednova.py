"""FedNova: sites that take more steps do not count for more (Wang et al. 2020, "Tackling the Objective Inconsistency
Problem in Heterogeneous Federated Optimization", Eq. 9).

With tau_k plain SGD steps at site k:

    d_k = (x - y_k) / tau_k      x <- x - (sum_k p_k tau_k) * sum_k p_k d_k

The steps travel with the updates, in the same exact sums, so that whoever takes part is counted. A hub below does one
round per round of this one: over k of them both factors add up, and their product would move the model k times too far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hierfl.errors import UpdateRefused
from hierfl.learning.local import Finished, LocalRule, Parts, PlainRule, Trained, joined
from hierfl.learning.strategies._below import Below
from hierfl.learning.strategies._fields import between
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.learning.strategy import State, Strategy, Vector

__all__ = ["FedNova"]


@dataclass(frozen=True)
class FedNova(FedAvg):
    """Normalised averaging, for plain SGD at the sites; without it, sites of many local steps pull the model to their
    own optimum.
    """

    linear: ClassVar[bool] = False
    plain_steps: ClassVar[bool] = True
    """Whether it counts on sites' plain steps of SGD; those who take others are warned of."""
    one_round_below: ClassVar[bool] = True
    """Whether hubs below, which do as this one's sites, must have one round per round of their parent."""

    max_steps: int = 8192
    """More steps than this a site may not take in a round; the fewer, the finer the steps are counted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between("max_steps", self.max_steps, 1, open_low=False)

    def objective(self) -> LocalRule:
        """Divide each change by its steps."""
        return _Normalised(self.max_steps)

    def inherited(self) -> Strategy:
        """Inner hubs average; their sites normalise like all others."""
        return Below.hub(self)

    def broadcast(self, model: Vector, state: State) -> Vector:
        """Send the model, and room for the steps."""
        return joined([model, np.zeros(1, model.dtype)])

    def step(self, model: Vector, delta: Vector, state: State, share: float = 1.0) -> tuple[Vector, State]:
        """Multiply the mean normalised change by the mean steps."""
        tau = model.dtype.type(float(delta[-1]) * self.max_steps)
        return model + tau * delta[:-1], state


@dataclass(frozen=True)
class _Normalised(PlainRule):
    """The sites' side; steps are sent as fractions of `max_steps`."""

    max_steps: int

    def channels(self, num_floats: int) -> Mapping[str, int]:
        """One number comes up."""
        return {"steps": 1}

    def finish(self, model: Vector, trained: Trained, sent: State, kept: State, parts: Parts) -> Finished:
        """Divide the change by the steps, but for buffers. Errors: UpdateRefused for more than `max_steps`."""
        tau, dtype = trained.num_steps, model.dtype.type
        if tau > self.max_steps:
            raise UpdateRefused(f"{tau} local steps, more than max_steps ({self.max_steps}) of the strategy fednova")
        change = trained.ends[-1] - model
        normalised = model + np.where(parts.layout.buffers_mask, change, change / dtype(max(1, tau)))
        return Finished(normalised, {"steps": np.array([tau / self.max_steps], model.dtype)})
