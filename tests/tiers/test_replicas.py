"""Whose answer counts among the replicas of a hub, and who is replaced: by hand. Drawn: `test_replica_histories`."""

from __future__ import annotations

import pytest

from tiers.replica_messages import (
    FAILED,
    Abandon,
    Answered,
    CarryOut,
    Command,
    Died,
    Disagree,
    Forged,
    Mode,
    Opened,
    Rebased,
    Replace,
    Retire,
    Return,
    Stopped,
    Tick,
    Told,
    Up,
)
from tiers.replicas import MAX_RESTARTS, Replicas, quorum_of

LEASE_S = 2.0


def crash(num_replicas: int, told: int = 1) -> Replicas:
    return begun(Replicas(num_replicas, "crash", LEASE_S), told)


def vote(num_replicas: int = 3, told: int = 1) -> Replicas:
    return begun(Replicas(num_replicas, "vote", LEASE_S), told)


def begun(replicas: Replicas, told: int) -> Replicas:
    for number in range(replicas.num_replicas):
        assert replicas.handle(Up(number, 0, 0.0)) == []
    for _ in range(told):
        assert replicas.handle(Told()) == []
    return replicas


def said(replica: int, index: int, digest: str = "right", life: int = 0, now: float = 0.0, **more: bool) -> Answered:
    return Answered(replica, life, index, digest.encode(), now, **more)


def named(commands: list[Command]) -> list[tuple[int, str]]:
    return [(one.replica, one.cause) for one in commands if isinstance(one, Replace)]


def test_the_first_answer_counts_and_equal_ones_are_dropped() -> None:
    replicas = crash(3, told=2)
    assert replicas.handle(said(1, 0)) == [CarryOut(0, (1,))]
    assert replicas.handle(said(0, 0)) == replicas.handle(said(2, 0)) == []
    assert replicas.handle(said(2, 1)) == [CarryOut(1, (2,))]
    assert replicas.carried_out == 2


def test_an_answer_that_comes_twice_counts_once() -> None:
    replicas = crash(2)
    assert replicas.handle(said(0, 0)) == [CarryOut(0, (0,))]
    assert replicas.handle(said(0, 0)) == replicas.handle(said(0, 0, "other")) == []


def test_who_answers_something_else_than_what_counted_is_named_though_nobody_voted() -> None:
    replicas = crash(2)
    replicas.handle(said(0, 0))
    assert named(replicas.handle(said(1, 0, "wrong"))) == [(1, "differs")]
    assert replicas.lives == (0, 1)


def test_that_an_answer_could_not_be_computed_counts_once_all_say_so() -> None:
    replicas = crash(2, told=2)
    assert replicas.handle(said(0, 0, "failed")) == []
    commands = replicas.handle(said(1, 0))
    assert named(commands) == [(0, "differs")] and commands[-1] == CarryOut(0, (1,))
    replicas.handle(said(0, 0, life=1))
    assert replicas.handle(said(0, 1, "failed", life=1)) == []
    assert replicas.handle(said(1, 1, "failed")) == [CarryOut(1, (0, 1))]


def test_the_others_go_on_while_a_dead_one_catches_up() -> None:
    replicas = crash(2, told=3)
    replicas.handle(said(0, 0))
    assert named(replicas.handle(Died(0, 0, "killed"))) == [(0, "died")]
    assert replicas.handle(said(1, 0)) == []
    assert replicas.handle(said(1, 1)) == [CarryOut(1, (1,))]
    assert [replicas.handle(said(0, index, life=1)) for index in range(3)] == [[], [], [CarryOut(2, (0,))]]


def test_what_an_earlier_life_still_says_is_dropped() -> None:
    replicas = crash(1)
    replicas.handle(Died(0, 0, "killed"))
    assert replicas.handle(said(0, 0, "zombie")) == replicas.handle(Died(0, 0, "killed")) == []
    assert replicas.handle(Forged(0, 0, 0)) == replicas.handle(Up(0, 0, 0.0)) == []
    assert replicas.handle(said(0, 0, life=1)) == [CarryOut(0, (0,))]


