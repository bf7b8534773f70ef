"""What a topology is: how the members of a hub exchange, as a compute plan for each round."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

from tiers.plan import Partners, Plan

__all__ = ["Topology"]


@runtime_checkable
class Topology(Protocol):
    """One kind is one file in `tiers/topologies/`: a frozen dataclass whose fields are the YAML's keys.

    `sequential`: members train one after another, each from what the one before it left. Such a hub waits for each of
    them, and its strategy's step must be plain replacement: there is no mean to step along.
    """

    sequential: ClassVar[bool]

    def plan(self, partners: Partners) -> Plan:
        """Yield the compute plan of one round. Pure: the same partners give the same plan."""
