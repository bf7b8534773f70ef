"""The compute plan: what a topology yields for one round, a small graph of steps as data.

It is the trajectory of a model across partners, apart from the resources that run it (Rieke et al. 2020, Fig. 2 e-g:
"disentangle compute resources from the compute plan").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["HUB", "Mix", "Plan", "Step", "Train"]

HUB = "."
"""The hub itself as a step's source or place."""


@dataclass(frozen=True, slots=True)
class Train:
    """`member` turns the model of `source` (the hub, or a step's place) into an update."""

    member: str
    source: str = HUB


@dataclass(frozen=True, slots=True)
class Mix:
    """At `at`, reduce the updates of the members `of` into one model."""

    of: tuple[str, ...]
    at: str = HUB


Step: TypeAlias = Train | Mix


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one round, in an order in which each step's sources come before it."""

    steps: tuple[Step, ...]

    @property
    def trained(self) -> tuple[str, ...]:
        """List the members that train, in order."""
        return tuple(step.member for step in self.steps if isinstance(step, Train))
