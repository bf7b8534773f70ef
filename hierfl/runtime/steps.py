"""The steps of an exchange as calls to members' places: work that yields the calls which may go on at the same time.

Vectors are handles throughout; what the calls do is in `places`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from math import sqrt
from pathlib import Path
from typing import Any, TypeAlias

from hierfl.checkpoint import Checkpoint
from hierfl.learning.seeds import derive
from hierfl.learning.state import Layout
from hierfl.members import folder_of
from hierfl.runtime.driver import Handle
from hierfl.runtime.jobs import HubSpec, Order
from hierfl.runtime.places import Rule, Terms
from hierfl.runtime.remembered import Remembered
from tiers.messages import Exchange, Share, Update
from tiers.plan import Gather, Mix

__all__ = [
    "Ask",
    "Held",
    "HubVectors",
    "Reply",
    "Work",
    "broadcast",
    "commit",
    "read_own",
    "result",
    "steps",
    "write_model",
]

SLICES = 16
"""Slices, at most, in which the mean of models that differ is made."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One call to a member's place, by its name."""

    member: str
    method: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of it: a number, and handles."""

    value: Any
    beside: tuple[Handle, ...]


Work: TypeAlias = Generator[list[Ask], list[Reply], None]
"""Yields calls that may go on at the same time, and is sent their replies in the same order."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a member has by now: the hub's model (or its raw sum, where that is passed up), what its training starts
    from, the state of the hub's strategy if there is one, and the bytes of the first.
    """

    model: Handle = None
    sent: Handle = None
    state: Handle = None
    num_bytes: int = 0

    @classmethod
    def of(cls, reply: Reply) -> Held:
        """Take what a step came to; see `Stepped`."""
        (num_bytes, has_state, has_sent), (model, sent, state) = reply.value, reply.beside
        return cls(model, sent if has_sent else model, state if has_state else None, num_bytes)


@dataclass
class HubVectors:
    """What is known of one hub: vectors by their handles.

    `start`: the model that its rounds were begun with; `common`: what all its members have, but for those in `own`; it
    is the hub's, and `at` its place. `apart`: how far from each other members' own models were last; `resumes`: those
    in `own` are of an earlier process, for the model that the hub is begun with next. `left`: who takes no part in the
    exchange under way, or took none in the last one, though its update had come.
    """

    path: str
    spec: HubSpec
    rule: Rule
    at: str
    start: Handle = None
    common: Held = field(default_factory=Held)
    own: dict[str, Held] = field(default_factory=dict)
    parts: dict[str, tuple[Handle, int, int]] = field(default_factory=dict)
    moved: int = 0
    apart: float | None = None
    resumes: bool = False
    left: frozenset[str] = frozenset()

    def held(self, member: str) -> Held:
        """Give what a member has."""
        return self.own.get(member, self.common)

    def size(self, member: str) -> int:
        """Count the bytes of a member's update."""
        return self.parts[member][1]


def broadcast(hub: HubVectors) -> Work:
    """Make what goes to the members before the first step."""
    [reply] = yield [Ask(hub.at, "broadcast", (hub.rule, hub.common.model, hub.common.state))]
    hub.common = replace(Held.of(reply), model=hub.common.model)


def result(hub: HubVectors, update: Update, order: Order | None, found: list[Reply]) -> Work:
    """Make the hub's model, where its members have each their own, and its change for a parent."""
    if hub.spec.hub.topology.keeps_models:
        yield from _average(hub)
    if order is not None and not hub.rule.passes_up:
        [share] = update.shares
        yield from _encode(hub, order, share, found)


def commit(
    hub: HubVectors,
    run_dir: Path,
    content: Checkpoint,
    model: Handle,
    keep: int,
    kept: Remembered,
    found: list[Reply],
) -> Work:
    """Write a checkpoint: members' own models at their places, all else where the hub's model is."""
    own = folder_of(run_dir, content.rounds_done) if kept.members else None
    asks = [Ask(path.rpartition("/")[2], "write_own", (own, path, model)) for path, model in kept.members.items()]
    if asks:
        yield asks
    keys, handles = kept.apart()
    found += yield [Ask(hub.at, "commit", (run_dir, content, keep, own, keys, model, *handles))]


def write_model(hub: HubVectors, path: Path, layout: Layout, model: Handle) -> Work:
    """Write the final model."""
    yield [Ask(hub.at, "write_model", (path, layout, model))]


def read_own(hub: HubVectors, files: Mapping[str, Path]) -> Work:
    """Let members read the models that they kept."""
    replies = yield [Ask(name, "read_own", (file,)) for name, file in files.items()]
    hub.own.update({name: Held.of(reply) for name, reply in zip(files, replies, strict=True)})


