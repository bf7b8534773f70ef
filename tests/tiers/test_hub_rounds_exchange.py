"""The rounds of a hub without a centre, by hand: a round that has closed waits for its members' exchange."""

from __future__ import annotations

import pytest
from three_members import WEIGHTS, arrived, machine, update

from scheduler.participations.all import All
from tiers import Gather, HubRounds, Mix, Phase
from tiers.messages import Begin, Close, Exchange, Finish, Lost, Mixed, Open, Refuse, TrainMember
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
