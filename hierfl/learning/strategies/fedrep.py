"""FedRep: sites share a representation, and fit their own heads to it first in every round (Collins et al. 2021,
"Exploiting Shared Representations for Personalized Federated Learning", Algorithm 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hierfl.learning.local import LocalRule, Parts, Pass
from hierfl.learning.strategies._fields import between
from hierfl.learning.strategies._partial import Partial
from hierfl.learning.strategies.fedper import FedPer
from hierfl.learning.strategy import State, Vector

__all__ = ["FedRep"]


@dataclass(frozen=True)
class FedRep(FedPer):
    """The tensors in `personal` are trained alone for `head_steps`, and then the shared ones alone as configured."""

    head_steps: int = 10
    """tau_h: local steps on the personal tensors, at least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between("head_steps", self.head_steps, 1, open_low=False)

    def objective(self) -> LocalRule:
        """Train the head, then the representation."""
        return _HeadFirst(self.personal, head_steps=self.head_steps)


@dataclass(frozen=True)
class _HeadFirst(Partial):
    """The sites' side."""

    head_steps: int = 10

    def passes(self, model: Vector, sent: State, kept: State, parts: Parts) -> Sequence[Pass]:
        """Hold the one still while the other moves."""
        own = self.own(parts)
        head = Pass(self.personal(model, kept, parts), name="head", frozen=~own, num_steps=self.head_steps)
        return (head, Pass(None, frozen=own))

    def num_steps(self, steps: int) -> int:
        """Add the head's."""
        return self.head_steps + steps
