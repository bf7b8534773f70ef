"""What the replicas of a hub compute: the product's machine of its rounds, and the exact sum of what it counts.

Machines are deterministic, so what one says to the same events in the same order is worked out once and looked up from
then on: histories are many, and most of them begin alike. Brains that are `alone` work everything out themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tiers import Hub, HubRounds, Phase
from tiers.messages import Add, Arrived, Begin, Carry, Close, Command, Event, Hold, Lost, Open, Refuse, TimeUp
from tiers.standing import Standing

__all__ = ["Brain", "Recall", "Said", "Shape", "Violation", "forget", "key_of", "must", "weighed"]

MAX_STATES = 20_000
"""States that are remembered at a time."""

T = TypeVar("T")


class Violation(AssertionError):
    """Something that must hold does not."""


def must(holds: object, what: str, *more: object) -> None:
    if not holds:
        raise Violation(what.format(*more))


@dataclass(frozen=True, slots=True)
class Shape:
    """A hub, its members' weights, and those of them that are hubs."""

    path: str
    hub: Hub
    weights: Mapping[str, int]
    hubs: tuple[str, ...] = ()


class Recall:
    """What a hub remembered between its rounds, and the values that it held: told in place of an event."""

    __slots__ = ("held", "standing")

    def __init__(self, standing: Standing, held: Mapping[tuple[str, int], int]) -> None:
        self.standing, self.held = standing, held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recall) and (self.standing, self.held) == (other.standing, other.held)

    def __hash__(self) -> int:
        standing = self.standing
        errands, losses = tuple(standing.errands.items()), tuple(standing.losses.items())
        return hash((standing.round_number, errands, losses, standing.held, tuple(standing.shortfalls.items())))


class Said:
    """An answer: the machine's commands, the sum of each round that they close, and what is to be remembered.

    `true`: whether the vectors beside it are what the digest is about; `signed`: whether by the key of its author.
    """

    __slots__ = ("commands", "digest", "memory", "signed", "sums", "true")

    def __init__(self, commands: Sequence[Command], sums: Sequence[int], memory: Recall | None) -> None:
        self.commands, self.sums, self.memory = commands, sums, memory
        self.digest = b""
        self.true = self.signed = True

    def same(self, other: Said) -> bool:
        return self.commands == other.commands and self.sums == other.sums and self.memory == other.memory


class _State:
    """A machine after some events, what it said to the last of them, and what follows from others."""

    __slots__ = ("commands", "is_idle", "machine", "next", "standing")

    def __init__(self, machine: HubRounds, commands: list[Command]) -> None:
        self.machine, self.commands = machine, commands
        self.next: dict[Any, _State] = {}
        self.is_idle = machine.phase is Phase.IDLE
        self.standing = machine.standing if self.is_idle else None


_ROOTS: dict[Any, _State] = {}
_NUM_STATES = [0]


def forget() -> None:
    """Forget what machines said: others may be in their place."""
    _ROOTS.clear()
    _NUM_STATES[0] = 0


class Brain:
    """A hub's machine, told one event after the other, and its sum. `alone`: it looks nothing up."""

    __slots__ = ("alone", "held", "state", "total")

    def __init__(self, shape: Shape, recall: Recall | None = None, *, alone: bool = False) -> None:
        standing = None if recall is None else recall.standing
        key = None if alone else (id(shape), recall and hash(recall))
        state = _ROOTS.get(key)
        if state is None:
            state = _State(HubRounds(shape.hub, shape.weights, path=shape.path, standing=standing), [])
            if not alone:
                _ROOTS[key] = state
        self.state, self.alone, self.total = state, alone, 0
        self.held = {} if recall is None else dict(recall.held)

    def tell(self, event: Event, value: int) -> Said:
        """Take an event; `value`: of an update, weighted."""
        state = self.state = self._follow(event)
        sums: list[int] = []
        for command in state.commands:
            kind = type(command)
            if kind is Add:
                self.total += value
            elif kind is Open:
                self.total = 0
            elif kind is Close:
                sums.append(self.total)
            elif kind is Carry:
                self.total += weighed(command, self.held.pop(key_of(command), value))  # type: ignore[arg-type]
            elif kind is Hold:
                self.held[key_of(command)] = value  # type: ignore[arg-type]
        if state.is_idle:
            return Said(state.commands, sums, self.recall())
        self.held.clear()  # a round takes what was held as it opens, and refuses the rest
        return Said(state.commands, sums, None)

    def _follow(self, event: Event) -> _State:
        before = self.state
        if self.alone:
            return _State(before.machine, before.machine.handle(event))
        key = _key(event)
        state = before.next.get(key)
        if state is None:
            machine = _copied(before.machine)
            machine._attendance, machine._round = _copied(machine._attendance), _copied(machine._round)
            state = _State(machine, machine.handle(event))
            if _NUM_STATES[0] >= MAX_STATES:
                forget()
            _NUM_STATES[0] += 1
            before.next[key] = state
        return state

    def recall(self) -> Recall | None:
        """Give what there is to remember, as the product's aggregator does."""
        standing = self.state.standing
        assert standing is not None
        return Recall(standing, dict(self.held)) if standing.matters else None


def key_of(command: Carry | Hold | Refuse) -> tuple[str, int]:
    return command.update.shares[0].member, command.update.round_number


def weighed(command: Carry, value: int) -> int:
    return value // command.update.shares[0].weight * command.weight


def _key(event: Event) -> Any:
    match event:
        case Arrived(update):
            return update.round_number, update.shares
        case Begin(number, rounds, forecast_s):
            return number, rounds, tuple(forecast_s.items())
        case Lost(number, members, excused):
            return number, tuple(members.items()), excused, True
        case TimeUp(number, elapsed_s):
            return number, elapsed_s, "is up"
    raise AssertionError(event)


def _copied(thing: T) -> T:
    """Copy a machine's part: what it holds does not change, but for collections, which are copied."""
    copy = object.__new__(type(thing))
    of = copy.__dict__
    for name, value in thing.__dict__.items():
        of[name] = value.copy() if type(value) in _COLLECTIONS else value
    return copy


_COLLECTIONS = frozenset({dict, set, list, deque})
