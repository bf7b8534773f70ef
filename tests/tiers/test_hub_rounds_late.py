"""Rounds that close while members are at work, step by step."""

from __future__ import annotations

from typing import Any

import pytest
from three_members import BUSY, LATE, WEIGHTS, arrived, machine, update

from scheduler.participation import Participation
from scheduler.participations.all import All
from scheduler.participations.deadline import Deadline
from scheduler.participations.sample import Sample
from tiers import HubRounds, Phase
from tiers.messages import (
    Add,
    Arrived,
    Begin,
    Carry,
    Close,
    Command,
    Dismiss,
    Finish,
    GiveUp,
    Hold,
    Lost,
    Open,
    Refuse,
    SetTimer,
    Share,
    TimeUp,
    TrainMember,
    Update,
)

HALF = Deadline(after_s=30.0, quorum=0.5, weight=0.5)


def after_round_zero(
    participation: Participation = HALF, rounds: int = 1, **settings: Any
) -> tuple[HubRounds, list[Command]]:
    """Round 0 has closed without c."""
    hub = machine(participation, **settings)
    hub.handle(Begin(0, rounds))
    hub.handle(arrived("a", 0))
    hub.handle(arrived("b", 0))
    return hub, hub.handle(TimeUp(0, 30.0))


def asks(commands: list[Command], member: str) -> bool:
    return any(isinstance(command, TrainMember) and command.member == member for command in commands)


def test_a_deadline_closes_with_a_quorum_and_carries_what_comes_late() -> None:
    hub = machine(HALF)
    assert hub.handle(Begin(0, rounds=2)) == [
        Open(0, 200, {}),
        SetTimer(0, 30.0),
        *(TrainMember(0, name, weight) for name, weight in WEIGHTS.items()),
    ]
    assert hub.handle(arrived("b", 0)) == [Add(update("b", 0))]
    assert hub.handle(TimeUp(0, 30.0)) == [], "1 of 3 members and 30% of the weight are too few"
    said = "2 of 3 members and 80% of the weight are in at the deadline of 30 s"
    assert hub.handle(arrived("a", 0)) == [
        Add(update("a", 0)),
        Close(0, ("b", "a"), {"c": LATE}, 160, said),
        Open(1, 188, {"c": BUSY}),  # 160 that are asked, and 40 / sqrt(2) of c
        SetTimer(1, 30.0),
        TrainMember(1, "a", 100),
        TrainMember(1, "b", 60),
    ]
    why = "late by 1 round, weight 70% of 40"
    assert hub.handle(arrived("c", 0)) == [Carry(update("c", 0), 28, why)]
    assert hub.handle(arrived("a", 1)) == [Add(update("a", 1))], "c is in, b is waited for, the deadline is not over"
    assert hub.handle(arrived("b", 1)) == [
        Add(update("b", 1)),
        Close(1, ("a", "b"), {}, 188, "all reported", {"c": why}),
        Finish(1),
    ]


def test_what_comes_between_two_calls_of_the_parent_is_held_and_its_member_is_asked_again() -> None:
    hub, commands = after_round_zero()
    assert commands[-1] == Finish(0)
    why = "late by 1 round, weight 70% of 40"
    assert hub.handle(arrived("c", 0, 39)) == [Hold(update("c", 0, 39), "late by 1 round, weight 72% of 39")]
    [refusal] = hub.handle(arrived("c", 0, 39))
    assert isinstance(refusal, Refuse)
    opened, carried, *rest = hub.handle(Begin(1))
    assert opened == Open(1, 200 + 28, {})
    assert carried == Carry(update("c", 0, 39), 28, why.replace("70% of 40", "72% of 39"))
    assert [command.member for command in rest if isinstance(command, TrainMember)] == ["a", "b", "c"]
    hub.handle(arrived("c", 1))
    assert hub.handle(TimeUp(1, 30.0)) == [], "c is one member of three, though two of its updates are in"
    closed = hub.handle(arrived("a", 1))[1]
    assert isinstance(closed, Close)
    assert (closed.members, set(closed.carried), closed.weight) == (("c", "a"), {"c"}, 28 + 40 + 100)


def test_a_quorum_of_weight_counts_a_member_once() -> None:
    hub, _ = after_round_zero(Deadline(after_s=30.0, quorum=0.5, weight=0.6))
    hub.handle(arrived("c", 0))
    hub.handle(Begin(1))
    hub.handle(arrived("c", 1))
    hub.handle(arrived("b", 1))
    assert hub.handle(TimeUp(1, 30.0)) == [], "c's 40 and b's 60 are less than 60% of 200; c's earlier 28 do not help"
    closed = hub.handle(arrived("a", 1))[1]
    assert isinstance(closed, Close) and closed.weight == 228 and closed.reason == "all reported"


