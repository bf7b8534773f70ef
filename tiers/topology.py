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

    `has_centre`: the hub reduces what its members send. Without a centre the members do it, those that have reported
    when the round closes, by the plan's `exchange`, and the hub sees headers alone. `keeps_models`: each member keeps a
    model of its own from round to round, the hub's model is their mean, weighted as the hub weighs its members, and the
    strategy's step must be plain replacement.
    """

    sequential: ClassVar[bool]
    has_centre: ClassVar[bool]
    keeps_models: ClassVar[bool]

    def plan(self, partners: Partners) -> Plan:
        """Yield the compute plan of one round. Pure: the same partners give the same plan."""

    def misfit(self, partners: Partners) -> str:
        """Say why such members cannot exchange so; empty if they can.

        Those who train at a hub are tried before a run, whenever they are others; `partners.members` are then all that
        the hub ever has, whatever they are there for.
        """
