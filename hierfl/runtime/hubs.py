"""The hubs of a run, each replaceable: what a hub was told since it last was idle is kept, and told once more.

A hub whose process is lost is made again, recalls what it remembered between its rounds, and is told the same as the
lost one was since. Its machine is deterministic, so it comes to the same state and the same bits, and of its answers
only those that were not carried out yet count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from hierfl.errors import RuntimeUnavailable
from hierfl.runtime.driver import Done, Driver, Handle
from hierfl.runtime.jobs import HubSpec, Memory, Order, Outcome
from tiers.messages import Begin, Update

if TYPE_CHECKING:
    from hierfl.runtime.recorder import Recorder

__all__ = ["HubLost", "HubSaid", "Hubs", "Kept"]

MAX_RESTARTS = 5
"""How often one hub's process is replaced within its rounds."""


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
    """A hub's process died and was replaced."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What a hub remembers, and the payloads of the updates that it holds, in the order of `memory.standing.held`."""

    memory: Memory
    payloads: tuple[Handle, ...] = ()


Told: TypeAlias = tuple[str, tuple[Any, ...]]
"""A method of an aggregator and its arguments."""


@dataclass
class _Life:
    """One hub: what it was told since it was idle (from the call `first` on), and how many answers are carried out."""

    spec: HubSpec
    number: int = 0
    running: bool = False
    model: Handle = None
    order: Order | None = None
    kept: Kept | None = None
    told: list[Told] = field(default_factory=list)
    first: int = 0
    carried_out: int = 0
    restarts: int = 0

    @property
    def next(self) -> int:
        """The index of the next call."""
        return self.first + len(self.told)

    def idle(self, index: int, memory: Memory | None) -> None:
        """After this call no round is open: recalling the memory replaces all calls up to it."""
        _, arguments = self.told[index - self.first]
        payloads = (
            dict(zip(map(_key, self.kept.memory.standing.held), self.kept.payloads, strict=True)) if self.kept else {}
        )
        if len(arguments) > 1 and isinstance(arguments[0], Update):  # without a centre a hub is told headers alone
            payloads.setdefault(_key(arguments[0]), arguments[1])
        del self.told[: index + 1 - self.first]
        self.first, self.kept = index + 1, None
        if memory is not None:
            self.kept = Kept(memory, tuple(payloads[_key(update)] for update in memory.standing.held))
            self.told.insert(0, ("recall", (self.kept.memory, *self.kept.payloads)))
            self.first = index


class Hubs:
    """Talks to hubs and keeps them replaceable; `recorder`: what keeps the run itself replaceable."""

    def __init__(
        self, driver: Driver, recorder: Recorder | None = None, lost: Callable[[Iterable[str]], None] = lambda _: None
    ) -> None:
        """`lost`: told which actors were lost with a process, once there is another."""
        self._driver = driver
        self._recorder = recorder
        self._lost = lost
        self._lives: dict[str, _Life] = {}
        self._calls: dict[int, tuple[str, int, int]] = {}

    def make(self, spec: HubSpec, kept: Kept | None = None) -> None:
        """Make a hub's aggregator; `kept`: what one of an earlier run remembered."""
        self._lives[spec.path] = _Life(spec, kept=kept)
        self._driver.start_hub(spec)
        if kept is not None:
            self._tell(spec.path, "recall", (kept.memory, *kept.payloads))
        if self._recorder is not None:
            self._deliver(spec.path, self._recorder.start(spec.path))

    def settled(self) -> bool:
        """Say whether no idle hub has anything left to answer."""
        return all(life.running or life.carried_out == life.next for life in self._lives.values())

    def owns(self, ticket: int) -> bool:
        """Say whether a call was made here."""
        return ticket in self._calls

    def running(self, path: str) -> bool:
        """Say whether a hub's rounds are under way."""
        return self._lives[path].running

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

    def begin(self, path: str, event: Begin, order: Order | None, model: Handle, state: Handle) -> None:
        """Begin a hub's rounds."""
        life = self._lives[path]
        assert not life.running, f"{path} has not ended its rounds"
        life.running, life.model, life.order = True, model, order
        life.restarts = 0
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
        self._call(path, life.next - 1)

    def stop(self, path: str, *, failed: bool = False) -> None:
        """Give up a hub's rounds and what it remembers; a fresh aggregator will begin the next.

        `failed`: because the hub, or one above it, gave up.
        """
        life = self._lives[path]
        if life.running or life.told:
            life.running, life.model, life.kept = False, None, None
            life.told.clear()
            life.first = life.carried_out = 0
            self._renew(path)
            if self._recorder is not None:
                self._deliver(path, self._recorder.stop(path, failed=failed))

    def handle(self, done: Done) -> Iterator[HubSaid | HubLost]:
        """Take the end of a call. Errors: HierflError of the hub; RuntimeUnavailable if it dies again and again."""
        path, number, index = self._calls.pop(done.ticket)
        life = self._lives[path]
        if number != life.number:
            return
        if done.crashed is not None:
            yield from self.replace(path, done.crashed)
        elif done.error is not None:
            raise done.error
        elif index >= life.carried_out:
            assert index == life.carried_out, f"{path} answered call {index} before call {life.carried_out}"
            life.carried_out += 1
            model, result, state = done.beside
            outcome: Outcome = done.value
            if outcome.has_model:
                life.model = model
            if outcome.finished is not None:
                life.running, life.model = False, None
            if not life.running and outcome.failed is None:
                life.idle(index, outcome.memory)
            yield HubSaid(path, outcome, result, state, done.started_s, done.ended_s)

    def replace(self, actor: str, reason: str) -> Iterator[HubLost]:
        """Replace a lost process; each of its hubs is told once more what it was told.

        Errors: RuntimeUnavailable if a hub dies again and again.
        """
        actors = self._driver.restart(actor)
        for lost in (name for name in actors if name in self._lives):
            life = self._lives[lost]
            life.restarts += 1
            if life.restarts > MAX_RESTARTS:
                raise RuntimeUnavailable(f"the aggregator of {lost} died {life.restarts} times in one round: {reason}")
            self._renew(lost)
            for index in range(life.first, life.next):
                self._call(lost, index)
            yield HubLost(lost, reason)
        self._lost(actors)

    def _renew(self, path: str) -> None:
        """Put a fresh aggregator in the place of one; what the old one still says is dropped."""
        life = self._lives[path]
        life.number += 1
        self._driver.start_hub(life.spec)

    def _call(self, path: str, index: int) -> None:
        """Tell a hub the thing of this index."""
        life = self._lives[path]
        method, arguments = life.told[index - life.first]
        ticket = self._driver.call(path, method, *arguments)
        self._calls[ticket] = (path, life.number, index)


def _key(update: Update) -> tuple[int, str]:
    """Tell a held update from others."""
    return update.round_number, update.shares[0].member if update.shares else ""
