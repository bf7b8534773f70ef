"""The rounds of a hub under long drawn histories: right updates, doubled, late, of strangers, of many members at once.

After each event the machine is checked against a ledger that is kept from the commands alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

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
SEEN = ("added", "refused", "closed", "closed with a loss", "finished", "given up", "later round of several")


class HubWorld:
    """Members that answer, fail, repeat themselves and come too late."""

    def __init__(self, random: Random) -> None:
        self.random = random
        members = random.sample(NAMES, random.randint(1, 5))
        self.weights = {name: random.choice([0, 1, 2, 3, 4]) for name in members}
        quorum = random.choice([0.1, 0.5, 0.7, 0.75, 1.0])
        sites = tuple(Site(name) for name in members)
        self.hub = Hub("h", sites, keep_going=random.random() < 0.75, quorum=quorum)
        self.machine = HubRounds(self.hub, self.weights)
        self.number = -1
        self.left = self.asked_for = 0
        self.asked: dict[str, int] = {}
        self.counted: dict[str, int] = {}
        self.lost: dict[str, str] = {}
        self.is_open = False
        self.closed: list[int] = []
        self.story: list[object] = []
        self.seen: Counter[str] = Counter()

    @property
    def waiting(self) -> list[str]:
        return [name for name in self.asked if name not in self.counted and name not in self.lost]

    def step(self) -> None:
        """One event, then what must always hold."""
        if not self.is_open and self.random.random() < 0.6:
            self.begin()
        elif self.is_open and self.random.random() < 0.5:
            self.report()
        elif self.random.random() < 0.3:
            self.lose()
        else:
            self.arrive()
        self.check()

    def begin(self) -> None:
        self.left = self.asked_for = self.random.randint(1, 3)
        begin = Begin(self.number + self.random.randint(1, 3), self.left)
        self.story.append(begin)
        self.take(self.machine.handle(begin), begins=begin.round_number)

    def arrive(self) -> None:
        """Any update at all."""
        members = self.random.choices((*NAMES, "stranger"), k=self.random.randint(0, 3))
        shares = (Share(name, self.weights.get(name, 1) + self.random.choice([0, 0, 0, 1, -1])) for name in members)
        self.deliver(Update("h", self.number + self.random.choice([0, 0, 0, -1, 1]), tuple(shares)))

    def report(self) -> None:
        """A right update, so that rounds come to their end."""
        some = self.random.sample(self.waiting, self.random.randint(1, len(self.waiting)))
        shares = tuple(Share(name, self.random.randint(1, self.asked[name])) for name in some)
        assert isinstance(self.deliver(Update("h", self.number, shares))[0], Add)

    def deliver(self, update: Update) -> list[Command]:
        self.story.append(update)
        fits = self.is_open and update.round_number == self.number and self.may_count(update.shares)
        commands = self.machine.handle(Arrived(update))
        assert isinstance(commands[0], Add if fits else Refuse)
        assert commands[0].update is update
        self.seen["added" if fits else "refused"] += 1
        if fits:
            self.counted.update((share.member, share.weight) for share in update.shares)
        else:
            assert len(commands) == 1 and isinstance(commands[0], Refuse) and commands[0].reason
        self.take(commands[1:])
        return commands

    def may_count(self, shares: Sequence[Share]) -> bool:
        members = [share.member for share in shares]
        return (
            0 < len(members) == len(set(members))
            and set(members) <= set(self.waiting)
            and all(0 < share.weight <= self.asked[share.member] for share in shares)
        )

    def lose(self) -> None:
        members = set(self.random.choices((*NAMES, "stranger"), k=2))
        lost = Lost(self.number + self.random.choice([0, 0, 0, -1]), dict.fromkeys(members, "gone"))
        self.story.append(lost)
        commands = self.machine.handle(lost)
        gone = [name for name in self.waiting if name in members]
        if not (gone and self.is_open and lost.round_number == self.number):
            assert commands == []
            return
        self.lost.update(dict.fromkeys(gone, "gone"))
        able = len(self.asked) - len(self.lost)
        needed = max(1, math.ceil(self.hub.quorum * len(self.asked) - 1e-9))
        gives_up = not self.hub.keep_going or able < needed
        assert any(isinstance(command, GiveUp) for command in commands) == gives_up
        self.take(commands)

    def take(self, commands: Sequence[Command], begins: int | None = None) -> None:
        """Keep the ledger; what is commanded must follow from it."""
        for command in commands:
            match command:
                case Open():
                    assert command.round_number == (self.number + 1 if begins is None else begins)
                    self.seen["later round of several"] += begins is None
                    self.number, begins = command.round_number, None
                    self.is_open, self.asked, self.counted, self.lost = True, {}, {}, {}
                    assert set(command.skipped) == {name for name, weight in self.weights.items() if not weight}
                    assert command.total_weight == sum(self.weights.values())
                case TrainMember():
                    assert self.is_open and command.round_number == self.number
                    assert command.member not in self.asked, "asked once"
                    assert command.weight == self.weights[command.member] > 0
                    self.asked[command.member] = command.weight
                case Close():
                    self.close(command)
                case Finish():
                    assert self.left == 0 and command.round_number == self.number == self.closed[-1]
                    assert self.closed[-self.asked_for :] == list(
                        range(self.number - self.asked_for + 1, self.number + 1)
                    )
                    self.seen["finished"] += 1
                case GiveUp():
                    assert command.reason
                    self.number, self.is_open = command.round_number, False
                    self.seen["given up"] += 1
                case _:
                    raise AssertionError(command)

    def close(self, command: Close) -> None:
        assert self.is_open and command.round_number == self.number not in self.closed
        assert not self.waiting
        assert set(command.members) == set(self.counted)
        assert command.weight == sum(self.counted.values()) > 0
        assert {name for name in command.missing if self.weights[name]} == set(self.lost)
        assert command.reason
        self.closed.append(self.number)
        self.is_open = False
        self.left -= 1
        self.seen["closed with a loss" if self.lost else "closed"] += 1

    def check(self) -> None:
        """The machine stands where the ledger says."""
        assert (self.machine.phase is Phase.COLLECTING) == self.is_open
        if self.is_open:
            assert self.machine.round_number == self.number
            assert set(self.machine.waiting) == set(self.waiting) != set(), "an open round waits for somebody"
            assert self.machine._round.reported == self.counted


def test_every_event_leaves_the_hub_where_the_ledger_says() -> None:
    seen: Counter[str] = Counter()
    for seed in range(150):
        world = HubWorld(Random(seed))
        try:
            for _ in range(60):
                world.step()
        except AssertionError as error:
            error.add_note(f"seed {seed}, {world.hub}, weights {world.weights}:")
            error.add_note("\n".join(str(event) for event in world.story[-12:]))
            raise
        seen += world.seen
    assert min(seen[what] for what in SEEN) > 50, seen


hubs = st.builds(
    lambda weights, keep_going, quorum: (
        Hub("h", tuple(Site(name) for name in weights), keep_going=keep_going, quorum=quorum),
        weights,
    ),
    st.dictionaries(st.sampled_from(NAMES), st.integers(0, 4), min_size=1),
    st.booleans(),
    st.sampled_from([0.1, 0.5, 0.75, 1.0]),
)


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


@settings(max_examples=100)
@given(scripts())
def test_events_that_come_twice_count_once(script: tuple[Hub, dict[str, int], list[Event]]) -> None:
    """Ray may report a failure for a call that did run; so everything may be told again."""
    hub, weights, (begin, *events) = script
    twice = [one for told in events for one in (told, told)]
    assert effects(hub, weights, [begin, *twice]) == effects(hub, weights, [begin, *events])


@settings(max_examples=50)
@given(scripts())
def test_a_replay_commands_the_same(script: tuple[Hub, dict[str, int], list[Event]]) -> None:
    assert effects(*script) == effects(*script)


@settings(max_examples=50)
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
