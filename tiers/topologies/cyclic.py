"""The model travels: each member trains from what the one before it left, and the last one's model is the round's
(cyclic weight transfer, Chang et al. 2018, "Distributed deep learning networks among institutions for medical
imaging"; the sequential plan of Rieke et al. 2020, Fig. 2 e).

A round is one pass over the members that take part. One round alone is single-pass sequential training, institutional
incremental learning in Sheller et al. 2020 ("Federated learning in medicine"); many are its cyclic form. The hub stands
between two members: it decodes each one's change exactly before it asks the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from scheduler.draws import draw
from scheduler.participations._fields import one_of
from tiers.plan import Mix, Partners, Plan, Train

__all__ = ["Cyclic"]

ORDERS = ("fixed", "shuffled", "by_size")


@dataclass(frozen=True, slots=True)
class Cyclic:
    """Member after member, in one order or a new one in each round."""

    sequential: ClassVar[bool] = True
    has_centre: ClassVar[bool] = True
    keeps_models: ClassVar[bool] = False

    order: str = "fixed"
    """fixed: as the members stand in the YAML; shuffled: drawn anew in each round from (seed, hub, round); by_size: by
    the members' weights, the smallest first, so that the model ends at the largest."""

    def __post_init__(self) -> None:
        one_of("order", self.order, ORDERS)

    def plan(self, partners: Partners) -> Plan:
        """Yield a Train and a Mix for each member in turn; what is mixed of one member is its own model."""
        return Plan(tuple(step for name in self._in_order(partners) for step in (Train(name), Mix((name,)))))

    def misfit(self, partners: Partners) -> str:
        """Any members can."""
        return ""

    def _in_order(self, partners: Partners) -> Sequence[str]:
        """Order the members of a round; a draw does not depend on how they stand."""
        weights = partners.weights
        if self.order == "by_size":
            return sorted(weights, key=lambda name: (weights[name], name))
        if self.order == "shuffled":
            where = partners.seed, "topology", partners.hub, partners.round_number
            return sorted(weights, key=lambda name: (draw(*where, name), name))
        return list(weights)
