"""Hub and spoke: every member trains the hub's model, the hub mixes all updates (Rieke et al. 2020, Fig. 2 a, f)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tiers.plan import Mix, Partners, Plan, Train

__all__ = ["Star"]


@dataclass(frozen=True, slots=True)
class Star:
    """Hub and spoke, the aggregation-server plan."""

    sequential: ClassVar[bool] = False
    has_centre: ClassVar[bool] = True
    keeps_models: ClassVar[bool] = False

    def plan(self, partners: Partners) -> Plan:
        """Yield one Train for each member and one Mix of all of them at the hub."""
        members = tuple(partners.weights)
        return Plan((*map(Train, members), Mix(members)))

    def misfit(self, partners: Partners) -> str:
        """Any members can."""
        return ""
