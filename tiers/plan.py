"""The compute plan: what a topology yields for one round, a small graph of steps as data.

It is the trajectory of a model across partners, apart from the resources that run it (Rieke et al. 2020, Fig. 2 e-g:
"disentangle compute resources from the compute plan"). The hub's machine carries it out stage by stage. Where a plan
mixes at members, and not at the hub, those steps are the members' exchange, once all that train have reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

__all__ = ["HUB", "Gather", "Mix", "Partners", "Plan", "Step", "Train"]

HUB = "."
"""The hub itself as a step's source or place."""


@dataclass(frozen=True, slots=True)
class Partners:
    """The members of a hub that take part in a round, by name with their integer weights, in the hub's order.

    `hub` is its path and `seed` the run's: what a topology draws follows from (seed, hub, round). `members`: all that
    take part in some round, in the same order; those of `weights` where it is empty.
    """

    hub: str
    round_number: int
    seed: int
    weights: Mapping[str, int]
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Train:
    """`member` turns the model of `source` (the hub, or a step's place) into an update."""

    member: str
    source: str = HUB


@dataclass(frozen=True, slots=True)
class Mix:
    """At `at`, reduce the updates of the members `of` into one model.

    `part`: (k, n) for the k-th of n slices of it alone, from 0. `weights`: `at` keeps a model of its own, which becomes
    this part of each of theirs; they add up to 1. Steps of one `turn` go on at the same time: each takes what the
    members had before it.
    """

    of: tuple[str, ...]
    at: str = HUB
    part: tuple[int, int] | None = None
    weights: tuple[Fraction, ...] = ()
    turn: int = 0

    def __post_init__(self) -> None:
        assert not self.weights or (len(self.weights) == len(self.of) and sum(self.weights) == 1), self


@dataclass(frozen=True, slots=True)
class Gather:
    """At `at`, put the slices together that the members `of` have mixed, in their order."""

    of: tuple[str, ...]
    at: str


Step: TypeAlias = Train | Mix | Gather


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
        """List the members that train between two mixes at the hub: they share a start, which the mix before left.

        Of members that exchange without the hub there is one stage.
        """
        if self.exchange:
            return (self.trained,)
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

    @property
    def exchange(self) -> tuple[Mix | Gather, ...]:
        """List the steps that members do among themselves once all have trained; none where the hub mixes."""
        steps = tuple(step for step in self.steps if not isinstance(step, Train))
        if all(step.at == HUB for step in steps):
            return ()
        first = len(self.steps) - len(steps)
        assert steps == self.steps[first:], f"{self.steps}: members exchange once all have trained"
        known = {*self.trained}
        assert all(step.at in known and known >= set(step.of) for step in steps), f"{steps} among {known}"
        return steps
