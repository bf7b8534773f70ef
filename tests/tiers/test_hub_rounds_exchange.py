"""The rounds of a hub without a centre, by hand: a round that has closed waits for its members' exchange."""

from __future__ import annotations

import pytest
from three_members import BUSY, LATE, WEIGHTS, arrived, machine, update

from scheduler.participations.all import All
from scheduler.participations.deadline import Deadline
from tiers import Gather, HubRounds, Mix, Phase
from tiers.messages import Begin, Close, Dismiss, Exchange, Finish, Lost, Mixed, Open, Refuse, TimeUp, TrainMember
from tiers.topologies.allreduce import AllReduce
from tiers.topologies.swarm import Swarm


def swarm(**settings: object) -> HubRounds:
    return machine(All(), topology=Swarm(), **settings)


def test_the_members_exchange_before_the_next_round_opens() -> None:
    hub = swarm()
    hub.handle(Begin(0, 2))
    for name in "ca":
        hub.handle(arrived(name, 0))
    _, closed, exchange = hub.handle(arrived("b", 0))
    assert isinstance(closed, Close) and closed.members == ("c", "a", "b")
    assert exchange == Exchange(0, WEIGHTS, (Mix(("a", "b", "c"), "a"),)), "in the hub's order, whoever came first"
    assert hub.phase is Phase.MIXING
    asked = [TrainMember(1, name, weight) for name, weight in WEIGHTS.items()]
    assert hub.handle(Mixed(0)) == [Open(1, 200), *asked]
    for name in "ab":
        hub.handle(arrived(name, 1))
    assert hub.handle(arrived("c", 1))[-1] == Exchange(1, WEIGHTS, (Mix(("a", "b", "c"), "b"),))
    assert hub.handle(Mixed(1)) == [Finish(1)] and hub.phase is Phase.IDLE


def test_who_comes_while_they_exchange_is_refused_and_who_is_lost_then_is_not_missed() -> None:
    hub = swarm()
    hub.handle(Begin(0))
    for name in WEIGHTS:
        hub.handle(arrived(name, 0))
    refused = Refuse(update("a", 0), "it is of round 0; the hub is mixing in round 0")
    assert hub.handle(arrived("a", 0)) == [refused]
    assert hub.handle(Lost(0, {"b": "power cut"})) == []
    with pytest.raises(AssertionError):
        hub.handle(Begin(1))
    assert hub.handle(Mixed(0)) == [Finish(0)]


def test_who_was_lost_takes_no_part_in_the_exchange() -> None:
    hub = machine(All(), topology=AllReduce(), keep_going=True, quorum=0.5)
    hub.handle(Begin(0))
    hub.handle(arrived("c", 0, 30))
    hub.handle(Lost(0, {"a": "power cut"}))
    [_, closed, exchange] = hub.handle(arrived("b", 0))
    assert isinstance(closed, Close) and closed.weight == 90
    two = ("b", "c")
    steps = (Mix(two, "b", (0, 2)), Mix(two, "c", (1, 2)), Gather(two, "b"), Gather(two, "c"))
    assert exchange == Exchange(0, {"b": 60, "c": 30}, steps), "the weights that came"


def test_at_a_deadline_those_exchange_who_have_reported_and_what_comes_late_has_no_place() -> None:
    policy = Deadline(after_s=30.0, quorum=0.6, weight=0.6, late="refuse")
    hub = machine(policy, topology=Swarm())
    hub.handle(Begin(0, 2))
    for name in "ab":
        hub.handle(arrived(name, 0))
    closed, exchange = hub.handle(TimeUp(0, 30.0))
    assert isinstance(closed, Close) and closed.missing == {"c": LATE}
    assert exchange == Exchange(0, {"a": 100, "b": 60}, (Mix(("a", "b"), "a"),))
    dismissed, opened, *rest = hub.handle(Mixed(0))
    assert isinstance(dismissed, Dismiss) and list(dismissed.members) == ["c"]
    assert opened == Open(1, 160, {"c": BUSY}), "what is late counts for nothing, in no total"
    assert [command.member for command in rest if isinstance(command, TrainMember)] == ["a", "b"]
    hub.handle(arrived("a", 1))
    assert hub.handle(arrived("c", 0)) == [
        Refuse(update("c", 0), "late by 1 round, and late updates do not count here")
    ]
    assert hub.handle(arrived("b", 1))[-1] == Exchange(1, {"a": 100, "b": 60}, (Mix(("a", "b"), "b"),))
    assert hub.handle(Mixed(1)) == [Finish(1)]
    assert [command.member for command in hub.handle(Begin(2)) if isinstance(command, TrainMember)] == ["a", "b", "c"]
