"""The exchanges of hubs without a centre: which member's place is asked to do what, step by step of the compute plan.

The supervisor makes the calls and knows every vector by its handle; no vector comes here. The calls of one step go on
at the same time, and the next step waits for them. A place whose process is lost is asked once more.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, TypeAlias

from hierfl.errors import RuntimeUnavailable, UpdateRefused
from hierfl.learning.seeds import derive
from hierfl.runtime.driver import Done, Driver, Handle
from hierfl.runtime.jobs import HubSpec, Order, Outcome
from hierfl.runtime.places import Rule, Terms, place_of
from tiers.messages import Exchange, Share, Update
from tiers.plan import Gather, Mix

__all__ = ["Exchanges", "Moved"]

MAX_RESTARTS = 5
"""How often the places of one exchange are asked anew."""


@dataclass(frozen=True, slots=True)
class Moved:
    """An exchange has ended: bytes that members handed to others, and at whose places whose updates were mixed."""

    num_bytes: int
    mixed: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class _Ask:
    """One call to a member's place, by its name."""

    member: str
    method: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Reply:
    """What came of it: a number, and handles."""

    value: Any
    beside: tuple[Handle, ...]


Work: TypeAlias = Generator[list[_Ask], list[_Reply], None]
"""Yields calls that may go on at the same time, and is sent their replies in the same order."""


@dataclass(frozen=True, slots=True)
class _Held:
    """What a member has by now: the hub's model (or its raw sum, where that is passed up), what its training starts
    from, the state of the hub's strategy if there is one, and the bytes of the first.
    """

    model: Handle = None
    sent: Handle = None
    state: Handle = None
    num_bytes: int = 0

    @classmethod
    def of(cls, reply: _Reply) -> _Held:
        """Take what a step came to; see `Stepped`."""
        (num_bytes, has_state), (model, sent, state) = reply.value, reply.beside
        return cls(model, sent, state if has_state else None, num_bytes)


@dataclass
class _Hub:
    """What is known of one hub: vectors by their handles.

    `start`: the model that its rounds were begun with; `common`: what all its members have, but for those in `own`; it
    is the hub's, and `at` its place.
    """

    path: str
    rule: Rule
    seed: int
    at: str
    start: Handle = None
    common: _Held = field(default_factory=_Held)
    own: dict[str, _Held] = field(default_factory=dict)
    parts: dict[str, tuple[Handle, int]] = field(default_factory=dict)
    moved: int = 0

    def held(self, member: str) -> _Held:
        """Give what a member has."""
        return self.own.get(member, self.common)

    def size(self, member: str) -> int:
        """Count the bytes of a member's update."""
        return self.parts[member][1]


@dataclass
class _Job:
    """Work under way: the calls of a step, and their replies as they come."""

    hub: str
    work: Work
    then: Callable[[], None]
    asks: list[_Ask] = field(default_factory=list)
    replies: dict[int, _Reply] = field(default_factory=dict)
    restarts: int = 0


