"""The compute plan: what a topology yields for one round, a small graph of steps as data.

It is the trajectory of a model across partners, apart from the resources that run it (Rieke et al. 2020, Fig. 2 e-g:
"disentangle compute resources from the compute plan"). The hub's machine carries it out stage by stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["HUB", "Mix", "Partners", "Plan", "Step", "Train"]

HUB = "."
"""The hub itself as a step's source or place."""


@dataclass(frozen=True, slots=True)
class Partners:
    """The members of a hub that take part in a round, by name with their integer weights, in the hub's order.

    `hub` is its path and `seed` the run's: what a topology draws follows from (seed, hub, round).
    """

    hub: str
    round_number: int
    seed: int
    weights: Mapping[str, int]


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

    @property
    def stages(self) -> tuple[tuple[str, ...], ...]:
        """List the members that train between two mixes: they share a start, which the mix before left at the hub."""
        stages: list[tuple[str, ...]] = []
        members: list[str] = []
        for step in self.steps:
            if isinstance(step, Train):
                assert step.source == HUB, f"{step}: a hub's members train from what lies at the hub"
                members.append(step.member)
            else:
                assert step.at == HUB and set(step.of) == set(members), f"{step} after {members}: all mix at the hub"
                stages.append(step.of)
                members = []
        assert not members, f"{members} train and are not mixed"
        return tuple(stages)
