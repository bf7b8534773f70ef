"""The configuration's schema: one frozen dataclass per section of the YAML.

`load` merges the YAML and overrides onto these; the kinds' own fields (`strategy`, `topology`, `task`, `runtime`,
`policy`) come from their own dataclasses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierfl.config.learning import FineTune, Handed, Lora, OperatingPoint, Statistics
from hierfl.errors import ConfigError
from tiers.federation import Federation

if TYPE_CHECKING:
    from hierfl.fault import Fault
    from hierfl.learning.attack import Attack
    from hierfl.learning.compression import Compression
    from hierfl.learning.privacy import Mechanism
    from hierfl.learning.strategy import Strategy
    from hierfl.learning.task import Task
    from scheduler.policy import Policy

__all__ = [
    "Arithmetic",
    "DeviceGroup",
    "Evaluation",
    "HubSettings",
    "LinkSettings",
    "Output",
    "Redundancy",
    "Replication",
    "RunConfig",
    "Runtime",
    "SiteSettings",
    "Stopping",
    "Training",
]


@dataclass(frozen=True)
class Training:
    """How a site trains; may be overridden at any node, and holds for the subtree below it.

    Exactly one of `local_steps` and `local_epochs` counts; one epoch where neither is given.
    """

    optimizer: str = "sgd"
    """A name of torch.optim, in any case; all but lbfgs, muon and sparseadam can train here."""
    lr: float = 0.01
    """Learning rate, above 0."""
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the optimizer, {momentum: 0.9, weight_decay: 1e-4}; not those on how torch computes."""
    lr_schedule: dict[str, Any] | None = None
    """How `lr` changes over the rounds of the run, {kind: StepLR, step_size: 10, gamma: 0.5} (see Learning-rate
    schedules); null: it stays."""
    batch_size: int | None = 32
    """Samples per step; null trains on all of the site's samples at once."""
    local_steps: int | None = None
    """Optimizer steps per round."""
    local_epochs: int | None = None
    """Passes over the site's samples per round."""
    clip_norm: float | None = None
    """Clip the gradient's L2 norm to this; null does not clip."""
    loader_workers: int = 0
    """Processes beside each worker that take samples and make batches while it trains or measures, as those of a
    DataLoader, at most one per core; 0: it does so itself. Not of `TensorDataset`s, nor with `privacy`."""
    precision: str = "float32"
    """float32, or mixed precision on CUDA: bfloat16, float16. On a CPU sites train in float32, and the run says so."""

    def num_steps(self, num_samples: int) -> int:
        """Count the optimizer steps of one round at a site of `num_samples` training samples."""
        if self.local_steps is not None:
            return self.local_steps if num_samples else 0
        per_epoch = math.ceil(num_samples / (self.batch_size or max(num_samples, 1)))
        return per_epoch * (1 if self.local_epochs is None else self.local_epochs)


@dataclass(frozen=True)
class Evaluation:
    """How the global model is measured at the sites."""

    every: int = 1
    """Measure after every n-th round and after the last; 0 never measures."""
    auc: str = "histogram"
    """histogram (`bins` bins per class), exact (every score leaves the site), or none; so for calibration."""
    bins: int = 2048
    """Bins of the score histogram, finer towards 0 and 1."""
    batch_size: int | None = None
    """Samples per step of the measurement; null: 1024, or fewer where samples are large (4 million numbers)."""
    intervals: float | None = None
    """Confidence level of intervals of accuracy, AUC, sensitivity and specificity at every node, 0.95 (see How sure a
    figure is, in evaluation.md); null: none are told."""
    operating_point: OperatingPoint | None = None
    """Of two classes, or of each of several labels, sensitivity and specificity of every node at one threshold of the
    federation, {specificity: 0.9} (see Operating point); null: not."""
    fine_tune: FineTune | None = None
    """Each site makes the model its own and is measured once more, {steps: 20} (see Fine-tuning); null: not."""

    @property
    def needs_curves(self) -> bool:
        """Whether the scores of each node are looked at beside its AUC."""
        return self.operating_point is not None or self.intervals is not None

    @property
    def score_bins(self) -> int | None:
        """The bins that scores are told in; None where they are told as they are."""
        return self.bins if self.auc == "histogram" else None