class Exchanges:
    """All hubs without a centre.

    `busy`: told of the time that a place has spent for a hub; `failed`: told why a hub's exchange cannot go on.
    """

    def __init__(
        self,
        driver: Driver,
        busy: Callable[[str, str, Done], None],
        failed: Callable[[str, str], None],
    ) -> None:
        self._driver = driver
        self._busy = busy
        self._failed = failed
        self._hubs: dict[str, _Hub] = {}
        self._jobs: dict[str, _Job] = {}
        self._calls: dict[int, tuple[_Job, int, str]] = {}

    def make(self, spec: HubSpec) -> None:
        """Know a hub, if it has no centre."""
        if not spec.hub.topology.has_centre:
            self._hubs[spec.path] = _Hub(spec.path, Rule.of(spec), spec.seed, spec.hub.members[0].name)

    def serves(self, path: str) -> bool:
        """Say whether a hub has no centre."""
        return path in self._hubs

    def owns(self, ticket: int) -> bool:
        """Say whether a call was made here."""
        return ticket in self._calls

    def model(self, path: str, member: str) -> Handle:
        """Give what a member trains from now."""
        return self._hubs[path].held(member).sent

    def begin(self, path: str, model: Handle, state: Handle, then: Callable[[], None]) -> None:
        """Begin a hub's rounds from a model and its strategy's state, and go on with `then`.

        Where it is the model that the hub has published, its members go on with what they have of it.
        """
        hub = self._hubs[path]
        hub.parts.clear()
        goes_on = hub.start is not None and model is hub.common.model
        hub.start = model
        if not goes_on:
            hub.common = _Held(model, model, state)
            hub.own.clear()
        if not goes_on and hub.rule.has_channels:
            self._run(path, _broadcast(hub), then)
        else:
            then()

    def keep(self, path: str, update: Update, part: Handle) -> None:
        """Keep a member's update until the round closes."""
        hub = self._hubs[path]
        hub.parts.update({share.member: (part, update.num_bytes) for share in update.shares})

    def start(self, path: str, outcome: Outcome, then: Callable[[Moved], None]) -> None:
        """Let a hub's members do the exchange that its round has come to."""
        exchange, opening = outcome.exchange, outcome.opening
        assert exchange is not None and opening is not None
        hub = self._hubs[path]
        hub.moved = 0
        mixed = {step.at: step.of for step in exchange.steps if isinstance(step, Mix)}

        def done() -> None:
            hub.parts.clear()
            then(Moved(hub.moved, mixed))

        self._run(path, _steps(hub, exchange, Terms(hub.rule, opening)), done)

    def deliver(self, path: str, update: Update, order: Order | None, then: Callable[[Handle, int, int], None]) -> None:
        """Give a hub's result: its model at the root, its sum or its own change below.

        `then`: told its handle, its bytes, and how many of them compression has spared.
        """
        hub = self._hubs[path]
        if order is None or hub.rule.passes_up:
            then(hub.common.model, hub.common.num_bytes, 0)
            return
        [share] = update.shares
        found: list[_Reply] = []

        def done() -> None:
            [(num_bytes, spared_bytes, _), (part, _)] = found[0].value, found[0].beside
            then(part, num_bytes, spared_bytes)

        self._run(path, _encode(hub, order, share, found), done)

    def state(self, path: str) -> Handle:
        """Give the state of a hub's strategy; None where it has none yet."""
        return self._hubs[path].common.state

    def stop(self, path: str) -> None:
        """Drop what is under way for a hub."""
        job = self._jobs.pop(path, None)
        if job is not None:
            self._calls = {ticket: call for ticket, call in self._calls.items() if call[0] is not job}
        if path in self._hubs:
            self._hubs[path].start = None

    def handle(self, done: Done) -> Iterator[str]:
        """Take the end of a call; yield the name of a place whose process is lost. Errors: HierflError."""
        job, index, actor = self._calls[done.ticket]
        if done.crashed is not None:
            job.restarts += 1
            if job.restarts > MAX_RESTARTS:
                said = f"the members of {job.hub} could not exchange: {actor} died {job.restarts} times: {done.crashed}"
                raise RuntimeUnavailable(said)
            yield actor  # who replaces it asks for what was lost with it: `again`
            return
        del self._calls[done.ticket]
        if isinstance(done.error, UpdateRefused):
            self.stop(job.hub)
            self._failed(job.hub, str(done.error))
            return
        if done.error is not None:
            raise done.error
        self._busy(job.hub, job.asks[index].member, done)
        job.replies[index] = _Reply(done.value, done.beside)
        if len(job.replies) == len(job.asks):
            self._advance(job)

    def again(self, actors: Iterable[str]) -> None:
        """Ask for everything anew that was under way at these places, or those of these hubs: their processes are
        fresh.
        """
        lost = {place for actor in actors for place in (actor, place_of(actor))}
        for ticket, (job, index, actor) in list(self._calls.items()):
            if actor in lost:
                del self._calls[ticket]
                self._call(job, index)

    def _run(self, path: str, work: Work, then: Callable[[], None]) -> None:
        """Begin work for a hub."""
        assert path not in self._jobs, f"{path} exchanges already"
        self._jobs[path] = job = _Job(path, work, then)
        self._advance(job)

    def _advance(self, job: _Job) -> None:
        """Let work go on with the replies that it waited for; at its end say so."""
        replies = [job.replies[index] for index in range(len(job.asks))]
        try:
            job.asks = job.work.send(replies) if job.asks else next(job.work)
        except StopIteration:
            del self._jobs[job.hub]
            job.then()
            return
        job.replies = {}
        for index in range(len(job.asks)):
            self._call(job, index)

    def _call(self, job: _Job, index: int) -> None:
        """Ask a place."""
        ask = job.asks[index]
        actor = place_of(f"{job.hub}/{ask.member}")
        self._calls[self._driver.call(actor, ask.method, *ask.arguments)] = job, index, actor


