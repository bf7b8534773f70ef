"""What a topology is: how the members of a hub exchange, as a compute plan for each round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from tiers.plan import Plan

__all__ = ["Topology"]


@runtime_checkable
class Topology(Protocol):
    """One kind is one file in `tiers/topologies/`: a frozen dataclass whose fields are the YAML's keys."""

    def plan(self, members: Sequence[str], round_number: int) -> Plan:
        """Yield the compute plan of one round over the `members` that take part."""