def test_nobody_waits_for_a_late_member_that_is_lost() -> None:
    hub, _ = after_round_zero(keep_going=True, quorum=0.3)
    hub.handle(Begin(1))
    hub.handle(arrived("a", 1))
    assert hub.handle(Lost(1, {"b": "gone"})) == [], "with c, who is late, there would be a quorum"
    missing = {"b": "gone", "c": "gone, too"}
    assert hub.handle(Lost(0, {"c": "gone, too"})) == [
        Close(1, ("a",), missing, 100, "1 of 3 reported, the rest lost"),
        Finish(1),
    ]


def test_a_held_update_that_is_too_old_when_a_round_opens_is_refused() -> None:
    hub, _ = after_round_zero()
    hub.handle(arrived("c", 0))
    refusal, opened, *_ = hub.handle(Begin(3))
    assert refusal == Refuse(update("c", 0), "late by 3 rounds, and at most 2 rounds count")
    assert opened == Open(3, 200, {})


def test_a_member_is_dismissed_when_it_can_no_longer_count_and_is_asked_again_once_it_is_free() -> None:
    hub, commands = after_round_zero(Deadline(after_s=30.0, quorum=0.5, weight=0.5, late="refuse"))
    why = "late by 1 round, and late updates do not count here"
    assert commands[1:] == [Dismiss(0, {"c": why}), Finish(0)]
    assert hub.handle(Begin(1))[0] == Open(1, 160, {"c": BUSY})
    assert hub.handle(arrived("c", 0)) == [Refuse(update("c", 0), why)]
    hub.handle(arrived("a", 1))
    hub.handle(arrived("b", 1))
    assert hub.handle(Begin(2))[0] == Open(2, 200, {})


def test_a_dismissed_members_end_is_no_loss() -> None:
    policy = Deadline(after_s=30.0, quorum=0.5, weight=0.5, late="refuse", probe_after=1)
    hub, _ = after_round_zero(policy)
    assert hub.handle(Lost(0, {"c": "stopped, as it was told"})) == []
    assert hub.handle(Begin(1))[0] == Open(1, 200, {})


def test_staleness_ends_with_a_dismissal_at_the_opening() -> None:
    hub, _ = after_round_zero(rounds=9)
    for number in (1, 2):
        hub.handle(arrived("a", number))
        commands = hub.handle(arrived("b", number))
    late = "late by 3 rounds, and at most 2 rounds count"
    assert commands[1] == Close(2, ("a", "b"), {"c": BUSY}, 160, "2 of 3 reported, 0 lost, 1 still at an earlier round")
    assert commands[2:4] == [Dismiss(0, {"c": late}), Open(3, 160, {"c": BUSY})]
    assert hub.handle(arrived("c", 0)) == [Refuse(update("c", 0), late)]


def test_too_few_at_the_time_to_give_up() -> None:
    hub = machine(Deadline(after_s=30.0, give_up_s=90.0, quorum=1.0))
    assert hub.handle(Begin(0))[1:3] == [SetTimer(0, 30.0), SetTimer(0, 90.0)]
    hub.handle(arrived("a", 0))
    assert hub.handle(TimeUp(0, 30.0)) == hub.handle(TimeUp(0, 30.0)) == []
    [given_up] = hub.handle(TimeUp(0, 90.0))
    assert isinstance(given_up, GiveUp) and "1 of 3 members and 50% of the weight are in after 90 s" in given_up.reason
    assert hub.handle(TimeUp(0, 90.0)) == []
    [refusal] = hub.handle(arrived("b", 0))
    assert isinstance(refusal, Refuse), "what was asked is void"


def test_a_round_gives_up_when_all_are_lost_who_could_still_count() -> None:
    policy = Deadline(after_s=30.0, quorum=0.5, weight=0.5, late="refuse")
    hub, _ = after_round_zero(policy, keep_going=True, quorum=0.3)
    hub.handle(Begin(1))
    assert hub.handle(Lost(1, {"a": "gone"})) == []
    assert hub.handle(Lost(1, {"b": "gone"})) == [GiveUp(1, "nobody is left who could report to h")]


def test_a_timer_of_a_round_that_is_over_means_nothing() -> None:
    hub, _ = after_round_zero(rounds=2)
    hub.handle(arrived("a", 1))
    hub.handle(arrived("b", 1, 1))
    assert hub.phase is Phase.IDLE
    hub, _ = after_round_zero(rounds=2)
    hub.handle(arrived("a", 1))
    assert hub.handle(TimeUp(0, 99.0)) == []