def test_who_is_behind_for_a_lease_is_replaced_once_it_has_begun() -> None:
    replicas = crash(2)
    replicas.handle(said(0, 0, now=10.0))
    assert replicas.lags
    assert replicas.handle(Tick(12.0)) == []
    [command] = replicas.handle(Tick(12.5))
    reason = "its answer to message 1 has not come 2.5 s after another replica's"
    assert command == Replace(1, 1, "silent", reason)
    assert replicas.handle(Tick(100.0)) == [], "it has not begun yet"
    replicas.handle(Up(1, 1, 100.0))
    assert replicas.handle(Tick(104.0)) == [], "the patience has doubled"
    assert named(replicas.handle(Tick(104.5))) == [(1, "silent")]
    replicas.handle(Opened())
    replicas.handle(Up(1, 2, 200.0))
    assert named(replicas.handle(Tick(202.5))) == [(1, "silent")]


def test_who_catches_up_is_not_behind_as_long_as_it_says_something() -> None:
    replicas = crash(2, told=4)
    for index in range(4):
        replicas.handle(said(0, index))
    for index in range(4):
        assert replicas.handle(said(1, index, now=1.5 * (index + 1))) == replicas.handle(Tick(1.5 * index + 3.0)) == []
    assert not replicas.lags
    assert replicas.handle(Tick(1e6)) == []


def test_nobody_is_behind_what_nobody_has_answered() -> None:
    replicas = vote()
    assert not replicas.lags
    assert replicas.handle(Tick(1e6)) == []


def test_a_majority_of_equal_answers_counts_and_the_odd_one_is_named_in_the_same_breath() -> None:
    replicas = vote()
    assert replicas.handle(said(1, 0, "wrong")) == replicas.handle(said(2, 0)) == []
    commands = replicas.handle(said(0, 0))
    assert named(commands) == [(1, "outvoted")]
    assert commands[-1] == CarryOut(0, (2, 0))


def test_one_that_lies_after_all_others_have_agreed_is_named_too() -> None:
    replicas = vote()
    replicas.handle(said(0, 0))
    assert replicas.handle(said(1, 0)) == [CarryOut(0, (0, 1))]
    assert named(replicas.handle(said(2, 0, "wrong"))) == [(2, "outvoted")]


def test_an_answer_without_the_right_signature_is_no_vote() -> None:
    replicas = vote()
    replicas.handle(said(0, 0))
    assert named(replicas.handle(said(1, 0, signed=False))) == [(1, "unsigned")]
    assert replicas.handle(said(1, 0, life=1)) == [CarryOut(0, (0, 1))]


def test_what_is_not_what_was_signed_is_named_after_it_was_looked_at() -> None:
    replicas = vote()
    replicas.handle(said(0, 0))
    replicas.handle(said(1, 0))
    assert named(replicas.handle(Forged(0, 0, 0))) == [(0, "forged")]


def test_too_many_liars_fail_the_round_with_what_each_said() -> None:
    replicas = vote()
    assert replicas.handle(said(0, 0, "a")) == replicas.handle(said(1, 0, "b")) == []
    [command] = replicas.handle(said(2, 0, "c"))
    assert isinstance(command, Disagree) and command.index == 0
    assert command.reason.startswith("no 2 of 3 replicas give the same answer: 1 says 61; 2 says 62; 3 says 63")


def test_a_vote_ends_with_the_life_that_gave_it() -> None:
    replicas = vote()
    replicas.handle(said(0, 0, "wrong"))
    replicas.handle(said(1, 0))
    replicas.handle(Died(0, 0, "killed"))
    assert replicas.handle(said(0, 0, life=1)) == [CarryOut(0, (1, 0))]


def test_votes_for_later_messages_wait_for_their_turn() -> None:
    replicas = vote(told=2)
    replicas.handle(said(0, 0))
    assert replicas.handle(said(0, 1)) == []
    assert replicas.handle(said(1, 0)) == [CarryOut(0, (0, 1))]
    assert replicas.handle(said(1, 1)) == [CarryOut(1, (0, 1))]


