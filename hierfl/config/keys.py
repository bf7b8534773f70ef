"""The keys of the YAML's top and of a node, as dataclasses: their fields are what may be written.

The sections' own keys are the dataclasses of `schema`; the kinds' keys are the kinds' own fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

from hierfl.config.learning import Lora, SharedData, Statistics
from hierfl.config.schema import Arithmetic, Evaluation, Output, Redundancy, Runtime, Stopping, Training

__all__ = [
    "HUB_KEYS",
    "KIND_KEYS",
    "SECTIONS",
    "SITE_KEYS",
    "TEMPLATE_KEYS",
    "TOP_KEYS",
    "HubKeys",
    "SiteKeys",
    "TemplateKeys",
    "TopKeys",
]

Faults: TypeAlias = Any
Hub: TypeAlias = Any
Kind: TypeAlias = Any
Members: TypeAlias = Any
Section: TypeAlias = Any
"""What the documentation calls a key whose check is not its type's."""


@dataclass(frozen=True)
class TopKeys:
    """The top of the YAML."""

    task: Kind
    """What is learned: a kind, with its own keys (see Tasks), or your own as "package.module:Class"."""
    federation: Hub
    """The root hub of the tree (see Hub)."""
    name: str = "run"
    """The run's name, a part of its folder's name. Where it is not given: the YAML's file name."""
    seed: int = 0
    """Everything random follows from it."""
    baseline: str | None = None
    """What the federation is compared with, on the same task and tree: local trains every site alone, pooled one model
    on the data of all sites put together, for simulation only; null: neither. See evaluation.md."""
    lora: Lora | None = None
    """Low-rank adapters are trained and travel in place of the model, {rank: 8} (see LoRA); null: the model."""
    statistics: Statistics | None = None
    """What sites tell of their records before the first round, {min_count: 5} (see Statistics); null: nothing."""
    training: Training = field(default_factory=Training)
    """How sites train (see Training); holds for every site unless overridden at a node."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    """How the model is measured (see Evaluation)."""
    stopping: Stopping = field(default_factory=Stopping)
    """When to stop early (see Stopping)."""
    arithmetic: Arithmetic = field(default_factory=Arithmetic)
    """How sums are made (see Arithmetic)."""
    runtime: Runtime = field(default_factory=Runtime)
    """What the run runs on (see Runtime)."""
    output: Output = field(default_factory=Output)
    """Where the run is written (see Output)."""
    redundancy: Redundancy = field(default_factory=Redundancy)
    """What makes the run outlive its processes (see Redundancy)."""
    faults: Faults = field(default_factory=list)
    """What is broken on purpose, a list of faults, to rehearse (see Faults); [] breaks nothing."""


@dataclass(frozen=True)
class SiteKeys:
    """A site: a node without members."""

    name: str
    """Its name among its siblings; also its key into the task's data unless `data` gives one."""
    weight: float = 1.0
    """Its weight at its hub where that hub's strategy says `weights: given`."""
    split: int = 1
    """Cut its samples into so many parts that train side by side, as a hub of its own does; see Split sites."""
    role: str = "training"
    """training; evaluation: is measured, not trained on; statistics: only helps to standardise. See evaluation.md."""
    compression: Kind = None
    """How its update becomes small before it is sent: a kind (see Compression). Where none is given: its hub's."""
    privacy: Kind = None
    """How its records are hidden in what it sends: a kind (see Privacy). Where none is given: its hub's."""
    training: Section = None
    """Those keys of Training that differ here; see Inheritance."""
    data: Section = None
    """{key: its key into the task's data, ...}: further keys are handed to the task's `data` method."""
    residency: list[str] = field(default_factory=list)
    """Labels that a device must carry to process this site's data, beside those of the hubs above: [charite]."""
    site_timeout_s: float | None = None
    """How long its work may take; see `runtime.site_timeout_s`."""
    link: Section = None
    """How it reaches its hub where another institution serves it; see Links."""
    joins_at: int | None = None
    """The first round of the root in which it is a member; null: from the start. See Membership."""
    leaves_at: int | None = None
    """The first round of the root in which it is a member no more; null: it stays to the end."""
    attack: Kind = None
    """Let it attack its federation, to rehearse: a kind (see Attacks); null: it is honest."""