@dataclass(frozen=True)
class Stopping:
    """When to stop before the last round: `metric` of the root reaches `target`, or `patience` measurements pass
    without an improvement of `min_delta`.
    """

    metric: str | None = None
    """auc, accuracy, loss, log_loss, brier or ece; of two classes sensitivity, specificity or dice; or a metric of the
    task's own. Null never stops early."""
    mode: str | None = None
    """min or max: which way a metric of the task's own gets better, where the task does not say so; hierfl knows it of
    the others."""
    target: float | None = None
    """Stop once the metric is at least this good (at most, where lower is better)."""
    patience: int | None = None
    """Stop after so many measurements in a row without an improvement."""
    min_delta: float = 0.0
    """What counts as an improvement."""


@dataclass(frozen=True)
class Arithmetic:
    """The ring in which every sum is exact; see docs/arithmetic.md."""

    width: int = 32
    """Bits per parameter on the wire: 32 (public normalised weights) or 64 (integer weights)."""
    clip: float = 8.0
    """Largest magnitude of a parameter's change in one round, a power of two; more is refused by name."""


@dataclass(frozen=True)
class DeviceGroup:
    """Devices that are alike: an entry of `runtime.devices`."""

    name: str
    """What they are called: {name}-0, {name}-1 ..."""
    count: int = 1
    """How many there are."""
    kind: str = "default"
    """Durations are learned for each kind of device: a100, cpu ..."""
    labels: list[str] = field(default_factory=list)
    """Whose data may be processed here; see `residency` of a node."""
    memory_gib: float | None = None
    """GPU memory for the jobs on one device; null: unbounded. What a job needs is measured on CUDA only: on a CPU this
    bounds nothing, but for what an estimates file says."""
    places: int = 1
    """Jobs that one device may run at once, each in a worker of its own; more than one only where it is faster so."""
    cpus: float | None = None
    """ray: logical CPUs of one worker; null: runtime.cpus_per_worker."""
    gpus: float | None = None
    """ray: logical GPUs of one device, shared by its workers; null: runtime.gpus_per_worker."""
    resources: dict[str, float] = field(default_factory=dict)
    """ray: further Ray resources of one worker, {hospital_a: 1}: what puts it on the right node."""


@dataclass(frozen=True)
class Runtime:
    """What the run runs on: `local` (threads of this process) or `ray` (actors)."""

    kind: str = "ray"
    """local or ray."""
    address: str | None = None
    """ray: null starts a Ray of its own, auto joins the running one, or host:port."""
    share: bool = True
    """ray, joined by address only: share the devices with the other runs of the cluster, which one scheduler serves: in
    turns, or side by side on a device of several places where it pays; false keeps what is free for this run alone."""
    num_workers: int | None = None
    """Worker processes (ray) or threads (local); null takes one per device slot, or per core without devices."""
    cpus_per_worker: float = 1.0
    """ray: logical CPUs that a worker takes."""
    gpus_per_worker: float | None = None
    """ray: logical GPUs that a worker takes, a fraction shares one, 0 trains on the CPU; null takes a whole one where
    the cluster has any."""
    resources_per_worker: dict[str, float] = field(default_factory=dict)
    """ray: further Ray resources that a worker takes, {hospital_a: 1}."""
    num_cpus: int | None = None
    """ray, own start only: logical CPUs of the cluster; null takes the machine's."""
    num_gpus: int | None = None
    """ray, own start only: logical GPUs of the cluster; null takes the machine's."""
    num_aggregators: int | None = None
    """ray: processes that serve the hubs; null gives each hub its own, up to 16."""
    threads_per_worker: int = 1
    """Threads inside one worker's tensor operations; results may differ in bits between values."""
    device: str = "auto"
    """auto (cuda where there is one), cpu, or cuda."""
    preaggregate: bool = True
    """Workers add up the sites of one hub that they train; the bits are the same either way."""
    devices: list[DeviceGroup] = field(default_factory=list)
    """What there is to train on, in groups of like devices; empty: `num_workers` devices that are all alike."""
    policy: Policy | None = None
    """The dispatch policy, {kind: longest_first}; null takes the default."""
    estimates: str | None = None
    """A file that keeps what was learned (durations, memory, loading), for this and later runs; null keeps nothing."""
    site_timeout_s: float | None = None
    """ray: how long one site's work may take before its worker is ended and the site is given up, counted from when the
    worker is ready; null: no limit. For every site that has no `site_timeout_s` of its own or its hubs'."""
    device_timeout_s: float | None = 1800.0
    """How long work waits for a device that has gone, or was declared and has not come, before its site is given up;
    null: for ever. Work that no device could take whichever came is given up at once."""


