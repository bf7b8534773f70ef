"""The tree of a federation, its compute plans, and the rounds of a hub as a machine; plain Python."""

from tiers.federation import Federation, Hub, Member, Site, parent
from tiers.plan import HUB, Gather, Mix, Partners, Plan, Step, Train
from tiers.round import HubRounds, Phase
from tiers.topology import Topology

__all__ = [
    "HUB",
    "Federation",
    "Gather",
    "Hub",
    "HubRounds",
    "Member",
    "Mix",
    "Partners",
    "Phase",
    "Plan",
    "Site",
    "Step",
    "Topology",
    "Train",
    "parent",
]
