"""The hubs of a run, each replaceable: what a hub was told since it last was idle is kept, and told once more.

A hub is served by one replica of its aggregator or more, each a process that is told the same in the same order. Whose
answer counts and who is replaced is `tiers.replicas`'. A fresh replica recalls what its hub remembered between its
rounds, and is told the same as the lost one was since. Its machine is deterministic, so it comes to the same state and
the same bits; the other replicas go on meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierfl.errors import RuntimeUnavailable, UpdateDamaged
from hierfl.runtime.driver import Done, Driver, Handle, is_further, replica_of
from hierfl.runtime.jobs import HubSpec, Order, Outcome, Post
from hierfl.runtime.lives import Answer, Kept, Life, Told
from hierfl.runtime.watch import Watch
from hierfl.runtime.witness import INTRODUCE
from tiers.messages import Begin
from tiers.replica_messages import (
    Abandon,
    CarryOut,
    Cause,
    Command,
    Died,
    Disagree,
    Opened,
    Replace,
    Retire,
    Return,
    Tick,
    Up,
)
from tiers.replica_messages import Told as ToldMore

if TYPE_CHECKING:
    from hierfl.runtime.recorder import Recorder

__all__ = ["HubLost", "HubSaid", "HubUp", "Hubs", "Kept"]

KEY = -1
"""The index of a call that asks for a replica's public key."""


@dataclass(frozen=True, slots=True)
class HubSaid:
    """A hub's answer to something it was told, to be carried out now."""

    path: str
    outcome: Outcome
    result: Handle
    state: Handle
    started_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class HubLost:
    """A replica of a hub's aggregator, of so many, is replaced: why, in a word and in more; `sits_out`: not before the
    hub's next rounds.
    """

    path: str
    replica: int
    num_replicas: int
    cause: Cause
    reason: str
    sits_out: bool = False


@dataclass(frozen=True, slots=True)
class HubUp:
    """A process has given its first sign of life: where this replica of a hub, of several, is; `again`: it was
    replaced.
    """

    path: str
    replica: int
    num_replicas: int
    machine: str
    again: bool


@dataclass(frozen=True, slots=True)
class _Call:
    """Who was called, in which life, and the index of what it was told."""

    path: str
    post: Post
    index: int