@dataclass(frozen=True)
class HubKeys:
    """A hub: a node with members. The root of the federation is one."""

    name: str
    """Its name among its siblings."""
    members: Members
    """Its sites and hubs: a list of nodes, or a template that makes them (see Generated members)."""
    rounds: int = 1
    """At the root the rounds of the run, at an inner hub its rounds per round of its parent."""
    topology: Kind = "star"
    """How its members exchange: a kind (see Topologies). Not inherited."""
    participation: Kind = "all"
    """Whom its rounds ask, and until when they wait: a kind (see Participation). Not inherited."""
    strategy: Kind = None
    """How it reduces and steps: a kind (see Strategies). `fedavg` at the root; an inner hub without one averages, with
    its parent's weights and objective and no server optimiser of its own."""
    compression: Kind = None
    """How updates become small: those of the sites below, and its own where it steps by itself; a hub that hands up the
    exact sum of its members' sends it whole. A kind (see Compression). Inherited; `none` where none is given."""
    privacy: Kind = None
    """How the records of the sites below are hidden in what these send: a kind (see Privacy). Inherited: where none is
    given, that of the hub above holds, and nobody below can leave it out."""
    training: Section = None
    """Those keys of Training that differ in this subtree; see Inheritance."""
    data: Section = None
    """What holds for the `data` of every site of this subtree; `key` stands at a site only."""
    shared: SharedData | None = None
    """A public data set that this hub hands to the sites below, {key: public, basis: "CC BY 4.0"} (see Shared data)."""
    on_failure: str = "stop"
    """stop: a failing member ends the run. continue: a round closes without it if the quorum is met, and
    `absent` in summary.json names who was missing. Inherited."""
    quorum: float | None = None
    """Fraction of the members that must report, three at least where they mask. Inherited; null is 1.0, or 0.5 with
    `on_failure: continue`."""
    secure_aggregation: str = "none"
    """masks: its members, who all have links, mask their updates so that it learns their sum and no single one; what
    `on_failure: continue` changes of that is in secure_aggregation.md. none: it is sent each. Not inherited; `hierfl
    run` adds up plainly, to the same bits."""
    redundancy: Section = None
    """By how many processes its aggregator is served, and those of the hubs below: {replicas: 2}; those keys of
    Redundancy that differ here, but for `journal`. Inherited."""
    residency: list[str] = field(default_factory=list)
    """Labels that a device must carry to process the data of this subtree, beside those of the hubs above: [de]."""
    site_timeout_s: float | None = None
    """How long the work of each site of this subtree may take; see `runtime.site_timeout_s`. Inherited."""
    weight: float = 1.0
    """Its weight at its parent where that hub's strategy says `weights: given`."""
    joins_at: int | None = None
    """The first round of the root in which it and what is below it are members. Not at the root; see Membership."""
    leaves_at: int | None = None
    """The first round of the root in which it and what is below it are members no more."""
    link: Section = None
    """How it reaches its hub where another institution serves it and what is below it; see Links. Not at the root."""


@dataclass(frozen=True)
class TemplateKeys:
    """What a template of members has beside a site's or a hub's keys."""

    count: int
    """How many members it makes."""
    start: int = 0
    """What `{i}` counts from."""


SECTIONS: dict[str, type] = {
    "evaluation": Evaluation,
    "stopping": Stopping,
    "arithmetic": Arithmetic,
    "runtime": Runtime,
    "output": Output,
    "redundancy": Redundancy,
}
"""The plain sections of the top."""

KIND_KEYS = ("task", "topology", "strategy", "participation", "compression", "privacy", "policy")
"""The keys whose value is a kind; `strategy: fedavgm` is short for `strategy: {kind: fedavgm}`."""

TOP_KEYS = tuple(field.name for field in fields(TopKeys))
HUB_KEYS = tuple(field.name for field in fields(HubKeys))
SITE_KEYS = tuple(field.name for field in fields(SiteKeys))
TEMPLATE_KEYS = tuple(dict.fromkeys((*(field.name for field in fields(TemplateKeys)), *HUB_KEYS, *SITE_KEYS)))
