"""Reduce-scatter and all-gather: each member adds up one slice of what all have sent, and hands its sum to all
(Patarasuk & Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations").

The model has the bits of a star's: the same exact sum, slice by slice, and every member takes the same step itself.
Nobody but a member itself has its whole update: of each other's a member sees its own slice, and then the sum of all.
Slices go straight to who adds them, not around a ring: a member sends and receives the same 2 (n - 1) / n of a model,
in two steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tiers.plan import Gather, Mix, Partners, Plan, Train

__all__ = ["MOST_MEMBERS", "AllReduce"]

MOST_MEMBERS = 256
"""Each sends a slice to each other: the messages of a round are their square."""


@dataclass(frozen=True, slots=True)
class AllReduce:
    """All train, each adds up a slice, and each gathers the sum."""

    sequential: ClassVar[bool] = False
    has_centre: ClassVar[bool] = False
    keeps_models: ClassVar[bool] = False

    def plan(self, partners: Partners) -> Plan:
        """Yield a Train for each member, a Mix of a slice at each, and a Gather at each."""
        members = tuple(partners.weights)
        scatter = (Mix(members, name, (k, len(members))) for k, name in enumerate(members))
        gather = (Gather(members, name) for name in members)
        return Plan((*map(Train, members), *scatter, *gather))

    def misfit(self, partners: Partners) -> str:
        """Refuse more members than can send each other slices."""
        if len(partners.weights) <= MOST_MEMBERS:
            return ""
        return (
            f"{len(partners.weights)} members are more than the {MOST_MEMBERS} that can exchange slices: add up in hubs"
        )
