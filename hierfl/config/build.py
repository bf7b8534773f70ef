"""Turns a checked configuration into a RunConfig: the tree, and what holds at each node after inheritance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from hierfl.config.baseline import as_baseline
from hierfl.config.check import Checked
from hierfl.config.learning import Handed, SharedData
from hierfl.config.membership import Stay
from hierfl.config.replicas import replicated
from hierfl.config.schema import HubSettings, Replication, RunConfig, SiteSettings, Training
from hierfl.config.tree import Node
from hierfl.learning.compression import Compression
from hierfl.learning.compressions.none import Whole
from hierfl.learning.own_metrics import BUILT_IN
from hierfl.learning.privacy import Mechanism
from hierfl.learning.strategy import Strategy
from tiers.federation import Federation, Hub, Member, Site

__all__ = ["build", "override_training"]


@dataclass(frozen=True, slots=True)
class _Inherited:
    """What a hub hands down to its members."""

    training: Training
    source: Mapping[str, Any]
    keep_going: bool
    quorum: float | None
    labels: frozenset[str]
    strategy: Strategy | None
    timeout_s: float | None = None
    compression: Compression | None = None
    stay: Stay = field(default_factory=Stay)
    handed: tuple[Handed, ...] = ()
    redundancy: Replication = field(default_factory=Replication)
    privacy: Mechanism | None = None


PART = "part-{}"
"""The name of a split site's part."""


@dataclass(frozen=True, slots=True)
class _Placed:
    """A node with its path, its hub's place in the list, and what holds at it."""

    node: Node
    path: str
    parent: int
    holds: _Inherited

    @property
    def num_parts(self) -> int:
        """Count the parts of a split site; 0 at any other node."""
        split: int = self.node.own.settings.get("split", 1) if self.node.members is None else 1
        return split if split > 1 else 0


def build(checked: Checked) -> RunConfig:
    """Build the run's configuration from one that was checked and found sound."""
    assert checked.root is not None
    training = override_training(Training(), checked.training)
    timeout_s = checked.sections["runtime"].site_timeout_s
    redundancy = replicated(Replication(), vars(checked.sections["redundancy"]))
    start = _Inherited(training, {}, False, None, frozenset(), None, timeout_s, redundancy=redundancy)
    nodes = _inherit(checked.root, start)
    named = checked.written["task"]["kind"]
    stopping = checked.sections["stopping"]
    better = dict(checked.better)
    if stopping.metric is not None and stopping.metric not in BUILT_IN:
        better.setdefault(stopping.metric, stopping.mode)
    config = RunConfig(
        name=checked.top["name"],
        seed=checked.top["seed"],
        task=checked.task,
        task_kind=named,
        federation=Federation(_tree(nodes)),
        hubs={
            placed.path: _hub_settings(placed)
            for placed in nodes
            if placed.node.members is not None or placed.num_parts
        },
        sites={path: settings for placed in nodes for path, settings in _site_settings(placed)},
        **checked.sections,
        resolved=checked.written,
        baseline=checked.top["baseline"],
        lora=checked.top["lora"],
        statistics=checked.top["statistics"],
        better=better,
        links={placed.path: placed.node.own.link for placed in nodes if placed.node.own.link is not None},
    )
    return as_baseline(config, nodes[0].holds.training)


def override_training(inherited: Training, own: Mapping[str, Any]) -> Training:
    """Put a node's own keys over what it inherits.

    Naming local_steps drops an inherited local_epochs, and the other way round; another optimizer drops the inherited
    optimizer_options, which were meant for the first one.
    """
    if not own:
        return inherited
    values = dict(vars(inherited))
    if own.get("local_steps") is not None:
        values["local_epochs"] = None
    if own.get("local_epochs") is not None:
        values["local_steps"] = None
    if own.get("optimizer", inherited.optimizer).lower() != inherited.optimizer.lower():
        values["optimizer_options"] = {}
    return Training(**{**values, **own})


