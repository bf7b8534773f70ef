"""The exchanges of hubs without a centre: which member's place is asked to do what, step by step of the compute plan.

The supervisor makes the calls and knows every vector by its handle; no vector comes here. The calls of one step go on
at the same time, and the next step waits for them. A place whose process is lost is asked once more, to the same bits.
One under which it is lost again and again is given up: its hub is told, and may let the others begin the exchange anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hierfl.checkpoint import Checkpoint
from hierfl.errors import PeerUnreached, RuntimeUnavailable, StrategyFailed, UpdateRefused
from hierfl.learning.state import Layout
from hierfl.runtime.blame import MAX_ATTEMPTS
from hierfl.runtime.driver import Done, Driver, Handle
from hierfl.runtime.jobs import HubSpec, Order, Outcome
from hierfl.runtime.places import Rule, Terms, place_of
from hierfl.runtime.remembered import Remembered
from hierfl.runtime.steps import (
    Ask,
    Held,
    HubVectors,
    Reply,
    Work,
    broadcast,
    commit,
    read_own,
    result,
    steps,
    write_model,
)
from scheduler.participation import needed
from tiers.messages import Update
from tiers.plan import Mix

__all__ = ["Exchanges", "Moved"]

MAX_RESTARTS = 5
"""How often the places of one work that is no exchange are asked anew."""


NOTHING = Reply(None, ())
"""In the place of a reply of who is gone; nobody reads it."""


@dataclass(frozen=True, slots=True)
class Moved:
    """An exchange has ended: bytes that members handed to others, at whose places whose updates were mixed, and who has
    left, each for a reason.
    """

    num_bytes: int
    mixed: Mapping[str, Sequence[str]]
    missing: Mapping[str, str]


@dataclass
class _Job:
    """Work under way: the calls of a step, and their replies as they come.

    `leave`: of an exchange, ends it as members cannot do their parts. `deaths`: who was at work in the processes that
    were lost, and how often; `gone`: who cannot do its part in this step, and why.
    """

    key: str
    hub: str
    work: Work
    then: Callable[[], None]
    leave: Callable[[Mapping[str, str]], None] | None = None
    asks: list[Ask] = field(default_factory=list)
    replies: dict[int, Reply] = field(default_factory=dict)
    deaths: Counter[str] = field(default_factory=Counter)
    gone: dict[str, str] = field(default_factory=dict)


class Exchanges:
    """All hubs without a centre.

    `busy`: told of the time that a place has spent for a hub; `failed`: told why a hub's exchange cannot go on; `left`:
    told of a hub, in the exchange of which round, which members cannot do their parts, and why.
    """

    def __init__(
        self,
        driver: Driver,
        busy: Callable[[str, str, Done], None],
        failed: Callable[[str, str], None],
        left: Callable[[str, int, Mapping[str, str]], None],
    ) -> None:
        self._driver = driver
        self._busy = busy
        self._failed = failed
        self._left = left
        self._hubs: dict[str, HubVectors] = {}
        self._jobs: dict[str, _Job] = {}
        self._calls: dict[int, tuple[_Job, int, str]] = {}

    def make(self, spec: HubSpec) -> None:
        """Know a hub, if it has no centre."""
        if not spec.hub.topology.has_centre:
            self._hubs[spec.path] = HubVectors(spec.path, spec, Rule.of(spec), spec.hub.members[0].name)

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
            hub.common = Held(model, model, state)
        if not (goes_on or hub.resumes):
            hub.own.clear()
        hub.resumes = False
        if not goes_on and hub.rule.has_channels:
            self._run(path, broadcast(hub), then)
        else:
            then()

    def keep(self, path: str, update: Update, part: Handle) -> None:
        """Keep a member's update until the round closes; what is late, of an earlier round, takes no newer's place."""
        parts, mine = self._hubs[path].parts, (part, update.num_bytes, update.round_number)
        parts.update({one.member: mine for one in update.shares if parts.get(one.member, mine)[2] <= mine[2]})

    def start(self, path: str, outcome: Outcome, then: Callable[[Moved], None]) -> None:
        """Let a hub's members do the exchange that its round has come to, or begin it anew without some of them."""
        exchange, opening = outcome.exchange, outcome.opening
        assert exchange is not None and opening is not None
        hub = self._hubs[path]
        hub.moved, hub.left = 0, frozenset(exchange.missing)
        before = hub.at, hub.common, dict(hub.own)
        mixed = {step.at: step.of for step in exchange.steps if isinstance(step, Mix)}

        def done() -> None:
            hub.parts.clear()
            then(Moved(hub.moved, mixed, exchange.missing))

        def leave(members: Mapping[str, str]) -> None:
            hub.at, hub.common, hub.own = before
            self._left(path, exchange.round_number, members)

        self._run(path, steps(hub, exchange, Terms(hub.rule, opening, exchange.round_number)), done, leave=leave)

    def deliver(self, path: str, update: Update, order: Order | None, then: Callable[[Handle, int, int], None]) -> None:
        """Give a hub's result: its model at the root, its sum or its own change below.

        `then`: told its handle, its bytes, and how many of them compression has spared.
        """
        hub = self._hubs[path]
        found: list[Reply] = []

        def done() -> None:
            if not found:
                then(hub.common.model, hub.common.num_bytes, 0)
                return
            [(num_bytes, spared_bytes, _), (part, _)] = found[0].value, found[0].beside
            then(part, num_bytes, spared_bytes)

        self._run(path, result(hub, update, order, found), done)

    def models(self, path: str) -> dict[str, Handle]:
        """Give the models that members keep of their own, by their paths; none where a hub has but one."""
        hub = self._hubs.get(path)
        if hub is None or not hub.spec.hub.topology.keeps_models:
            return {}
        return {f"{path}/{name}": held.model for name, held in hub.own.items()}

    def restore(self, path: str, models: Mapping[str, Handle | Path]) -> None:
        """Let members go on with what they had at a commit; whoever has joined since begins with the hub's model."""
        if not models or path not in self._hubs:
            return
        hub = self._hubs[path]
        own = {name: models[f"{path}/{name}"] for name in hub.spec.weights if f"{path}/{name}" in models}
        hub.own = {name: Held(model, model) for name, model in own.items() if not isinstance(model, Path)}
        hub.resumes = True
        files = {name: file for name, file in own.items() if isinstance(file, Path)}
        if files:
            self._run(path, read_own(hub, files), _nothing, f"{path} reads")

    @property
    def on_disk(self) -> bool:
        """Whether all that is to be written and read has been."""
        return all(job.key == job.hub for job in self._jobs.values())

    def commit(
        self, path: str, run_dir: Path, content: Checkpoint, model: Handle, keep: int, kept: Remembered
    ) -> list[Reply]:
        """Let the root's members write a checkpoint; what is given will hold the reply of who has written it last."""
        found: list[Reply] = []
        work = commit(self._hubs[path], run_dir, content, model, keep, kept, found)
        self._run(path, work, _nothing, f"{path} commits")
        return found

    def write_model(self, path: str, file: Path, layout: Layout, model: Handle) -> None:
        """Let the final model be written where it is."""
        self._run(path, write_model(self._hubs[path], file, layout, model), _nothing, f"{path} writes")

    def distances(self) -> dict[str, float]:
        """Give the consensus distance of every hub whose members keep models of their own."""
        return {path: hub.apart for path, hub in self._hubs.items() if hub.apart is not None}

    def recall(self, distances: Mapping[str, float]) -> None:
        """Know what hubs' distances were at a commit, until they give results again."""
        for path in distances.keys() & self._hubs.keys():
            self._hubs[path].apart = distances[path]

    def consensus_distance(self, path: str) -> float | None:
        """Tell how far from each other the members' models were when the hub last gave a result; None if they have one.

        The root of the weighted mean of |x_i - mean|^2.
        """
        return self._hubs[path].apart

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
        is_left = done.crashed is not None and done.away and self._spares(job, job.asks[index].member)
        if done.crashed is not None and not is_left:
            yield actor  # who replaces it asks for what was lost with it: `again`
            return
        del self._calls[done.ticket]
        if is_left:
            job.gone[job.asks[index].member] = done.crashed or ""
            job.replies[index] = NOTHING
            self._go_on(job)
            return
        if isinstance(done.error, UpdateRefused):
            self.stop(job.hub)
            self._failed(job.hub, str(done.error))
            return
        if isinstance(done.error, PeerUnreached) and self._leaves(job, done.error):
            job.replies[index] = NOTHING
        elif isinstance(done.error, StrategyFailed):
            raise StrategyFailed(f"{job.hub}/{job.asks[index].member} could not do its part: {done.error}")
        elif done.error is not None:
            raise done.error
        else:
            self._busy(job.hub, job.asks[index].member, done)
            job.replies[index] = Reply(done.value, done.beside)
        self._go_on(job)

    def _spares(self, job: _Job, member: str) -> bool:
        """A member stays away: say whether the others are enough to go on without it, and need not ask it once more."""
        hub = self._hubs[job.hub]
        of, cohort = hub.spec.hub, sum(weight > 0 for weight in hub.spec.weights.values())
        others = hub.parts.keys() - hub.left - job.gone.keys() - {member}
        return job.leave is not None and of.keep_going and len(others) >= needed(of.quorum, cohort)

    def _leaves(self, job: _Job, error: PeerUnreached) -> bool:
        """A member's place does not hand out what lies there: say whether the others may go on without it."""
        hub, _, name = error.holder.rpartition("/")
        if job.leave is None or hub != job.hub or name not in self._hubs[hub].parts or name in self._hubs[hub].left:
            return False
        job.gone[name] = str(error)
        return True

    def again(self, actors: Iterable[str]) -> None:
        """Ask for everything anew that was under way at these places, or those of these hubs: their processes are
        fresh. Who was asked first in a process was at work as it was lost, and has waited for nobody.

        Errors: RuntimeUnavailable if that is so again and again, and it is no exchange that others could do without it.
        """
        lost = {place for actor in actors for place in (actor, place_of(actor))}
        struck = [ticket for ticket, (_, _, actor) in self._calls.items() if actor in lost]
        for number, ticket in enumerate(struck):
            job, index, _ = self._calls.pop(ticket)
            if number or not self._gives_up(job, job.asks[index].member):
                self._call(job, index)
            else:
                job.replies[index] = NOTHING
                self._go_on(job)

    def _gives_up(self, job: _Job, member: str) -> bool:
        """A process was lost under a member: say whether it is not asked again."""
        job.deaths[member] += 1
        if job.leave is not None and job.deaths[member] >= MAX_ATTEMPTS:
            job.gone[member] = f"the process of its place died {MAX_ATTEMPTS} times while it did its part"
        elif job.leave is None and job.deaths.total() > MAX_RESTARTS:
            place = f"{job.hub}/{member}"
            raise RuntimeUnavailable(
                f"{job.key}: the processes of its members' places died {job.deaths.total()} times, that of {place} last"
            )
        return member in job.gone

    def _run(
        self,
        path: str,
        work: Work,
        then: Callable[[], None],
        key: str = "",
        leave: Callable[[Mapping[str, str]], None] | None = None,
    ) -> None:
        """Begin work for a hub: its exchange, or something beside it under another key."""
        assert (key or path) not in self._jobs, f"{key or path} already"
        self._jobs[key or path] = job = _Job(key or path, path, work, then, leave)
        self._advance(job)

    def _go_on(self, job: _Job) -> None:
        """Once all calls of a step have ended take the next one, or end the exchange if somebody is gone."""
        if len(job.replies) < len(job.asks):
            return
        if not job.gone:
            self._advance(job)
            return
        assert job.leave is not None
        del self._jobs[job.key]
        job.leave(dict(sorted(job.gone.items())))

    def _advance(self, job: _Job) -> None:
        """Let work go on with the replies that it waited for; at its end say so."""
        replies = [job.replies[index] for index in range(len(job.asks))]
        try:
            job.asks = job.work.send(replies) if job.asks else next(job.work)
        except StopIteration:
            del self._jobs[job.key]
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


def _nothing() -> None:
    """Whoever asked looks whether anything is under way."""