def test_a_fresh_replica_begins_with_a_memory_whose_answer_is_nobody_elses() -> None:
    replicas = vote(told=2)
    for index in range(2):
        replicas.handle(said(0, index))
        replicas.handle(said(1, index))
    replicas.handle(Rebased(1, recalls=True))
    replicas.handle(Died(0, 0, "killed"))
    replicas.handle(Told())
    assert replicas.handle(said(0, 1, "what it recalls", life=1)) == []
    assert named(replicas.handle(said(2, 0, "wrong"))) == [(2, "outvoted")], "it began before, and lies"
    assert replicas.handle(said(0, 2, life=1)) == []
    assert replicas.handle(said(1, 2)) == [CarryOut(2, (0, 1))]


def test_after_a_stop_all_begin_anew() -> None:
    replicas = vote(told=2)
    for number in (0, 1):
        replicas.handle(said(number, 0))
    assert replicas.handle(Stopped()) == []
    assert (replicas.lives, replicas.told, replicas.carried_out) == ((1, 1, 1), 0, 0)
    assert replicas.handle(said(2, 0)) == [] and replicas.carried_out == 0
    replicas.handle(Told())
    assert replicas.handle(said(0, 0, life=1)) == []
    assert replicas.handle(said(2, 0, life=1)) == [CarryOut(0, (0, 2))]


def worn_out(replicas: Replicas, replica: int) -> list[Command]:
    """Let one die more often than it may."""
    for life in range(MAX_RESTARTS):
        assert named(replicas.handle(Died(replica, life, "killed"))) == [(replica, "died")]
    return replicas.handle(Died(replica, MAX_RESTARTS, "killed"))


def test_one_that_dies_again_and_again_sits_out_until_the_next_rounds() -> None:
    replicas = crash(2)
    [command] = worn_out(replicas, 1)
    reason = f"killed, the {MAX_RESTARTS + 1}th time in one round"
    assert command == Retire(1, MAX_RESTARTS + 1, "died", reason)
    assert replicas.active == (0,)
    assert replicas.handle(Died(1, MAX_RESTARTS + 1, "killed")) == []
    assert replicas.handle(Answered(0, 0, 0, FAILED, 0.0)) == [CarryOut(0, (0,))], "all who are there say so"
    assert replicas.handle(Opened()) == [Return(1, MAX_RESTARTS + 2)]
    assert replicas.active == (0, 1)
    assert replicas.handle(Told()) == replicas.handle(said(1, 0, "failed", life=MAX_RESTARTS + 2)) == []


def test_two_of_three_can_vote_without_the_one_that_sits_out() -> None:
    replicas = vote()
    assert isinstance(worn_out(replicas, 2)[0], Retire)
    assert replicas.handle(said(0, 0)) == []
    assert isinstance(replicas.handle(said(1, 0, "wrong"))[0], Disagree), "nobody else can say who is right"


def test_whoever_waited_for_the_one_that_sits_out_waits_no_more() -> None:
    replicas = crash(2)
    assert replicas.handle(Answered(0, 0, 0, FAILED, 0.0)) == []
    assert worn_out(replicas, 1)[1:] == [CarryOut(0, (0,))]
    replicas = vote()
    replicas.handle(said(0, 0))
    replicas.handle(said(1, 0, "wrong"))
    assert [type(one) for one in worn_out(replicas, 2)] == [Retire, Disagree]


def test_one_that_dies_again_and_again_ends_the_run_where_the_others_are_too_few() -> None:
    assert worn_out(crash(1), 0) == [Abandon(0, f"died {MAX_RESTARTS + 1} times in one round: killed")]
    replicas = vote()
    worn_out(replicas, 2)
    assert isinstance(worn_out(replicas, 1)[0], Abandon)


@pytest.mark.parametrize(("mode", "num", "quorum"), [("crash", 3, 1), ("vote", 1, 1), ("vote", 3, 2), ("vote", 5, 3)])
def test_how_many_equal_answers_count(mode: Mode, num: int, quorum: int) -> None:
    assert quorum_of(mode, num) == quorum
