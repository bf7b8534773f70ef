"""Participation policies by figures that a reader can recompute."""

from __future__ import annotations

import math
from typing import Any

import pytest

from scheduler.participation import Admission, Candidates, Ending, Limits, RoundView, needed
from scheduler.participations._after import After
from scheduler.participations._lateness import discounted
from scheduler.participations.all import All
from scheduler.participations.buffered import Buffered
from scheduler.participations.deadline import Deadline
from scheduler.participations.sample import Sample

TEN = {f"s{i}": 10 for i in range(10)}


def view(
    num_in: int, *, waiting: int = 0, late: int = 0, lost: int = 0, weight: int | None = None, **more: Any
) -> RoundView:
    """A round of ten members with a weight of 10 each."""
    figures = {"num_in": num_in, "num_waiting": waiting, "num_late": late, "num_lost": lost, "num_updates": num_in}
    return RoundView(
        **{
            "num_members": 10,
            "total_weight": 100,
            "weight_in": 10 * num_in if weight is None else weight,
            **figures,
            **more,
        }
    )


@pytest.mark.parametrize(
    ("share", "number", "least"), [(0.8, 10, 8), (0.81, 10, 9), (2 / 3, 3, 2), (0.7, 10, 7), (0.01, 3, 1), (1.0, 7, 7)]
)
def test_a_share_of_a_number_is_rounded_up(share: float, number: int, least: int) -> None:
    assert needed(share, number) == least


def test_all_waits_for_all() -> None:
    assert All().choose(Candidates("w", 0, 0, TEN)).asked == tuple(TEN)
    assert All().decide(view(9, waiting=1, elapsed_s=1e9)) is None
    assert All().decide(view(10)) == Ending("all reported")
    assert All().decide(view(8, lost=2)) == Ending("8 of 10 reported, the rest lost")


@pytest.mark.parametrize(
    ("settings", "free", "number"),
    [
        ({"fraction": 0.3}, 10, 3),
        ({"fraction": 0.25}, 10, 3),
        ({"fraction": 0.24}, 10, 2),
        ({"fraction": 0.01}, 10, 1),
        ({"fraction": 1.0}, 10, 10),
        ({"count": 4}, 10, 4),
        ({"count": 40}, 10, 10),
        ({"fraction": 0.5}, 3, 3),
    ],
)
def test_a_sample_is_a_part_of_all_members_and_at_least_one(settings: dict[str, Any], free: int, number: int) -> None:
    able = dict(list(TEN.items())[:free])
    unable = dict(list(TEN.items())[free:])
    choice = Sample(**settings).choose(Candidates("w", 5, 1, able, unable))
    assert len(choice.asked) == number
    assert set(choice.skipped.values()) == ({f"not drawn: {number} of 10 take part"} if number < 10 else set())
    assert set(unable) <= set(choice.skipped)


@pytest.mark.parametrize(
    ("weight", "staleness", "discount", "counts"),
    [
        (120, 1, "sqrt", 85),  # 84.85
        (120, 3, "sqrt", 60),
        (100, 2, "sqrt", 58),  # 57.7
        (120, 1, "linear", 60),
        (100, 2, "linear", 33),
        (101, 1, "linear", 51),  # 50.5
        (120, 9, "none", 120),
        (1, 8, "sqrt", 1),
        (1, 8, "linear", 1),
        (2**53 - 1, 3, "sqrt", 2**52),
    ],
)
def test_late_weights_are_the_nearest_integers(weight: int, staleness: int, discount: str, counts: int) -> None:
    assert discounted(weight, staleness, discount) == counts


def test_late_updates_are_told_what_they_count() -> None:
    assert Deadline().admit(120, 1) == Admission(85, "late by 1 round, weight 71% of 120")
    assert Deadline().admit(120, 3) == Admission(0, "late by 3 rounds, and at most 2 rounds count")
    assert Deadline(late="refuse").admit(120, 1) == Admission(0, "late by 1 round, and late updates do not count here")
    assert Buffered().admit(40, 3) == Admission(20, "late by 3 rounds, weight 50% of 40")
    assert Buffered(staleness=1).admit(40, 2) == Admission(0, "late by 2 rounds, and at most 1 round count")


