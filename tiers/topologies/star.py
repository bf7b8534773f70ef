"""Hub and spoke: every member trains the hub's model, the hub mixes all updates (Rieke et al. 2020, Fig. 2 a, f)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tiers.plan import Mix, Plan, Train

__all__ = ["Star"]


@dataclass(frozen=True, slots=True)
class Star:
    """Hub and spoke, the aggregation-server plan."""

    def plan(self, members: Sequence[str], round_number: int) -> Plan:
        """Yield one Train for each member and one Mix of all of them at the hub."""
        return Plan((*(Train(member) for member in members), Mix(tuple(members))))
