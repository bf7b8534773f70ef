"""What a strategy is: what a site optimises, how a hub weighs its members, and how it steps.

A strategy is a frozen dataclass whose fields are the YAML's keys. It holds parameters, never progress: `init` makes
the state, `step` takes it and returns the next, and that state is what a checkpoint holds.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.local import LocalRule, State, Vector

__all__ = ["WEIGHTS", "Reducer", "State", "Strategy", "Vector"]

WEIGHTS = ("samples", "uniform", "given")
"""How a hub weighs its members: by their training samples (N_k), all alike, or by `weight:` in the YAML."""


@runtime_checkable
class Strategy(Protocol):
    """One kind is one file in `hierfl/learning/strategies/`.

    `linear` says that the step is exactly "model + mean": then a hub with one round per round of its parent may hand
    up its raw sum, and tree and flat federation have the same bits. A class may name fields that decide what sites or
    hubs keep, `lasting: ClassVar[tuple[str, ...]] = ("personal",)`: a run that is taken up again keeps them.
    """

    linear: ClassVar[bool]

    @property
    def weights(self) -> str:
        """Say how members are weighed: one of WEIGHTS."""

    def objective(self) -> LocalRule:
        """Say what the sites of this hub do beside following the task's loss."""

    def inherited(self) -> Strategy:
        """Give the strategy of an inner hub that names none: same weights and objective, no server optimiser."""

    def init(self, model: Vector) -> State:
        """Make the state before the first round, for a model of shape (P,); empty where there is none."""

    def broadcast(self, model: Vector, state: State) -> Vector:
        """Give what goes down: the model (P,), and after it the channels of the objective, one after another."""

    def step(self, model: Vector, delta: Vector, state: State, share: float = 1.0) -> tuple[Vector, State]:
        """Take the members' weighted mean change `delta`, shaped like what went down; return the next model and state.

        `share`: the part of all members' weight that is in it; above 1 where a member's late update is in it beside its
        next one.
        """


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
