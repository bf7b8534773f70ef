"""What the run's supervisor, hubs and workers hand each other: frozen headers; vectors travel beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hierfl.config.learning import Lora, Statistics
from hierfl.config.schema import Evaluation, Replication, SiteSettings
from hierfl.learning.alike import Form
from hierfl.learning.clusters import Clusters
from hierfl.learning.compression import Compression
from hierfl.learning.local import LocalRule, adds_up
from hierfl.learning.metrics import Curve, Tally
from hierfl.learning.shortfalls import Settling
from hierfl.learning.standardise import Moments
from hierfl.learning.state import Layout
from hierfl.learning.statistics import TableStatistics
from hierfl.learning.strategy import Strategy
from hierfl.learning.task import Task
from hierfl.monitor.records import GpuSample, Scalars
from hierfl.runtime.points import NO_POINTS, Points
from tiers.federation import Hub
from tiers.messages import Close, Dismiss, Exchange, Opening, Refuse, SetTimer, Shortfall, Update
from tiers.standing import Standing

__all__ = [
    "Evaluated",
    "GpuUse",
    "HubSpec",
    "Inventory",
    "LeftOut",
    "Memory",
    "Order",
    "Outcome",
    "Post",
    "SiteReport",
    "TrainJob",
    "WorkerSpec",
]


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs for a whole run; `sites` by path, the sites' side of strategies (`rules`) by hub.

    `points`: what it says its steps to, where faults are to happen there. `rounds`: how many rounds a hub has per round
    of the root, where it is more than one. `secret`: noise is not drawn by the seed. `statistics`: what sites tell of
    their records, if anything.
    """

    task: Task
    seed: int
    sites: Mapping[str, SiteSettings]
    evaluation: Evaluation
    device: str = "auto"
    threads: int = 1
    rules: Mapping[str, LocalRule] = field(default_factory=dict)
    lora: Lora | None = None
    points: Points = NO_POINTS
    rounds: Mapping[str, int] = field(default_factory=dict)
    secret: bool = False
    statistics: Statistics | None = None


@dataclass(frozen=True)
class HubSpec:
    """What a hub needs for a whole run; `weights` are its members' public integer weights by name, `absent` those
    that could not be loaded, and why.

    `layout`: what the hub is given and gives its parent: the model, with the channels of a rule above. `wire`: what
    goes down from here, with the channels of its own rule. `passes_up`: the hub hands its raw sum to its parent; else
    it decodes, steps and encodes its own change, or compresses it. `seed`: the run's, for what participation policies
    draw and compression rounds. `points`: as of a worker. `redundancy`: by how many replicas it is served.
    """

    path: str
    hub: Hub
    strategy: Strategy
    width: int
    clip: float
    weights: Mapping[str, int]
    layout: Layout
    wire: Layout
    is_root: bool
    passes_up: bool
    absent: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    compression: Compression | None = None
    points: Points = NO_POINTS
    redundancy: Replication = field(default_factory=Replication)


@dataclass(frozen=True, slots=True)
class Post:
    """Which replica of a hub's aggregator a process is, in which life, and the index of the first that it is told."""

    replica: int = 0
    life: int = 0
    first: int = 0


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a site has: sample counts, the moments of its features where the task asks for them, and statistics of its
    records where the federation does; these also where there is an `error`.

    `num_patients`: in training, where a privacy mechanism protects them as a whole. `load_s`, `is_kept`: as in
    `SiteReport`; `duration_s`: what it took to find out; `on_cpu`: who described it has no GPU to train it on.
    """

    site: str
    num_train: int
    num_test: int
    moments: Moments | None = None
    error: str | None = None
    load_s: float = 0.0
    is_kept: bool = False
    duration_s: float = 0.0
    on_cpu: bool = False
    statistics: TableStatistics | None = None
    num_patients: int | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A hub asks these members (name and weight) for updates of its round, under an opening record.

    `then`: whom it will ask in the same round once these are heard of, in order. `shortfalls`: of members whose updates
    did not count whole, by name; None at a hub where all do.
    """

    hub: str
    round_number: int
    members: tuple[tuple[str, int], ...]
    opening: Opening
    objective: LocalRule
    then: tuple[str, ...] = ()
    shortfalls: Mapping[str, tuple[Shortfall, ...]] | None = None