def test_a_deadline_is_given_or_predicted() -> None:
    assert Deadline(after_s=30.0).limits([1.0, 2.0]) == Limits(30.0)
    assert Deadline().limits([]) == Limits()
    assert Deadline(after=After(2.0)).limits([10.0, *range(1, 10)]) == Limits(18.0), "9 of 10 take at most 9 s"
    assert Deadline().limits([4.0]) == Limits(6.0)
    assert Deadline(give_up_s=20.0).limits([4.0]) == Limits(6.0, 20.0)
    assert Deadline(give_up_s=5.0).limits([4.0]) == Limits(6.0, 6.0)
    assert Deadline(give_up_s=5.0).limits([]) == Limits(5.0, 5.0)


LIMITS = Limits(30.0, 90.0)
DEADLINE = Deadline(after_s=30.0, give_up_s=90.0, quorum=0.8, weight=0.9)


@pytest.mark.parametrize(
    ("seen", "ending"),
    [
        (view(9, waiting=1), None),
        (view(10), Ending("all reported")),
        (view(9, lost=1), Ending("9 of 10 reported, the rest lost")),
        (
            view(8, waiting=2, weight=90, elapsed_s=30.0, limits=LIMITS),
            Ending("8 of 10 members and 90% of the weight are in at the deadline of 30 s"),
        ),
        (view(7, waiting=3, weight=95, elapsed_s=30.0, limits=LIMITS), None),
        (view(9, waiting=1, weight=89, elapsed_s=30.0, limits=LIMITS), None),
        (
            view(7, waiting=3, weight=95, elapsed_s=90.0, limits=LIMITS),
            Ending("7 of 10 members and 95% of the weight are in after 90 s, 8 and 90% are needed", gives_up=True),
        ),
        (view(7, late=3), None),
        (view(9, late=1), Ending("9 of 10 reported, 0 lost, 1 still at an earlier round")),
        (view(7, lost=1), Ending("7 of 10 reported, 1 lost, 2 still at an earlier round")),
    ],
    ids=[
        "in-time",
        "all",
        "lost",
        "enough",
        "few",
        "light",
        "give-up",
        "late-needed",
        "late-not-needed",
        "late-useless",
    ],
)
def test_a_deadline_closes_with_all_or_with_both_quorums(seen: RoundView, ending: Ending | None) -> None:
    assert DEADLINE.decide(seen) == ending


def test_buffered_steps_at_its_goal_or_when_nobody_else_comes() -> None:
    policy = Buffered(goal=3)
    assert policy.decide(view(2, waiting=8)) is None
    assert policy.decide(view(2, waiting=7, num_updates=3)) == Ending("3 updates are in, the goal is 3")
    assert policy.decide(view(2, late=1)) is None
    assert policy.decide(view(2, lost=8)) == Ending("2 of 10 reported, the rest lost: fewer than the goal of 3")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: All(probe_after=0), "probe_after is 0; at least 1"),
        (lambda: Sample(fraction=0.0), "fraction is 0.0; a fraction above 0, at most 1"),
        (lambda: Sample(fraction=math.nan), "fraction is nan"),
        (lambda: Sample(count=0), "count is 0; at least 1"),
        (lambda: Sample(by="luck"), r"by is 'luck' \(allowed: uniform, samples"),
        (lambda: Deadline(after_s=0.0), "after_s is 0.0; a number above 0"),
        (lambda: Deadline(after_s=math.inf), "after_s is inf"),
        (lambda: After(p90=-1.0), "p90 is -1.0; a number above 0"),
        (lambda: Deadline(quorum=1.5), "quorum is 1.5"),
        (lambda: Deadline(weight=0.0), "weight is 0.0"),
        (lambda: Deadline(late="keep"), r"late is 'keep' \(allowed: carry, refuse"),
        (lambda: Deadline(staleness=0), "staleness is 0; at least 1"),
        (lambda: Deadline(discount="cubic"), r"discount is 'cubic' \(allowed: sqrt, linear, none"),
        (lambda: Deadline(after_s=30.0, give_up_s=30.0), "give_up_s is 30.0; a number above 30"),
        (lambda: Buffered(goal=0), "goal is 0; at least 1"),
        (lambda: Buffered(staleness=0), "staleness is 0"),
        (lambda: Buffered(discount="x"), "discount is 'x'"),
    ],
)
def test_a_policy_is_valid_once_it_exists(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        make()
