"""What the run's supervisor, hubs and workers hand each other: frozen headers; vectors travel beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hierfl.config.schema import Evaluation, SiteSettings
from hierfl.learning.metrics import Tally
from hierfl.learning.standardise import Moments
from hierfl.learning.state import Layout
from hierfl.learning.strategy import Objective, Strategy
from hierfl.learning.task import Task
from hierfl.monitor.records import Scalars
from tiers.federation import Hub
from tiers.messages import Close, Opening, Refuse, Update

__all__ = [
    "Evaluated",
    "HubSpec",
    "Inventory",
    "Order",
    "Outcome",
    "SiteReport",
    "TrainJob",
    "WorkerSpec",
]


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs for a whole run; `sites` by path."""

    task: Task
    seed: int
    sites: Mapping[str, SiteSettings]
    evaluation: Evaluation
    device: str = "auto"
    threads: int = 1


@dataclass(frozen=True)
class HubSpec:
    """What a hub needs for a whole run; `weights` are its members' public integer weights by name, `absent` those
    that could not be loaded, and why.

    `passes_up`: the hub hands its raw sum to its parent; else it decodes, steps and encodes its own change.
    """

    path: str
    hub: Hub
    strategy: Strategy
    width: int
    clip: float
    weights: Mapping[str, int]
    layout: Layout
    is_root: bool
    passes_up: bool
    absent: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a site has: sample counts, and the moments of its features where the task asks for them."""

    site: str
    num_train: int
    num_test: int
    moments: Moments | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A hub asks these members (name and weight) for updates of its round, under an opening record."""

    hub: str
    round_number: int
    members: tuple[tuple[str, int], ...]
    opening: Opening
    objective: Objective


@dataclass(frozen=True, slots=True)
class TrainJob:
    """A worker trains these sites (path and weight) for a hub's round."""

    hub: str
    round_number: int
    sites: tuple[tuple[str, int], ...]
    opening: Opening
    objective: Objective


@dataclass(frozen=True, slots=True)
class SiteReport:
    """One site's training: what it took and gave, or why it gave nothing."""

    site: str
    duration_s: float
    num_samples: int
    num_steps: int
    loss: float | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Measurements of one hub's sites by one worker: their sum, and each site's own figures."""

    hub: str
    total: Tally
    sites: Mapping[str, Scalars]
    durations: Mapping[str, float]
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a hub's machine wants after an event.

    `has_model`: the orders train from the model beside this header, else from the one that the hub was begun with.
    `finished`: the hub's own update to its parent (or, at the root, a new model) lies beside this header, with the
    strategy's next state where it has one (`has_state`).
    """

    orders: tuple[Order, ...] = ()
    closed: tuple[Close, ...] = ()
    refused: tuple[Refuse, ...] = ()
    finished: Update | None = None
    failed: str | None = None
    has_model: bool = False
    has_state: bool = False
