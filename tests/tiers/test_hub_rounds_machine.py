"""The rounds of a hub under drawn events: right ones, doubled, late, of strangers, of many members at once.

After each event the machine's own figures are checked against a ledger that is kept from the commands alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tiers import Hub, HubRounds, Phase, Site
from tiers.messages import (
    Add,
    Arrived,
    Begin,
    Close,
    Command,
    Event,
    Finish,
    GiveUp,
    Lost,
    Open,
    Refuse,
    Share,
    TrainMember,
    Update,
)

NAMES = ("a", "b", "c", "d", "e")
hubs = st.builds(
    lambda weights, keep_going, quorum: (
        Hub("h", tuple(Site(name) for name in weights), keep_going=keep_going, quorum=quorum),
        weights,
    ),
    st.dictionaries(st.sampled_from(NAMES), st.integers(0, 4), min_size=1),
    st.booleans(),
    st.sampled_from([0.1, 0.5, 0.75, 1.0]),
)
names = st.sampled_from((*NAMES, "stranger"))


class HubWorld(RuleBasedStateMachine):
    """Members that answer, fail, repeat themselves and come too late."""

    @initialize(drawn=hubs)
    def found(self, drawn: tuple[Hub, dict[str, int]]) -> None:
        self.hub, self.weights = drawn
        self.machine = HubRounds(self.hub, self.weights)
        self.number = -1
        self.left = 0
        self.asked: dict[str, int] = {}
        self.counted: dict[str, int] = {}
        self.lost: dict[str, str] = {}
        self.is_open = False
        self.closed: list[int] = []

    @precondition(lambda self: not self.is_open)
    @rule(rounds=st.integers(1, 3), skip=st.integers(1, 3))
    def begin(self, rounds: int, skip: int) -> None:
        self.left = rounds
        self.take(self.machine.handle(Begin(self.number + skip, rounds)), begins=self.number + skip)

    @rule(members=st.lists(names, min_size=0, max_size=4), off=st.sampled_from([0, 0, 0, 0, -1, 1]), more=st.booleans())
    def arrive(self, members: list[str], off: int, more: bool) -> None:
        shares = tuple(Share(name, self.weights.get(name, 1) + (more and name == "a")) for name in members)
        self.deliver(Update("h", self.number + off, shares))

    @precondition(lambda self: self.is_open)
    @rule(data=st.data())
    def report(self, data: st.DataObject) -> None:
        """A right update, so that rounds come to their end."""
        waiting = [name for name in self.asked if name not in self.counted and name not in self.lost]
        some = data.draw(st.lists(st.sampled_from(waiting), min_size=1, unique=True))
        shares = tuple(Share(name, data.draw(st.integers(1, self.asked[name]))) for name in some)
        commands = self.deliver(Update("h", self.number, shares))
        assert isinstance(commands[0], Add)

    def deliver(self, update: Update) -> list[Command]:
        fits = self.is_open and update.round_number == self.number and self.may_count(update.shares)
        commands = self.machine.handle(Arrived(update))
        assert isinstance(commands[0], Add if fits else Refuse)
        assert commands[0].update is update
        if fits:
            self.counted.update((share.member, share.weight) for share in update.shares)
        else:
            assert len(commands) == 1 and commands[0].reason
        self.take(commands[1:])
        return commands

    def may_count(self, shares: Sequence[Share]) -> bool:
        members = [share.member for share in shares]
        return (
            0 < len(members) == len(set(members))
            and not set(members) & (set(self.counted) | set(self.lost))
            and all(0 < share.weight <= self.asked.get(share.member, 0) for share in shares)
        )

    @rule(members=st.sets(names, min_size=1, max_size=2), off=st.sampled_from([0, 0, -1]))
    def lose(self, members: set[str], off: int) -> None:
        gone = [name for name in members if name in self.asked and name not in self.counted and name not in self.lost]
        heard = bool(gone) and self.is_open and off == 0
        commands = self.machine.handle(Lost(self.number + off, dict.fromkeys(members, "gone")))
        if not heard:
            assert commands == []
            return
        self.lost.update(dict.fromkeys(gone, "gone"))
        able = len(self.asked) - len(self.lost)
        needed = max(1, math.ceil(self.hub.quorum * len(self.asked) - 1e-9))
        assert any(isinstance(command, GiveUp) for command in commands) == (not self.hub.keep_going or able < needed)
        self.take(commands)

    def take(self, commands: Sequence[Command], begins: int | None = None) -> None:
        """Keep the ledger; what is commanded must follow from it."""
        for command in commands:
            match command:
                case Open():
                    assert command.round_number == (self.number + 1 if begins is None else begins)
                    self.number = command.round_number
                    begins = None
                    self.is_open, self.asked, self.counted, self.lost = True, {}, {}, {}
                    assert set(command.skipped) == {name for name, weight in self.weights.items() if not weight}
                    assert command.total_weight == sum(self.weights.values())
                case TrainMember():
                    assert self.is_open and command.round_number == self.number
                    assert command.member not in self.asked, "asked once"
                    assert command.weight == self.weights[command.member] > 0
                    self.asked[command.member] = command.weight
                case Close():
                    assert self.is_open and command.round_number == self.number not in self.closed
                    assert set(self.counted) | set(self.lost) == set(self.asked)
                    assert set(command.members) == set(self.counted)
                    assert command.weight == sum(self.counted.values()) > 0
                    assert {name for name in command.missing if self.weights[name]} == set(self.lost)
                    assert command.reason
                    self.closed.append(self.number)
                    self.is_open = False
                    self.left -= 1
                    event("a round closed")
                case Finish():
                    assert self.left == 0 and command.round_number == self.number == self.closed[-1]
                    event("all rounds done")
                case GiveUp():
                    self.number = command.round_number
                    assert command.reason
                    self.is_open = False
                    event("given up")
                case _:
                    raise AssertionError(command)

    @invariant()
    def the_machine_stands_where_the_ledger_says(self) -> None:
        if not hasattr(self, "machine"):
            return
        assert (self.machine.phase is Phase.COLLECTING) == self.is_open
        if self.is_open:
            assert self.machine.round_number == self.number
            waiting = set(self.asked) - set(self.counted) - set(self.lost)
            assert waiting, "an open round waits for somebody"
            assert set(self.machine._waiting) == waiting
            assert self.machine._reported == self.counted


TestHubWorld = HubWorld.TestCase
TestHubWorld.settings = settings(max_examples=60, stateful_step_count=25)


@st.composite
def scripts(draw: st.DrawFn) -> tuple[Hub, dict[str, int], list[Event]]:
    """A hub that was begun, and events of members in the rounds that there are."""
    hub, weights = draw(hubs)
    rounds = draw(st.integers(1, 3))
    shares = st.lists(st.sampled_from(list(weights)), min_size=1, max_size=3, unique=True).map(
        lambda chosen: tuple(Share(name, weights[name]) for name in chosen)
    )
    numbers = st.integers(0, rounds - 1)
    arrivals = st.builds(lambda number, of: Arrived(Update("h", number, of)), numbers, shares)
    losses = st.builds(lambda number, name: Lost(number, {name: "gone"}), numbers, st.sampled_from(list(weights)))
    return hub, weights, [Begin(0, rounds), *draw(st.lists(arrivals | arrivals | losses, max_size=20))]


def effects(hub: Hub, weights: dict[str, int], events: Sequence[Event]) -> list[Command]:
    """All that a machine commands beside refusals."""
    machine = HubRounds(hub, weights)
    commands = [command for one in events for command in machine.handle(one)]
    return [command for command in commands if not isinstance(command, Refuse)]


@settings(max_examples=150)
@given(scripts())
def test_events_that_come_twice_count_once(script: tuple[Hub, dict[str, int], list[Event]]) -> None:
    """Ray may report a failure for a call that did run; so everything may be told again."""
    hub, weights, (begin, *events) = script
    twice = [one for told in events for one in (told, told)]
    assert effects(hub, weights, [begin, *twice]) == effects(hub, weights, [begin, *events])


@settings(max_examples=100)
@given(scripts())
def test_a_replay_commands_the_same(script: tuple[Hub, dict[str, int], list[Event]]) -> None:
    assert effects(*script) == effects(*script)


@settings(max_examples=100)
@given(st.permutations(NAMES), st.data())
def test_the_order_of_arrival_does_not_matter_to_who_is_counted(order: list[str], data: st.DataObject) -> None:
    weights = {name: index + 1 for index, name in enumerate(NAMES)}
    hub = Hub("h", tuple(Site(name) for name in NAMES))
    cuts = sorted(data.draw(st.sets(st.integers(1, 4))))
    groups = [order[low:high] for low, high in zip([0, *cuts], [*cuts, 5], strict=True)]
    events = [Arrived(Update("h", 0, tuple(Share(name, weights[name]) for name in group))) for group in groups]
    *_, closed, finished = effects(hub, weights, [Begin(0), *events])
    assert isinstance(closed, Close) and isinstance(finished, Finish)
    assert (set(closed.members), closed.weight) == (set(NAMES), 15)