@dataclass(frozen=True)
class Output:
    """Where the run is written."""

    dir: str = "runs"
    """Folder of the runs; each run makes a folder of its own in it; ~ is the user's home."""
    checkpoint_every: int = 1
    """Write a checkpoint after every n-th round and the last."""
    keep: int = 2
    """Checkpoints that are kept."""
    tensorboard: bool = True
    """Write a TensorBoard log."""
    tensorboard_sites: int = 200
    """Sites with curves of their own; hubs always have theirs."""

    @property
    def folder(self) -> Path:
        """Give `dir` as a path; ~ is the user's home."""
        return Path(self.dir).expanduser()


@dataclass(frozen=True)
class LinkSettings:
    """How a member is reached that another institution serves: `link:` of a node. See docs/links.md."""

    address: str
    """host:port at which the member reaches its hub; the member dials out and opens no port."""
    standbys: list[str] = field(default_factory=list)
    """Where further processes listen that may take the hub over, host:port each; the member tries them in turn."""
    deadline_s: float = 600.0
    """How long the member may be silent before its work is given up; heartbeats and all other times follow from it."""
    compression: str = "none"
    """none or gzip, for what travels; inside one data centre none is faster."""
    peers: str | None = None
    """host:port at which the other members of a hub without a centre reach this one; mandatory there."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Give all addresses of the hub, each once."""
        return tuple(dict.fromkeys((self.address, *self.standbys)))


@dataclass(frozen=True)
class Replication:
    """By how many processes a hub's aggregator is served: `redundancy:` of a hub. See docs/redundancy.md."""

    replicas: int = 1
    """Processes that each do all that the hub's aggregator does; any but one may end at any time without a pause."""
    mode: str = "crash"
    """crash: the first answer counts. vote: an answer counts once more than half of the replicas, 3, 5 or more, have
    signed the same; who differs is named and replaced."""
    lease_s: float = 30.0
    """Seconds without a sign of life after which a process is taken for dead, and without an answer that another one
    has given. A wrong guess costs a process, and no bit."""


@dataclass(frozen=True)
class Redundancy(Replication):
    """What makes a run outlive its processes; see docs/redundancy.md."""

    journal: str | None = None
    """Where what the hubs are told is written down, so that a run that was killed goes on without training anew: null
    keeps it in the run's folder, else a folder, or an address that pyarrow.fs knows (s3://bucket/path, gs://, hdfs://,
    file://), with a folder for each run; none writes nothing down."""