def _broadcast(hub: _Hub) -> Work:
    """Make what goes to the members before the first step."""
    [reply] = yield [_Ask(hub.at, "broadcast", (hub.rule, hub.common.model, hub.common.state))]
    hub.common = replace(_Held.of(reply), model=hub.common.model)


def _encode(hub: _Hub, order: Order, share: Share, found: list[_Reply]) -> Work:
    """Encode the hub's change on its parent's grid, or compress it."""
    seed = derive(hub.seed, "compress", order.round_number, share.member)
    models = hub.common.model, hub.start, hub.common.state
    found += yield [_Ask(hub.at, "encode", (hub.rule, order.opening, share.weight, seed, *models))]
    if found[0].value[2]:
        hub.common = replace(hub.common, state=found[0].beside[1])


def _steps(hub: _Hub, exchange: Exchange, terms: Terms) -> Work:
    """Do a plan's steps; those of one kind and turn at the same time."""
    sums: dict[str, Handle] = {}
    for (kind, _), group in groupby(exchange.steps, _kind):
        if kind == "reduce":
            yield from _reduce(hub, terms, list(group))
        elif kind == "part":
            yield from _scatter(hub, terms, list(group), sums)
        else:
            yield from _gather(hub, terms, list(group), sums)


def _kind(step: Mix | Gather) -> tuple[str, int]:
    """Say what a step is, and when it may go on."""
    if isinstance(step, Gather):
        return "gather", 0
    return ("mix" if step.weights else "reduce" if step.part is None else "part"), step.turn


def _reduce(hub: _Hub, terms: Terms, steps: Sequence[Any]) -> Work:
    """One member reduces whole updates, and hands what comes of it to all."""
    [step] = steps
    parts = [hub.parts[name][0] for name in step.of]
    [reply] = yield [_Ask(step.at, "reduce", (terms, step.of, *_before(hub, step.at), *parts))]
    hub.moved += sum(hub.size(name) for name in step.of if name != step.at)
    hub.at, hub.common, hub.own = step.at, _Held.of(reply), {}


def _scatter(hub: _Hub, terms: Terms, steps: Sequence[Any], sums: dict[str, Handle]) -> Work:
    """Each member cuts its own update, and adds one slice of all."""
    names, num = steps[0].of, len(steps)
    replies = yield [_Ask(name, "cut", (num, terms, hub.parts[name][0])) for name in names]
    cut = dict(zip(names, (reply.beside for reply in replies), strict=True))
    replies = yield [_Ask(step.at, "add", (terms, *(cut[name][step.part[0]] for name in names))) for step in steps]
    hub.moved += sum(hub.size(name) for name in names) * (num - 1) // num
    sums.update({step.at: reply.beside[0] for step, reply in zip(steps, replies, strict=True)})


def _gather(hub: _Hub, terms: Terms, steps: Sequence[Any], sums: Mapping[str, Handle]) -> Work:
    """Each member puts the sum together and takes the strategy's step itself; the first one's is the hub's."""
    slices = [sums[name] for name in steps[0].of]
    replies = yield [_Ask(step.at, "gather", (terms, *_before(hub, step.at), *slices)) for step in steps]
    hub.moved += sum(hub.size(step.at) for step in steps) * (len(slices) - 1) // len(slices)
    hub.own = {step.at: _Held.of(reply) for step, reply in zip(steps, replies, strict=True)}
    hub.at = steps[0].at
    hub.common = hub.own[hub.at]


def _before(hub: _Hub, member: str) -> tuple[Handle, Handle]:
    """Give the model and the state from which a member takes the strategy's step; none where a raw sum is passed up."""
    held = hub.held(member)
    return (None, None) if hub.rule.passes_up else (held.model, held.state)
