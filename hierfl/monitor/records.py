"""What a run says of itself: frozen records, written to `events.jsonl` and shown by the monitors.

Times are seconds since the run's start (`time_s`); a node is named by its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

__all__ = [
    "Assigned",
    "Consensus",
    "Evaluated",
    "Exchanged",
    "FaultInjected",
    "GpuSample",
    "GpuSampled",
    "Leased",
    "LogOpened",
    "MembershipChanged",
    "Monitor",
    "NodesChanged",
    "Notice",
    "Phase",
    "Record",
    "ReplicaPlaced",
    "ReplicaReplaced",
    "RoundClosed",
    "RoundCommitted",
    "RunEnded",
    "RunStarted",
    "Scalars",
    "SiteTrained",
    "StretchEnded",
]

Scalars: TypeAlias = Mapping[str, float | list[list[float]] | None]
"""Metrics of one node: num_test (the samples measured), accuracy, auc, loss, brier ...; None reads "undefined".

All are numbers but `confusion`, the table of more than two classes (rows: true, columns: predicted), and `reliability`,
[samples, how many came true, mean probability] of each bin of predicted probabilities."""


@dataclass(frozen=True, slots=True)
class LogOpened:
    """A process of the run begins to write `events.jsonl`: times of what follows, up to the next one, are its own."""

    time_s: float
    epoch_s: float
    """As of `RunStarted`."""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run is set up: every site has told its sample counts, the workers are ready."""

    time_s: float
    name: str
    run_dir: str
    runtime: str
    workers: Sequence[str]
    rounds: int
    first_round: int
    """The first round that this process runs, counted from 1 as in `Evaluated` and `RoundCommitted`; a resumed run's
    is the one after its checkpoint's."""
    num_parameters: int
    num_samples: Mapping[str, int | None]
    """Training samples by path, hubs rolled up; None where a site's data could not be loaded."""
    epoch_s: float = 0.0
    """The run's start, `time_s` 0, in seconds since the epoch: what logs of several runs have in common."""
    cluster: str = ""
    """The Ray cluster on whose devices runs take turns, this one among them; empty where its devices are its own."""
    devices: Mapping[str, str] = field(default_factory=dict)
    """The device of each worker; several workers may share one."""
    in_turn: Sequence[str] = ()
    """The hubs whose members train one after another."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of what the run's process runs on, Python and hierfl among it."""
    task_code: str = ""
    """The SHA-256 of the source files that the task is of and of hierfl's version; empty where there are none."""


@dataclass(frozen=True, slots=True)
class MembershipChanged:
    """Sites have joined or left: the tree has another epoch from round `round_number` on, which is about to begin.

    `num_samples`: training samples by path, hubs rolled up, of the nodes that are there now; None as in `RunStarted`.
    """

    time_s: float
    epoch: int
    round_number: int
    joined: Sequence[str]
    left: Sequence[str]
    num_samples: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class NodesChanged:
    """The state of nodes: waiting, training, late, aggregating, evaluating, done, skipped or failed.

    A hub's members that are asked at once are told at once: there may be thousands.
    """

    time_s: float
    nodes: Sequence[str]
    state: str
    round_number: int


@dataclass(frozen=True, slots=True)
class Phase:
    """One worker (or hub) was busy with one thing: load, train, evaluate, aggregate or transfer.

    `nodes`: the sites that it worked for, or the hub. A load within a training is a phase of its own, inside the other.
    """

    time_s: float
    actor: str
    phase: str
    start_s: float
    end_s: float
    nodes: Sequence[str]
    round_number: int


@dataclass(frozen=True, slots=True)
class Assigned:
    """A device was given work: these sites of one hub, for a reason.

    `memory_bytes`: what each of them was thought to take at most when it was admitted, 0 if unknown.
    """

    time_s: float
    worker: str
    device: str
    kind: str
    hub: str
    sites: Sequence[str]
    round_number: int
    reason: str
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Leased:
    """A device that runs share: its lease was granted, changed (it may use more places), narrowed to one place,
    recalled or released, for a reason; `run` as others see it.
    """

    time_s: float
    device: str
    run: str
    change: str
    reason: str


GpuSample: TypeAlias = tuple[float, float, int]
"""A reading of a GPU: when, the fraction of the time in which it computed something, the bytes in use there."""


@dataclass(frozen=True, slots=True)
class GpuSampled:
    """Readings of the GPU of a device, since the last such record of it; only where they can be had."""

    time_s: float
    device: str
    worker: str
    gpu: str
    memory_bytes: int
    samples: Sequence[GpuSample]


@dataclass(frozen=True, slots=True)
class SiteTrained:
    """A site has finished its local training of one round.

    `duration_s` from `start_s` on (None: it ended at `time_s`), of which the first `load_s` went by loading its data.
    `lr`: the learning rate of the round, where a schedule gave it.
    """

    time_s: float
    node: str
    round_number: int
    worker: str
    duration_s: float
    num_samples: int
    num_steps: int
    loss: float | None
    load_s: float = 0.0
    start_s: float | None = None
    lr: float | None = None