def test_late_updates_come_one_member_each() -> None:
    hub = machine(Deadline(after_s=30.0, quorum=0.3, weight=0.3))
    hub.handle(Begin(0))
    hub.handle(arrived("a", 0))
    hub.handle(TimeUp(0, 30.0))
    both = Update("h", 0, (Share("b", 60), Share("c", 40)))
    [refusal] = hub.handle(Arrived(both))
    assert isinstance(refusal, Refuse) and refusal.reason.endswith("late updates come one member each")
    assert isinstance(hub.handle(arrived("b", 0))[0], Hold)


@pytest.mark.parametrize(
    ("probe_after", "asked"), [(None, list(range(24))), (3, [0, 1, 2, 4, 8, 16]), (1, [0, 2, 6, 14, 22])]
)
def test_a_dead_member_is_asked_in_every_second_fourth_eighth_round(probe_after: int | None, asked: list[int]) -> None:
    """Lost in rounds 0, 1, 2, it is asked in round 4, then 8, then 16; it comes back at once when it answers."""
    hub = machine(All(probe_after=probe_after), {"a": 1, "b": 1}, keep_going=True, quorum=0.5)
    seen = []
    for number in range(24):
        commands = hub.handle(Begin(number))
        if asks(commands, "b"):
            seen.append(number)
            hub.handle(Lost(number, {"b": "dead"}))
        else:
            [opened] = [command for command in commands if isinstance(command, Open)]
            assert opened.total_weight == 1 and opened.skipped["b"].startswith("lost ")
        assert "b" not in hub.waiting
        assert hub.handle(arrived("a", number, 1))[-1] == Finish(number)
    assert seen == asked
    back = hub.handle(Begin(24))
    assert asks(back, "b") == (probe_after != 1)
    if probe_after != 1:
        hub.handle(arrived("a", 24, 1))
        hub.handle(arrived("b", 24, 1))
        assert TrainMember(25, "b", 1) in hub.handle(Begin(25))


def test_a_resting_member_says_when_it_is_asked_again_and_counts_as_lost() -> None:
    hub = machine(All(probe_after=1), {"a": 1, "b": 1, "c": 1}, keep_going=True, quorum=0.6)
    hub.handle(Begin(0, rounds=2))
    hub.handle(Lost(0, {"b": "dead"}))
    hub.handle(arrived("a", 0, 1))
    commands = hub.handle(arrived("c", 0, 1))
    assert commands[2] == Open(1, 2, {"b": "lost once; asked again in 1 round"})
    assert hub.handle(Lost(1, {"c": "dead, too"})) == [GiveUp(1, "below the quorum of 2 of 3 members: c: dead, too")]


def test_who_has_answered_in_between_was_not_lost_in_a_row() -> None:
    hub = machine(All(probe_after=2), {"a": 1, "b": 1}, keep_going=True, quorum=0.5)
    for number in range(6):
        assert asks(hub.handle(Begin(number)), "b")
        hub.handle(arrived("b", number, 1) if number % 2 else Lost(number, {"b": "asleep"}))
        hub.handle(arrived("a", number, 1))


def test_when_all_are_dead_they_are_asked_all_the_same() -> None:
    hub = machine(All(probe_after=1), {"a": 1, "b": 1}, keep_going=True, quorum=0.5)
    for number in range(3):
        assert hub.handle(Begin(number))[0] == Open(number, 2, {})
        hub.handle(Lost(number, {"a": "dead", "b": "dead"}))
        assert hub.phase is Phase.FAILED


def test_a_sample_is_asked_by_name_and_quorums_count_those_drawn() -> None:
    weights = {f"s{i}": i for i in range(10)}
    hub = machine(Sample(count=4), weights, keep_going=True, quorum=0.5)
    opened, *asked = hub.handle(Begin(0))
    drawn = {command.member: command.weight for command in asked if isinstance(command, TrainMember)}
    assert isinstance(opened, Open) and len(drawn) == len(asked) == 4 and "s0" not in drawn
    assert opened.total_weight == sum(drawn.values())
    assert opened.skipped == {"s0": "no training samples"} | {
        name: "not drawn: 4 of 9 take part" for name in weights if name not in drawn and name != "s0"
    }
    one, two, three, _ = drawn
    assert hub.handle(Lost(0, {one: "gone", two: "gone"})) == []
    [given_up] = hub.handle(Lost(0, {three: "gone"}))
    assert given_up == GiveUp(0, f"below the quorum of 2 of 4 members: {three}: gone")