@dataclass(frozen=True, slots=True)
class TrainJob:
    """A worker trains these sites (path and weight) for a hub's round.

    `order`: what the hub's order for this round is called, another one each time; `cohort`: the paths of all that are
    asked and have not answered yet, where they mask their updates. `shortfalls`: as of an order, by path.
    """

    hub: str
    round_number: int
    sites: tuple[tuple[str, int], ...]
    opening: Opening
    objective: LocalRule
    order: str = ""
    cohort: tuple[str, ...] = ()
    shortfalls: Mapping[str, tuple[Shortfall, ...]] | None = None

    def settling(self, site: str) -> Settling | None:
        """Give what a site is told of its updates that did not count whole; None where that makes no difference."""
        if self.shortfalls is None or not adds_up(self.objective):
            return None
        return Settling(self.round_number, self.shortfalls.get(site, ()))


@dataclass(frozen=True, slots=True)
class LeftOut:
    """In the place of a sum: these sites, which have trained, are in none; each with the reason."""

    sites: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GpuUse:
    """What a worker has read of its GPU since it last said so; times in seconds since the epoch."""

    gpu: str
    memory_bytes: int
    samples: tuple[GpuSample, ...]


@dataclass(frozen=True, slots=True)
class SiteReport:
    """One site's training: what it took and gave, or why it gave nothing.

    `started_s`: when it began, in seconds since the epoch. `lr`: the learning rate, where a schedule gave it.
    `peak_bytes`: the device's memory that was in use at most, 0 where it cannot be told; `out_of_memory`: the error is
    that there was too little of it. `load_s`: the seconds, of `duration_s`, that went into loading the site's data, 0
    where the worker held them; `is_kept`: it holds them now. `gpu`: at the last report of a call, where it can be had.
    `num_patients`: as in `Inventory`.
    """

    site: str
    duration_s: float
    num_samples: int
    num_steps: int
    loss: float | None
    error: str | None = None
    peak_bytes: int = 0
    out_of_memory: bool = False
    load_s: float = 0.0
    is_kept: bool = False
    started_s: float = 0.0
    gpu: GpuUse | None = None
    lr: float | None = None
    num_patients: int | None = None

    @property
    def work_s(self) -> float:
        """Give the seconds that this takes the next time: without loading, if the data are kept."""
        return self.duration_s - (self.load_s if self.is_kept else 0.0)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Measurements of one hub's sites by one worker: the sum of those that measure the same, what each measures
    (`forms`), and each site's own figures; `curves`: by site, where thresholds are held against them, those by label;
    `clusters`: by site, where it is counted how samples are spread over patients.
    """

    hub: str
    totals: Mapping[Form | None, Tally]
    forms: Mapping[str, Form | None]
    sites: Mapping[str, Scalars]
    durations: Mapping[str, float]
    errors: Mapping[str, str] = field(default_factory=dict)
    curves: Mapping[str, Mapping[str, Curve]] = field(default_factory=dict)
    clusters: Mapping[str, Clusters] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Memory:
    """What a hub knows while no round of it is open, and needs for its next ones.

    `openings`: those of the rounds, by number, whose late updates are held or may still come; the held payloads travel
    beside, in the order of `standing.held`.
    """

    standing: Standing
    openings: Mapping[int, Opening] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a hub's machine wants after an event.

    `has_model`: orders train from the model beside this header from now on, and before the first such from the one that
    the hub was begun with. `timers` count from the opening of the round that is open after this. `finished`: the hub's
    own update to its parent (or, at the root, a new model) lies beside this header, with the strategy's next state
    where it has one (`has_state`). `memory`: what there is to remember, if no round is open now. `exchange`: what the
    members do among themselves where the hub has no centre, with updates on the grid of `opening`.
    """

    orders: tuple[Order, ...] = ()
    closed: tuple[Close, ...] = ()
    refused: tuple[Refuse, ...] = ()
    dismissed: tuple[Dismiss, ...] = ()
    timers: tuple[SetTimer, ...] = ()
    finished: Update | None = None
    failed: str | None = None
    has_model: bool = False
    has_state: bool = False
    memory: Memory | None = None
    exchange: Exchange | None = None
    opening: Opening | None = None