@dataclass(frozen=True, slots=True)
class StretchEnded:
    """Work between two barriers, a round of the root or a measurement, is over; what it was, and on what.

    `bound_s`: the least that it takes; `work`: labels, bytes of memory, and the seconds that all jobs of these take
    alone; `devices`: by name their workers and all in which they differ; `rates`: total, of 1, 2, ... jobs at once.
    """

    time_s: float
    start_s: float
    bound_s: float
    work: Sequence[tuple[Sequence[str], int, float]]
    devices: Mapping[str, Mapping[str, Any]]
    rates: Sequence[float]


@dataclass(frozen=True, slots=True)
class RoundClosed:
    """A hub has closed one of its rounds, for a reason; `members` counted, `missing` by name and why.

    `carried`: members whose updates of earlier rounds count too, and how much; `late`: those of the missing that are
    still at work; `others`: reasons that too many are missing for to be named in `missing`, each with their number.
    `bytes_spared`: what `bytes_up` would be more without compression.
    """

    time_s: float
    node: str
    round_number: int
    reason: str
    members: Sequence[str]
    missing: Mapping[str, str]
    duration_s: float
    bytes_up: int
    carried: Mapping[str, str] = field(default_factory=dict)
    late: Sequence[str] = ()
    others: Mapping[str, int] = field(default_factory=dict)
    bytes_spared: int = 0


@dataclass(frozen=True, slots=True)
class Exchanged:
    """The members of a hub without a centre have exchanged, after it has closed a round.

    `mixed`: at whose places whose updates were mixed last, of the first few; `bytes_between`: what went from one member
    to another. `missing`: whose updates had come, and who left the exchange all the same, each for a reason.
    """

    time_s: float
    node: str
    round_number: int
    mixed: Mapping[str, Sequence[str]]
    bytes_between: int
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FaultInjected:
    """A fault was let happen at a node on purpose, as the run's `faults` say; `nth`: at which update, if at one.

    `round_number`: the node's own, from 1; `time_s` may lie before that of records that came sooner.
    """

    time_s: float
    kind: str
    node: str
    step: str
    round_number: int
    nth: int = 1


@dataclass(frozen=True, slots=True)
class Consensus:
    """How far from each other the models of a hub's members are, where each keeps its own: the root of the mean of
    |x_i - mean|^2, weighted as the hub weighs them. `round_number`: the root's, from 1.
    """

    time_s: float
    node: str
    round_number: int
    distance: float


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The global model was measured at every site and rolled up per hub; `metrics` by path.

    Comes before the round's `RoundCommitted`.
    """

    time_s: float
    round_number: int
    metrics: Mapping[str, Scalars]


@dataclass(frozen=True, slots=True)
class RoundCommitted:
    """The root has published the model of a round; `checkpoint` is its folder, or None where none was due.

    `busy_fraction` of the devices in the round's training, the `idle_floor` that no schedule can beat, the
    `efficiency` of the schedule: the least time that the work can take over the time that it took, and `goodput`: what
    the work takes alone over the devices' time. `devices` and `hubs` have the same figures each, named as in
    summary.json.
    """

    time_s: float
    round_number: int
    rounds: int
    duration_s: float
    busy_fraction: float
    checkpoint: str | None
    idle_floor: float = 0.0
    efficiency: float = 1.0
    goodput: float = 0.0
    devices: Mapping[str, Scalars] = field(default_factory=dict)
    hubs: Mapping[str, Scalars] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReplicaPlaced:
    """A process that serves a hub has begun on a machine: replica `replica` of `num_replicas`, counted from 1."""

    time_s: float
    node: str
    replica: int
    num_replicas: int
    machine: str
    round_number: int


@dataclass(frozen=True, slots=True)
class ReplicaReplaced:
    """A process that served a hub was replaced: replica `replica` of `num_replicas`, counted from 1.

    `cause`: died, silent (no sign of life, or others have answered long ago), damaged (it was handed an update with
    other bytes than were sent), differs or outvoted (its answer is not the one that counts), unsigned, or forged (what
    it handed out is not what it signed).
    """

    time_s: float
    node: str
    replica: int
    num_replicas: int
    cause: str
    reason: str
    round_number: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person should know: level info, warning or error; `node` a path, a worker, or empty."""

    time_s: float
    level: str
    node: str
    message: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over: status "finished", "stopped early", "interrupted", "failed", or "fenced" for this process alone;
    `summary` as in summary.json.
    """

    time_s: float
    status: str
    summary: Mapping[str, Any] = field(default_factory=dict)


Record: TypeAlias = (
    Assigned
    | Consensus
    | Evaluated
    | Exchanged
    | FaultInjected
    | GpuSampled
    | Leased
    | LogOpened
    | MembershipChanged
    | NodesChanged
    | Notice
    | Phase
    | ReplicaPlaced
    | ReplicaReplaced
    | RoundClosed
    | RoundCommitted
    | RunEnded
    | RunStarted
    | SiteTrained
    | StretchEnded
)


class Monitor(Protocol):
    """Sees every record of a run, in order, from the run's own thread; must not keep it waiting.

    One that the run itself listens with may say in `heeds`, a tuple of classes, which records it is to be told.
    """

    def on(self, record: Record) -> None:
        """Take one record."""

    def close(self) -> None:
        """Finish files and the screen; called once, also after a failure."""
