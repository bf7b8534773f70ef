"""The reducing member rotates: in each round another one mixes what all have sent, and hands the model round (swarm
learning, Warnat-Herresthal et al. 2021, "Swarm Learning for decentralized and confidential clinical machine learning").

The model has the bits of a star's: the same exact sum and the same step, at a member in place of the hub. The paper's
blockchain elects who leads; here it follows from the round's number, or from (seed, hub, round), and all know it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scheduler.draws import draw
from scheduler.participations._fields import one_of
from tiers.plan import Mix, Partners, Plan, Train

__all__ = ["Swarm"]

LEADERS = ("in_turn", "drawn")


@dataclass(frozen=True, slots=True)
class Swarm:
    """All train, one of them reduces, another one in the next round."""

    sequential: ClassVar[bool] = False
    has_centre: ClassVar[bool] = False
    keeps_models: ClassVar[bool] = False

    leader: str = "in_turn"
    """in_turn: the members reduce one round each, as they stand in the YAML; drawn: from (seed, hub, round). Only who
    has reported in a round can reduce it.
    """

    def __post_init__(self) -> None:
        one_of("leader", self.leader, LEADERS)

    def plan(self, partners: Partners) -> Plan:
        """Yield a Train for each member and one Mix of all of them at the member that leads."""
        members = tuple(partners.weights)
        return Plan((*map(Train, members), Mix(members, self._leader(partners))))

    def misfit(self, partners: Partners) -> str:
        """Any members can."""
        return ""

    def _leader(self, partners: Partners) -> str:
        """Choose who reduces; a draw does not depend on how the members stand."""
        members = list(partners.weights)
        if self.leader == "in_turn":
            return members[partners.round_number % len(members)]
        where = partners.seed, "topology", partners.hub, partners.round_number
        return min(members, key=lambda name: (draw(*where, name), name))
