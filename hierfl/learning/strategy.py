"""What a strategy is: what a site optimises, how a hub weighs its members, and how it steps.

A strategy is a frozen dataclass whose fields are the YAML's keys. It holds parameters, never progress: `init` makes
the state, `step` takes it and returns the next, and that state is what a checkpoint holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[Any]
"""The floating-point part of a model, shape (P,), float32 or float64; read-only for strategies."""

State: TypeAlias = Mapping[str, Vector]
"""A strategy's progress by name, each of shape (P,)."""

__all__ = ["WEIGHTS", "Objective", "Reducer", "State", "Strategy", "Vector"]

WEIGHTS = ("samples", "uniform", "given")
"""How a hub weighs its members: by their training samples (N_k), all alike, or by `weight:` in the YAML."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What a site adds to its loss: `mu` / 2 * ||w - w_global||^2 (FedProx, Li et al. 2020, Eq. 2)."""

    mu: float = 0.0


@runtime_checkable
class Strategy(Protocol):
    """One kind is one file in `hierfl/learning/strategies/`.

    `linear` says that the step is exactly "model + mean": then a hub with one round per round of its parent may hand
    up its raw sum, and tree and flat federation have the same bits.
    """

    linear: ClassVar[bool]

    @property
    def weights(self) -> str:
        """Say how members are weighed: one of WEIGHTS."""

    def objective(self) -> Objective:
        """Say what the sites of this hub optimise beside the task's loss."""

    def inherited(self) -> Strategy:
        """Give the strategy of an inner hub that names none: same weights and objective, no server optimiser."""

    def init(self, model: Vector) -> State:
        """Make the state before the first round, for a model of shape (P,); empty where there is none."""

    def step(self, model: Vector, delta: Vector, state: State) -> tuple[Vector, State]:
        """Take the members' weighted mean change `delta`, shape (P,); return the next model and state."""


@runtime_checkable
class Reducer(Protocol):
    """A strategy that looks at every member's change by itself: its hub keeps them all until the round closes.

    A member that is a hub counts as one, so what is tolerated are bad members of this hub: bad sites where its members
    are sites, bad hubs where they are hubs.
    """

    def reduce(self, deltas: Vector, weights: NDArray[np.float64], state: State) -> Vector:
        """Make one change, shape (P,), of the members' (n, P), in the order of their names; `weights` (n,) add up to 1.

        Errors: UpdateRefused if there are too few members for what the rule promises.
        """

    def shortage(self, num_members: int) -> str:
        """Say why so many members are too few for what the rule promises; empty if they are enough."""

    def promise(self, num_members: int) -> str:
        """Say in words what the rule holds out against, with so many members."""
