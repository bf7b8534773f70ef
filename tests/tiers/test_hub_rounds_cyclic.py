"""The rounds of a hub whose members take turns, by hand: who is asked when, and what becomes of the lost."""

from __future__ import annotations

from typing import Any

import pytest
from three_members import WEIGHTS, arrived, machine, update

from scheduler.participations.all import All
from scheduler.participations.sample import Sample
from tiers import Phase
from tiers.messages import Add, Advance, Begin, Close, Finish, GiveUp, Lost, Open, Refuse, TrainMember
from tiers.topologies.cyclic import Cyclic

GOES_ON: dict[str, Any] = {"keep_going": True, "quorum": 0.3}


def cycle(order: str = "fixed", **settings: Any) -> Any:
    return machine(settings.pop("participation", All()), topology=Cyclic(order), **settings)


def test_members_are_asked_one_after_another_each_with_room_for_its_own_weight() -> None:
    hub = cycle()
    assert hub.handle(Begin(0)) == [Open(0, 100), TrainMember(0, "a", 100)]
    assert (hub.waiting, hub.upcoming) == (("a",), ("b", "c"))
    assert hub.handle(arrived("a", 0)) == [Add(update("a", 0)), Advance(0, 60), TrainMember(0, "b", 60)]
    assert hub.handle(arrived("b", 0)) == [Add(update("b", 0)), Advance(0, 40), TrainMember(0, "c", 40)]
    assert hub.upcoming == ()
    added, closed, finished = hub.handle(arrived("c", 0))
    assert (added, finished) == (Add(update("c", 0)), Finish(0))
    assert closed == Close(0, ("a", "b", "c"), {}, 200, "all reported")


def test_the_next_round_begins_with_its_own_first_member() -> None:
    hub = cycle("by_size")
    hub.handle(Begin(0, 2))
    for name in ("c", "b"):
        hub.handle(arrived(name, 0))
    _, closed, *opened = hub.handle(arrived("a", 0))
    assert isinstance(closed, Close) and opened == [Open(1, 40), TrainMember(1, "c", 40)]


def test_who_is_not_yet_asked_or_was_is_refused_by_name() -> None:
    hub = cycle()
    hub.handle(Begin(0))
    assert hub.handle(arrived("b", 0)) == [Refuse(update("b", 0), "it is not yet b's turn in round 0")]
    hub.handle(arrived("a", 0))
    assert hub.handle(arrived("a", 0)) == [Refuse(update("a", 0), "a has already reported in round 0")]
    assert hub.handle(Lost(0, {"a": "too late a word", "c": "too early a word"})) == []
    assert (hub.waiting, hub.upcoming) == (("b",), ("c",))


@pytest.mark.parametrize("gone", ["a", "b", "c"])
def test_a_lost_member_is_passed_over_by_name(gone: str) -> None:
    hub = cycle(**GOES_ON)
    commands = hub.handle(Begin(0))
    while hub.phase is Phase.COLLECTING:
        [name] = hub.waiting
        commands += hub.handle(Lost(0, {name: "power cut"}) if name == gone else arrived(name, 0))
    asked = [command.member for command in commands if isinstance(command, TrainMember)]
    assert asked == ["a", "b", "c"], "the cycle goes on behind who is lost"
    [closed] = [command for command in commands if isinstance(command, Close)]
    assert closed.missing == {gone: "power cut"} and gone not in closed.members
    assert closed.weight == sum(WEIGHTS.values()) - WEIGHTS[gone]


def test_without_leave_to_go_on_a_loss_ends_the_round_by_name() -> None:
    hub = cycle()
    hub.handle(Begin(0))
    hub.handle(arrived("a", 0))
    assert hub.handle(Lost(0, {"b": "power cut"})) == [GiveUp(0, "b: power cut")]


def test_too_many_losses_end_the_round_before_the_others_are_asked() -> None:
    hub = cycle(keep_going=True, quorum=0.6)
    hub.handle(Begin(0))
    [_, asked] = hub.handle(Lost(0, {"a": "power cut"}))
    assert asked == TrainMember(0, "b", 60)
    [given_up] = hub.handle(Lost(0, {"b": "power cut"}))
    assert isinstance(given_up, GiveUp) and "below the quorum of 2 of 3 members" in given_up.reason


def test_only_those_who_are_drawn_take_turns() -> None:
    hub = cycle(participation=Sample(count=2))
    commands = hub.handle(Begin(0))
    while hub.phase is Phase.COLLECTING:
        commands += hub.handle(arrived(hub.waiting[0], 0))
    opened, closed = commands[0], commands[-2]
    assert isinstance(opened, Open) and isinstance(closed, Close)
    assert len(closed.members) == 2 and list(closed.members) == sorted(closed.members)
    [why] = closed.missing.values()
    assert why == "not drawn: 2 of 3 take part"