def _inherit(root: Node, start: _Inherited) -> list[_Placed]:
    """Walk the tree from the root, parents before children and siblings in order, handing settings down."""
    placed: list[_Placed] = []
    trainings: dict[tuple[int, int], Training] = {}
    handed: dict[int, Strategy] = {}
    stack: list[tuple[Node, str, int, _Inherited]] = [(root, root.name, -1, start)]
    while stack:
        node, path, parent, above = stack.pop()
        both = (id(above.training), id(node.own.training))
        if both not in trainings:
            trainings[both] = override_training(above.training, node.own.training)
        own_data = {key: value for key, value in node.data.items() if key != "key"}
        source = {**above.source, **own_data} if own_data else above.source
        settings = node.own.settings
        keep_going = settings["on_failure"] == "continue" if "on_failure" in settings else above.keep_going
        strategy = node.own.strategy
        if strategy is None and above.strategy is not None and (node.members is not None or "split" in settings):
            strategy = handed.setdefault(id(above.strategy), above.strategy.inherited())
            strategy = _of_parts(strategy) if "split" in settings and node.members is None else strategy
        own_labels = settings.get("residency")
        labels = above.labels.union(own_labels) if own_labels else above.labels
        quorum = settings.get("quorum", above.quorum)
        timeout_s = settings.get("site_timeout_s", above.timeout_s)
        compression = node.own.compression if node.own.compression is not None else above.compression
        holds = _Inherited(
            *(trainings[both], source, keep_going, quorum, labels, strategy, timeout_s, compression),
            stay=above.stay,
            handed=_handed(path, settings.get("shared"), source, above.handed),
            redundancy=replicated(above.redundancy, node.own.redundancy),
            privacy=node.own.privacy if node.own.privacy is not None else above.privacy,
        )
        if settings.get("joins_at") is not None or settings.get("leaves_at") is not None or above.stay != Stay():
            holds = replace(holds, stay=above.stay.within(settings))
        placed.append(_Placed(node, path, parent, holds))
        here = len(placed) - 1
        stack.extend((member, f"{path}/{member.name}", here, holds) for member in reversed(node.members or ()))
    return placed


def _of_parts(strategy: Any) -> Strategy:
    """Weigh a split site's parts by their samples, whatever the site weighs: together they are its data."""
    has_key = is_dataclass(strategy) and any(key.name == "weights" for key in fields(strategy))
    found: Strategy = replace(strategy, weights="samples") if has_key else strategy
    return found


def _tree(nodes: list[_Placed]) -> Hub:
    """Build the immutable tree from its leaves up."""
    made: list[list[Member]] = [[] for _ in nodes]
    top: Member | None = None
    for index in range(len(nodes) - 1, -1, -1):
        placed = nodes[index]
        top = _member(placed, made[index])
        made[index] = []
        if placed.parent >= 0:
            made[placed.parent].append(top)
    assert isinstance(top, Hub)
    return top


def _member(placed: _Placed, backwards: list[Member]) -> Member:
    """Make a node's place in the tree; a split site is a hub of its parts, and to its hub a member like any other."""
    if placed.num_parts:
        parts = tuple(Site(PART.format(number)) for number in range(placed.num_parts))
        return Hub(placed.node.name, parts)
    return _hub(placed, backwards) if placed.node.members is not None else Site(placed.node.name)


def _hub(placed: _Placed, backwards: list[Member]) -> Hub:
    holds = placed.holds
    quorum = holds.quorum if holds.quorum is not None else (0.5 if holds.keep_going else 1.0)
    return Hub(
        name=placed.node.name,
        members=tuple(reversed(backwards)),
        rounds=placed.node.own.settings["rounds"],
        topology=placed.node.own.topology,
        keep_going=holds.keep_going,
        quorum=quorum,
        participation=placed.node.own.participation,
    )


def _hub_settings(placed: _Placed) -> HubSettings:
    assert placed.holds.strategy is not None
    settings = placed.node.own.settings
    return HubSettings(
        *(placed.holds.strategy, settings.get("weight", 1.0), _sent_small(placed.holds), placed.holds.redundancy),
        secure_aggregation=settings.get("secure_aggregation", "none"),
    )


def _handed(
    path: str, shared: SharedData | None, source: Mapping[str, Any], above: tuple[Handed, ...]
) -> tuple[Handed, ...]:
    """Add a hub's public data to what the hubs above it hand down."""
    if shared is None:
        return above
    return (*above, Handed(path, shared.key, shared.fraction, shared.basis, {**source, **shared.data}))


def _sent_small(holds: _Inherited) -> Compression | None:
    """Give how updates become small; None where they travel whole."""
    return None if isinstance(holds.compression, Whole) else holds.compression


def _site_settings(placed: _Placed) -> Iterator[tuple[str, SiteSettings]]:
    """Yield a site's settings with its path, or its parts' if it is split; the parts share its local steps."""
    node = placed.node
    if node.members is not None:
        return
    key = str(node.data.get("key", node.name))
    weight = node.own.settings.get("weight", 1.0)
    role = node.own.settings.get("role", "training")
    training, number = placed.holds.training, placed.num_parts
    holds = placed.holds
    settings = SiteSettings(
        *(training, key, holds.source, weight, holds.labels),
        timeout_s=holds.timeout_s,
        role=role,
        joins_at=holds.stay.first,
        leaves_at=holds.stay.end,
        compression=_sent_small(holds),
        handed=holds.handed if role == "training" else (),
        attack=node.own.attack,
        privacy=holds.privacy if role == "training" else None,
    )
    if not number:
        yield placed.path, settings
        return
    if training.local_steps is not None:
        training = replace(training, local_steps=-(-training.local_steps // number))
    for part in range(number):
        yield f"{placed.path}/{PART.format(part)}", replace(settings, training=training, part=(part, number))