class Hubs:
    """Talks to hubs and keeps them replaceable; `recorder`: what keeps the run itself replaceable."""

    def __init__(
        self, driver: Driver, recorder: Recorder | None = None, lost: Callable[[Iterable[str]], None] = lambda _: None
    ) -> None:
        """`lost`: told which actors were lost with a process, once there is another."""
        self._driver = driver
        self._recorder = recorder
        self._lost = lost
        self._lives: dict[str, Life] = {}
        self._replicas: dict[str, tuple[str, int]] = {}
        self._calls: dict[int, _Call] = {}
        self._coming: set[str] = set()
        self._watch = Watch(driver, lambda actor: self._lives[self._replicas[actor][0]].spec.redundancy.lease_s)

    def make(self, spec: HubSpec, kept: Kept | None = None) -> None:
        """Make a hub's aggregator; `kept`: what one of an earlier run remembered."""
        life = self._lives[spec.path] = Life(spec, kept=kept)
        self._watch.serve(spec.redundancy.lease_s)
        for replica in range(spec.redundancy.replicas):
            self._replicas[replica_of(spec.path, replica)] = (spec.path, replica)
            self._start(life, replica)
        if kept is not None:
            self._tell(spec.path, "recall", (kept.memory, *kept.payloads))
        if self._recorder is not None:
            self._deliver(spec.path, self._recorder.start(spec.path))

    def settled(self) -> bool:
        """Say whether no idle hub has anything left to answer."""
        return all(life.running or not self.waits(path) for path, life in self._lives.items())

    def waits(self, path: str) -> bool:
        """Say whether an answer of a hub that will count has yet to come."""
        return self._lives[path].replicas.carried_out < self._lives[path].replicas.told

    def owns(self, ticket: int) -> bool:
        """Say whether a call was made here."""
        return ticket in self._calls or self._watch.owns(ticket)

    def running(self, path: str) -> bool:
        """Say whether a hub's rounds are under way."""
        return self._lives[path].running

    def under_way(self) -> Mapping[str, Handle]:
        """List the hubs whose rounds are under way, each with the model that its members train from."""
        return {path: life.model for path, life in self._lives.items() if life.running}

    def kept(self) -> Mapping[str, Kept]:
        """Give what the hubs remember, each from before its rounds if they are under way."""
        return {path: life.kept for path, life in self._lives.items() if life.kept is not None}

    def model(self, path: str) -> Handle:
        """Give the model that a hub's members train from now."""
        return self._lives[path].model

    def order(self, path: str) -> Order:
        """Give the parent's order that a hub works for."""
        order = self._lives[path].order
        assert order is not None, f"{path} has no parent"
        return order

    def machines(self) -> dict[str, list[str]]:
        """Name the machine of each replica, of hubs that have more than one, by path."""
        found: dict[str, list[str]] = {}
        for actor, (path, _) in self._replicas.items():
            if self._lives[path].replicas.num_replicas > 1:
                found.setdefault(path, []).append(self._driver.machine(actor))
        return found

    def begin(self, path: str, event: Begin, order: Order | None, model: Handle, state: Handle) -> None:
        """Begin a hub's rounds."""
        life = self._lives[path]
        assert not life.running, f"{path} has not ended its rounds"
        life.running, life.model, life.order = True, model, order
        for command in life.replicas.handle(Opened()):
            assert isinstance(command, Return)
            self._catch_up(life, command.replica)
        self.tell(path, "begin", event, order, None if life.spec.passes_up else model, state)

    def tell(self, path: str, method: str, *arguments: Any) -> None:
        """Tell a hub something, whether its rounds are under way or not; in its turn, if it is told of before first."""
        if self._recorder is None:
            self._tell(path, method, arguments)
        else:
            self._deliver(path, self._recorder.tell(path, method, arguments))

    def _deliver(self, path: str, calls: Iterable[Told]) -> None:
        for method, arguments in calls:
            self._tell(path, method, arguments)

    def _tell(self, path: str, method: str, arguments: tuple[Any, ...]) -> None:
        life = self._lives[path]
        life.told.append((method, arguments))
        life.replicas.handle(ToldMore())
        for replica in life.replicas.active:
            self._call(life, replica, life.replicas.told - 1)

    def stop(self, path: str, *, failed: bool = False) -> None:
        """Give up the rounds of a hub and of all below it; fresh aggregators begin the next, which know no more of what
        was than which updates did not count.

        `failed`: because the hub gave up.
        """
        own = {hub: life for hub, life in self._lives.items() if hub == path or hub.startswith(path + "/")}
        stopped = {hub: life for hub, life in own.items() if life.running or life.told}
        for life in stopped.values():
            life.stop()
            for replica in range(life.replicas.num_replicas):
                self._start(life, replica)
            if life.kept is not None:
                self._tell(life.spec.path, "recall", (life.kept.memory,))
        if stopped and self._recorder is not None:
            self._deliver(path, self._recorder.stop(path, list(stopped), failed=failed))

    def handle(self, done: Done) -> Iterator[HubSaid | HubLost | HubUp]:
        """Take the end of a call. Errors: HierflError of the hub; RuntimeUnavailable if it dies again and again."""
        if self._watch.owns(done.ticket):
            yield from self._beat(done)
            return
        call = self._calls.pop(done.ticket)
        life, post = self._lives[call.path], call.post
        if post.life != life.replicas.lives[post.replica]:
            return
        if done.crashed is not None:
            yield from self.replace(replica_of(call.path, post.replica), done.crashed)
        elif isinstance(done.error, UpdateDamaged):  # told once more, it is handed what was sent
            yield from self.replace(replica_of(call.path, post.replica), str(done.error), "damaged")
        elif call.index == KEY:
            life.keys[post.replica] = (post.life, done.value if done.error is None else b"")
        else:
            answered = life.answered(post.replica, post.life, call.index, done, self._watch.now)
            yield from self._obey(call.path, life.replicas.handle(answered))

    def tick(self, clock_s: float) -> Iterator[HubSaid | HubLost]:
        """Look, from time to time, who is silent or behind. Errors: as of `handle`."""
        if not self._watch.due(clock_s):
            return
        for process, silent_s in self._watch.look():
            if self._rests(process):
                continue
            yield from self.replace(process, f"it has given no sign of life for {silent_s:.1f} s", "silent")
        for path, life in list(self._lives.items()):
            if life.replicas.lags:
                yield from self._obey(path, life.replicas.handle(Tick(self._watch.now)))

    def left_s(self, clock_s: float) -> float:
        """Give the seconds until the next look."""
        return self._watch.left_s(clock_s)

    def replace(self, actor: str, reason: str, cause: Cause = "died") -> Iterator[HubSaid | HubLost]:
        """Replace a lost process; each of its replicas is told once more what it was told.

        Errors: RuntimeUnavailable if one dies again and again.
        """
        actors = self._driver.restart(actor, silent=cause == "silent")
        self._watch.renewed(actors)
        yield from self._renew(actors, cause, reason)
        self._lost(actors)

    def _rests(self, process: str) -> bool:
        """Say whether only replicas that sit out are in a process, and none that members' places may be with: if it
        ends, it is left as it is until one of them returns.
        """
        served = self._driver.processes().get(process, ())
        return bool(served) and all(is_further(actor) and not self._is_active(actor) for actor in served)

    def _is_active(self, actor: str) -> bool:
        path, replica = self._replicas[actor]
        return replica in self._lives[path].replicas.active

    def _renew(self, actors: Iterable[str], cause: Cause, reason: str) -> Iterator[HubSaid | HubLost]:
        """Begin the next lives of replicas whose processes are fresh."""
        for path, replica in [self._replicas[actor] for actor in actors if actor in self._replicas]:
            machine = self._lives[path].replicas
            died = machine.handle(Died(replica, machine.lives[replica], reason, cause))
            for command in died[:1]:
                yield self._replaced(path, command)
            yield from self._obey(path, died[1:])

    def _obey(self, path: str, commands: Sequence[Command]) -> Iterator[HubSaid | HubLost]:
        """Do what is to be done about a hub's replicas, as long as it is not stopped meanwhile."""
        life = self._lives[path]
        num_stops = life.num_stops
        for command in commands:
            match command:
                case CarryOut(index, replicas):
                    answer, forged = life.take(index, replicas, self._driver.get)
                    for lie in forged:
                        yield from self._obey(path, life.replicas.handle(lie))
                    yield self._carry_out(path, index, answer)
                case Replace(replica, _, cause) | Retire(replica, _, cause):
                    actor = replica_of(path, replica)
                    actors = self._driver.restart(actor)
                    self._watch.renewed(actors)
                    yield self._replaced(path, command)
                    beside = f"it shared the process of replica {replica + 1} of {path}"
                    yield from self._renew([one for one in actors if one != actor], cause, beside)
                    self._lost(actors)
                case Disagree(index, reason):
                    one = next(iter(life.answers[index].values()))
                    yield HubSaid(path, Outcome(failed=reason), None, None, one.started_s, one.ended_s)
                case Abandon():
                    self._replaced(path, command)
            if life.num_stops != num_stops:
                return

    def _carry_out(self, path: str, index: int, answer: Answer) -> HubSaid:
        """Take the answer that counts. Errors: HierflError of the hub."""
        life = self._lives[path]
        if answer.error is not None:
            raise answer.error
        outcome = answer.outcome
        assert outcome is not None
        model, result, state = answer.beside
        if outcome.has_model:
            life.model = model
        if outcome.finished is not None:
            life.running, life.model = False, None
        if not life.running and outcome.failed is None:
            life.replicas.handle(life.idle(index, outcome.memory))
            if self._recorder is not None:
                self._recorder.idle(path, len(life.told) - (life.kept is not None))
        return HubSaid(path, outcome, result, state, answer.started_s, answer.ended_s)

    def _replaced(self, path: str, command: Command) -> HubLost:
        """Let a fresh replica take a place. Errors: RuntimeUnavailable if it has died too often."""
        life = self._lives[path]
        if isinstance(command, Abandon):
            raise RuntimeUnavailable(f"the aggregator of {path} {command.reason}")
        assert isinstance(command, Replace | Retire)
        for said in life.answers.values():
            said.pop(command.replica, None)
        if isinstance(command, Replace):
            self._coming.add(replica_of(path, command.replica))
            self._catch_up(life, command.replica)
        last = isinstance(command, Retire)
        return HubLost(path, command.replica, life.replicas.num_replicas, command.cause, command.reason, last)

    def _catch_up(self, life: Life, replica: int) -> None:
        """Tell a fresh replica everything once more."""
        self._start(life, replica)
        for index in range(life.replicas.first, life.replicas.told):
            self._call(life, replica, index)

    def _beat(self, done: Done) -> Iterator[HubSaid | HubLost | HubUp]:
        """Take the end of a ping."""
        if not self._watch.is_current(done):
            return
        if done.crashed is not None:
            if not self._rests(done.actor):
                yield from self.replace(done.actor, done.crashed)
            return
        for actor in self._watch.beat(done.actor):
            path, replica = self._replicas[actor]
            machine = self._lives[path].replicas
            machine.handle(Up(replica, machine.lives[replica], self._watch.now))
            if machine.num_replicas > 1 and self._is_active(actor):
                where = self._driver.machine(actor)
                yield HubUp(path, replica, machine.num_replicas, where, actor in self._coming)
                self._coming.discard(actor)

    def _start(self, life: Life, replica: int) -> None:
        """Make a replica of its present life; what an earlier one still says is dropped."""
        path, post = life.spec.path, life.post(replica)
        self._driver.start_hub(life.spec, post)
        if life.votes:
            self._calls[self._driver.call(replica_of(path, replica), INTRODUCE)] = _Call(path, post, KEY)

    def _call(self, life: Life, replica: int, index: int) -> None:
        """Tell a replica the thing of this index."""
        path = life.spec.path
        method, arguments = life.told[index - life.replicas.first]
        ticket = self._driver.call(replica_of(path, replica), method, *arguments)
        self._calls[ticket] = _Call(path, life.post(replica), index)
