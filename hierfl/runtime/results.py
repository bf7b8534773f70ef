"""What is asked of the crew, and what it tells: groups of work, and results in the order in which they came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from hierfl.learning.local import LocalRule
from hierfl.learning.state import Layout
from hierfl.runtime.driver import Handle
from hierfl.runtime.jobs import Evaluated, Inventory, Order, SiteReport
from tiers.messages import Update

__all__ = [
    "TRAIN",
    "Assigned",
    "Built",
    "Busy",
    "Described",
    "Group",
    "HandedUp",
    "Measured",
    "Result",
    "Said",
    "SitesLost",
    "Trained",
    "WorkerJoined",
    "WorkerLost",
]

TRAIN = "train:"
"""How the names of groups that train begin, and no others'."""


@dataclass(frozen=True)
class Group:
    """Work for the sites of one hub: train (`order` says for which round), evaluate or describe.

    `sizes`: units of work by site's path (optimizer steps, samples), for predictions; `names` of weights are paths.
    `one_by_one`: every site is handed up by itself, since the hub may close without the others, or looks at each.
    `keeps`: sites keep something, by the strategy's rule or under error feedback. `rule`: each site is measured with
    its own model, by this rule. `is_masked`: its sites are members that mask their updates, each of which needs to know
    all that are asked. `chain_s`: predicted seconds from this group's end to the end of the run.
    """

    name: str
    kind: str
    hub: str
    round_number: int
    sizes: Mapping[str, int]
    weights: Mapping[str, int] = field(default_factory=dict)
    order: Order | None = None
    model: Handle = None
    one_by_one: bool = False
    keeps: bool = False
    rule: LocalRule | None = None
    is_masked: bool = False
    chain_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Built:
    """A worker has built the model."""

    layout: Layout
    model: Handle


@dataclass(frozen=True, slots=True)
class Assigned:
    """A device was given these sites, for a reason; `memory_bytes`: what each was thought to take at most."""

    device: str
    worker: str
    group: Group
    sites: tuple[str, ...]
    reason: str
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """A worker has trained these sites."""

    group: Group
    worker: str
    reports: tuple[SiteReport, ...]


@dataclass(frozen=True, slots=True)
class HandedUp:
    """A worker has handed up its sum of a hub's round."""

    group: Group
    update: Update
    part: Handle


@dataclass(frozen=True, slots=True)
class Measured:
    """A worker has measured these sites."""

    group: Group
    worker: str
    evaluated: Evaluated


@dataclass(frozen=True, slots=True)
class Described:
    """A worker has counted what these sites have."""

    group: Group
    inventories: tuple[Inventory, ...]


@dataclass(frozen=True, slots=True)
class SitesLost:
    """These sites will give nothing, each for a reason."""

    group: Group
    sites: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker died and is being replaced, or `is_away` and waited for; these sites' work is done again."""

    worker: str
    reason: str
    sites: tuple[str, ...]
    is_away: bool = False

    @property
    def said(self) -> str:
        """Say it for a person."""
        if self.is_away:
            return f"is away ({self.reason}) and is waited for; what it was asked is asked again once it is back"
        return f"died ({self.reason}) and is being replaced; {len(self.sites)} sites are done again"


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker's process is up, for the first time or again."""

    worker: str
    device: str


@dataclass(frozen=True, slots=True)
class Said:
    """Something that a person should know of, and that changes nothing."""

    level: str
    node: str
    message: str


@dataclass(frozen=True, slots=True)
class Busy:
    """A worker was busy with a phase for these sites, in seconds since the epoch."""

    worker: str
    phase: str
    start_s: float
    end_s: float
    sites: tuple[str, ...]


Result: TypeAlias = (
    Assigned | Built | Busy | Described | HandedUp | Measured | Said | SitesLost | Trained | WorkerJoined | WorkerLost
)