@dataclass(frozen=True)
class SiteSettings:
    """What holds at one site after inheritance. `key` and `source` are what `Task.data` is called with."""

    training: Training
    key: str
    source: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    labels: frozenset[str] = frozenset()
    """Residency: what a device must carry to process the site's data."""
    part: tuple[int, int] | None = None
    """(i, n): only the samples i, i + n, i + 2n ... of the key's data, where a site was split."""
    timeout_s: float | None = None
    """How long its work may take at once, a training or a measurement; None: no limit."""
    role: str = "training"
    """training, evaluation or statistics: what its data are for. In the baseline `pooled` the pool's is pooled, and
    that of sites whose data are in it measured."""
    joins_at: int = 1
    """The first round of the root, from 1, in which it takes part."""
    leaves_at: int | None = None
    """The first round of the root in which it does not any more; None: it stays."""
    pools: tuple[SiteSettings, ...] = ()
    """The sites whose data a pool puts together."""
    compression: Compression | None = None
    """How its updates become small; None: they travel whole."""
    handed: tuple[Handed, ...] = ()
    """Public data that hubs above hand to it for its training."""
    attack: Attack | None = None
    """What it does in place of its part, where it rehearses an attack."""
    privacy: Mechanism | None = None
    """How its records are hidden in what it sends; None: not."""

    def is_there(self, round_number: int) -> bool:
        """Whether it is a member of the federation in a round of the root, counted from 1."""
        return self.joins_at <= round_number and (self.leaves_at is None or round_number < self.leaves_at)

    @property
    def trains(self) -> bool:
        """Whether the model is trained on its data."""
        return self.role in ("training", "pooled")

    @property
    def counts(self) -> bool:
        """Whether its test samples count in the figures of the hubs above."""
        return self.role in ("training", "measured")

    @property
    def is_held_out(self) -> bool:
        """Whether it is measured beside those that count, on a model that has seen nothing of it."""
        return self.role == "evaluation"

    @property
    def standardises(self) -> bool:
        """Whether its features count in the federation's mean and deviation."""
        return self.role in ("training", "statistics", "pooled")


@dataclass(frozen=True)
class HubSettings:
    """What holds at one hub after inheritance. `objective` in the strategy is what its sites add to the loss."""

    strategy: Strategy
    weight: float = 1.0
    compression: Compression | None = None
    """How its own change becomes small, where it hands up no exact sums of its members; None: it travels whole."""
    redundancy: Replication = field(default_factory=Replication)
    """By how many replicas its aggregator is served."""
    secure_aggregation: str = "none"
    """Whether members with links mask their updates, so that it learns their sum alone: none or masks."""


@dataclass(frozen=True)
class RunConfig:
    """A whole validated run. `resolved` is the YAML as it was understood, ready to be written back.

    `links`: how members are reached that other institutions serve, by path; `hierfl run` simulates them here.
    `baseline`: local or pooled; federation, hubs and sites are then what it makes of those in `resolved`.
    `lora`: what travels in place of the model; None: the model. `statistics`: what sites tell of their records.
    `better`: which way metrics of the task's own get better, as far as that is known: min or max.
    `is_served`: it is what one process of a federation over links sees, and no simulation.
    `folder`: the YAML's, where the user's own modules were looked for beside the current folder; None for a mapping.
    """

    name: str
    seed: int
    task: Task
    task_kind: str
    federation: Federation
    hubs: Mapping[str, HubSettings]
    sites: Mapping[str, SiteSettings]
    evaluation: Evaluation
    stopping: Stopping
    arithmetic: Arithmetic
    runtime: Runtime
    output: Output
    resolved: Mapping[str, Any]
    folder: Path | None = field(default=None, compare=False)
    baseline: str | None = None
    lora: Lora | None = None
    statistics: Statistics | None = None
    redundancy: Redundancy = field(default_factory=Redundancy)
    faults: tuple[Fault, ...] = ()
    better: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, LinkSettings] = field(default_factory=dict)
    changes: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """Of a part of a federation: with which rounds of the root members change, wherever in the whole, and whose members
    below change then, of the leaves that stand for what is served elsewhere."""
    is_served: bool = False

    @property
    def only_tells(self) -> bool:
        """Whether sites tell of their records, and nothing is trained."""
        return self.statistics is not None and self.statistics.only

    def must_train(self, what: str) -> None:
        """Errors: ConfigError where nothing is trained; `what`: that which is about training."""
        if self.only_tells:
            way = "add statistics.only=false"
            raise ConfigError(f"{what} is about training, and nothing is trained under statistics.only: true; {way}")
