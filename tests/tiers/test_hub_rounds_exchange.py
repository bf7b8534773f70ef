"""The rounds of a hub without a centre, by hand: a round that has closed waits for its members' exchange."""

from __future__ import annotations

import pytest
from three_members import BUSY, LATE, WEIGHTS, arrived, machine, update

from scheduler.participations.all import All
from scheduler.participations.deadline import Deadline
from tiers import Gather, HubRounds, Mix, Phase
from tiers.messages import (
    Begin,
    Close,
    Dismiss,
    Exchange,
    Finish,
    GiveUp,
    Left,
    Lost,
    Mixed,
    Open,
    Refuse,
    TimeUp,
    TrainMember,
)
from tiers.topologies.allreduce import AllReduce
from tiers.topologies.peer import Peer
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


GONE = "its machine is gone"


def exchanging(**settings: object) -> HubRounds:
    """A hub whose three members have reported and exchange."""
    hub = machine(All(), **settings)
    hub.handle(Begin(0, 2))
    for name in WEIGHTS:
        hub.handle(arrived(name, 0))
    assert hub.phase is Phase.MIXING
    return hub


def test_who_leaves_the_exchange_is_missing_by_name_and_the_others_begin_it_anew() -> None:
    hub = exchanging(topology=AllReduce(), keep_going=True, quorum=0.5)
    two = ("b", "c")
    steps = (Mix(two, "b", (0, 2)), Mix(two, "c", (1, 2)), Gather(two, "b"), Gather(two, "c"))
    assert hub.handle(Left(0, {"a": GONE})) == [Exchange(0, {"b": 60, "c": 40}, steps, {"a": GONE})]
    assert hub.handle(Left(0, {"a": GONE})) == [], "once"
    asked = [command.member for command in hub.handle(Mixed(0)) if isinstance(command, TrainMember)]
    assert asked == ["a", "b", "c"], "it is taken back in the next round"


@pytest.mark.parametrize("graph", ["complete", "ring"])
def test_what_neighbours_take_of_each_other_does_not_depend_on_when_one_has_left(graph: str) -> None:
    """Nor on whether it was lost before: weights are made anew among those that are left."""
    settings = {"topology": Peer(graph=graph, gossip_steps=2), "keep_going": True, "quorum": 0.3}
    [late] = exchanging(**settings).handle(Left(0, {"a": GONE}))
    early = machine(All(), **settings)
    early.handle(Begin(0))
    early.handle(Lost(0, {"a": GONE}))
    early.handle(arrived("b", 0))
    before = early.handle(arrived("c", 0))[-1]
    assert isinstance(late, Exchange) and isinstance(before, Exchange)
    assert (late.weights, late.steps) == (before.weights, before.steps)
    assert all(sum(step.weights) == 1 for step in late.steps if isinstance(step, Mix))
    hub = exchanging(**settings)
    hub.handle(Left(0, {"b": GONE}))
    [one] = hub.handle(Left(0, {"a": GONE}))
    assert isinstance(one, Exchange) and dict(one.missing) == {"a": GONE, "b": GONE} and list(one.weights) == ["c"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, f"a: {GONE}"),
        ({"keep_going": True, "quorum": 1.0}, f"below the quorum of 3 of 3 members: a: {GONE}"),
    ],
)
def test_where_nobody_can_be_spared_the_round_fails_by_name(settings: dict[str, object], reason: str) -> None:
    assert exchanging(topology=Swarm(), **settings).handle(Left(0, {"a": GONE})) == [GiveUp(0, reason)]


def test_who_has_left_is_the_quorum_s_as_who_was_lost_is() -> None:
    hub = exchanging(topology=Swarm(), keep_going=True, quorum=0.6)
    assert isinstance(hub.handle(Left(0, {"c": GONE}))[0], Exchange)
    assert hub.handle(Left(0, {"b": GONE})) == [GiveUp(0, f"below the quorum of 2 of 3 members: b: {GONE}")]
    policy = Deadline(after_s=30.0, quorum=0.3, weight=0.3, late="refuse")
    hub = machine(policy, topology=Swarm(), keep_going=True, quorum=0.5)
    hub.handle(Begin(0))
    hub.handle(arrived("a", 0))
    hub.handle(TimeUp(0, 30.0))
    [nobody] = hub.handle(Left(0, {"a": GONE}))
    assert nobody == GiveUp(0, f"nobody is left who could exchange at {hub.hub.name}: a: {GONE}")


def test_a_member_that_leaves_again_and_again_rests_as_one_that_is_lost_does() -> None:
    hub = machine(All(probe_after=1), topology=AllReduce(), keep_going=True, quorum=0.5)
    hub.handle(Begin(0, 3))
    for name in WEIGHTS:
        hub.handle(arrived(name, 0))
    hub.handle(Left(0, {"c": GONE}))
    opened = hub.handle(Mixed(0))[0]
    assert isinstance(opened, Open) and opened.skipped == {"c": "lost once; asked again in 1 round"}