def _average(hub: HubVectors) -> Work:
    """Average the members' models slice by slice: no place is handed more of another's than its slice.

    Who has left keeps its own, which is not in the mean.
    """
    weights = {name: weight for name, weight in hub.spec.weights.items() if weight and name not in hub.left}
    names, num = list(weights), min(len(weights), SLICES)
    replies = yield [Ask(name, "cut_model", (num, hub.held(name).model)) for name in names]
    cuts, shares = [reply.beside for reply in replies], tuple(weights.values())
    asks = [Ask(names[k], "average", (hub.spec.clip, shares, *(cut[k] for cut in cuts))) for k in range(num)]
    replies = yield asks
    hub.apart = sqrt(sum(reply.value for reply in replies) / sum(shares))
    hub.at = names[0]
    [reply] = yield [Ask(hub.at, "join", tuple(reply.beside[0] for reply in replies))]
    hub.own = {name: hub.held(name) for name in (*names, *hub.left)}
    hub.common = replace(Held.of(reply), state=hub.common.state)


def _encode(hub: HubVectors, order: Order, share: Share, found: list[Reply]) -> Work:
    """Encode the hub's change on its parent's grid, or compress it."""
    seed = derive(hub.spec.seed, "compress", order.round_number, share.member)
    models = hub.common.model, hub.start, hub.common.state
    found += yield [Ask(hub.at, "encode", (hub.rule, order.opening, share.weight, seed, *models))]
    if found[0].value[2]:
        hub.common = replace(hub.common, state=found[0].beside[1])


def steps(hub: HubVectors, exchange: Exchange, terms: Terms) -> Work:
    """Do a plan's steps; those of one kind and turn at the same time."""
    sums: dict[str, Handle] = {}
    for (kind, _), group in groupby(exchange.steps, _kind):
        if kind == "reduce":
            yield from _reduce(hub, terms, list(group))
        elif kind == "mix":
            yield from _mix(hub, terms, list(group), sum(exchange.weights.values()))
        elif kind == "part":
            yield from _scatter(hub, terms, list(group), sums)
        else:
            yield from _gather(hub, terms, list(group), sums)


def _kind(step: Mix | Gather) -> tuple[str, int]:
    """Say what a step is, and when it may go on."""
    if isinstance(step, Gather):
        return "gather", 0
    return ("mix" if step.weights else "reduce" if step.part is None else "part"), step.turn


def _reduce(hub: HubVectors, terms: Terms, steps: Sequence[Any]) -> Work:
    """One member reduces whole updates, and hands what comes of it to all."""
    [step] = steps
    parts = [hub.parts[name][0] for name in step.of]
    [reply] = yield [Ask(step.at, "reduce", (terms, step.of, *_before(hub, step.at), *parts))]
    hub.moved += sum(hub.size(name) for name in step.of if name != step.at)
    hub.at, hub.common, hub.own = step.at, Held.of(reply), {}


def _mix(hub: HubVectors, terms: Terms, steps: Sequence[Any], total: int) -> Work:
    """Each member takes a part of its neighbours' models; in the first turn of all that they have trained to."""
    asks = []
    for step in steps:
        models = [hub.held(name).model for name in step.of]
        parts = [hub.parts[name][0] for name in step.of] if step.turn == 0 else []
        own = step.of.index(step.at)
        asks.append(Ask(step.at, "mix", (terms, own, step.weights, total, len(models), *models, *parts)))
        hub.moved += sum(hub.size(name) for name in step.of if name != step.at)
    replies = yield asks
    hub.own.update({step.at: Held.of(reply) for step, reply in zip(steps, replies, strict=True)})


def _scatter(hub: HubVectors, terms: Terms, steps: Sequence[Any], sums: dict[str, Handle]) -> Work:
    """Each member cuts its own update, and adds one slice of all."""
    names, num = steps[0].of, len(steps)
    replies = yield [Ask(name, "cut", (num, terms, hub.parts[name][0])) for name in names]
    cut = dict(zip(names, (reply.beside for reply in replies), strict=True))
    replies = yield [Ask(step.at, "add", (terms, *(cut[name][step.part[0]] for name in names))) for step in steps]
    hub.moved += sum(hub.size(name) for name in names) * (num - 1) // num
    sums.update({step.at: reply.beside[0] for step, reply in zip(steps, replies, strict=True)})


def _gather(hub: HubVectors, terms: Terms, steps: Sequence[Any], sums: Mapping[str, Handle]) -> Work:
    """Each member puts the sum together and takes the strategy's step itself; the first one's is the hub's."""
    slices = [sums[name] for name in steps[0].of]
    replies = yield [Ask(step.at, "gather", (terms, *_before(hub, step.at), *slices)) for step in steps]
    hub.moved += sum(hub.size(step.at) for step in steps) * (len(slices) - 1) // len(slices)
    hub.own = {step.at: Held.of(reply) for step, reply in zip(steps, replies, strict=True)}
    hub.at = steps[0].at
    hub.common = hub.own[hub.at]


def _before(hub: HubVectors, member: str) -> tuple[Handle, Handle]:
    """Give the model and the state from which a member takes the strategy's step; none where a raw sum is passed up."""
    held = hub.held(member)
    return (None, None) if hub.rule.passes_up else (held.model, held.state)
