"""What a hub's machine tells a member of its updates that did not count whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from three_members import arrived, machine

from scheduler.participations.all import All
from scheduler.participations.deadline import Deadline
from tiers import HubRounds
from tiers.messages import Begin, Command, Lost, Refuse, Shortfall, TimeUp, TrainMember

CARRIES = Deadline(after_s=30.0, quorum=0.5, weight=0.5, staleness=5)
REFUSES = Deadline(after_s=30.0, quorum=0.5, weight=0.5, late="refuse")
WHOLE = Deadline(after_s=30.0, quorum=0.5, weight=0.5, discount="none")


def told(commands: list[Command]) -> Mapping[str, tuple[Shortfall, ...]]:
    return {one.member: one.shortfalls for one in commands if isinstance(one, TrainMember)}


def closed_without_c(policy: Any, rounds: int = 1) -> HubRounds:
    """Round 0 has closed without c."""
    hub = machine(policy)
    hub.handle(Begin(0, rounds))
    hub.handle(arrived("a", 0))
    hub.handle(arrived("b", 0))
    hub.handle(TimeUp(0, 30.0))
    return hub


def done(hub: HubRounds, number: int) -> list[Command]:
    """All who are asked have reported."""
    return [command for name in list(hub.waiting) for command in hub.handle(arrived(name, number))]


@pytest.mark.parametrize(("policy", "counted"), [(CARRIES, 28), (WHOLE, 40)])
def test_how_much_an_update_counts_that_is_carried(policy: Deadline, counted: int) -> None:
    hub = closed_without_c(policy, rounds=4)
    hub.handle(arrived("c", 0))
    assert told(done(hub, 1)) == {"a": (), "b": (), "c": (Shortfall(0, counted, 40),)}
    assert told(done(hub, 2))["c"] == (), "its update of round 2 has counted whole"


def test_one_that_is_held_is_weighed_as_the_next_round_opens() -> None:
    hub = closed_without_c(CARRIES)
    hub.handle(arrived("c", 0))
    assert hub.standing.shortfalls == {"c": (Shortfall(0, 28, 40),)}
    assert told(hub.handle(Begin(3)))["c"] == (Shortfall(0, 20, 40),), "three rounds later: 40 / sqrt(1 + 3)"


def test_nothing_of_one_that_is_refused() -> None:
    hub = closed_without_c(REFUSES)
    assert isinstance(hub.handle(arrived("c", 0))[0], Refuse)
    assert told(hub.handle(Begin(1)))["c"] == (Shortfall(0, 0, 40),)


def test_nothing_of_what_a_member_sent_that_is_lost_from_then_on() -> None:
    hub = machine(All(), keep_going=True, quorum=0.5)
    hub.handle(Begin(0, rounds=9))
    for number in range(3):
        hub.handle(Lost(number, {"c": "cut off"}))
        again = told([*hub.handle(arrived("a", number)), *hub.handle(arrived("b", number))])
    assert again["c"] == (Shortfall(0, 0, 1),)
    assert told(done(hub, 3))["c"] == ()


def test_what_counted_in_part_stays_known_while_the_member_is_lost() -> None:
    hub = closed_without_c(CARRIES, rounds=9)
    hub.handle(arrived("c", 0))
    done(hub, 1)
    hub.handle(arrived("a", 2))
    hub.handle(TimeUp(2, 30.0))
    hub.handle(Lost(2, {"c": "cut off"}))
    assert hub._attendance.shortfalls["c"] == (Shortfall(0, 28, 40), Shortfall(2, 0, 1))


def test_of_the_hubs_own_updates_those_hear_who_may_have_had_a_part_in_them() -> None:
    """One who answers in between has no more to be told; one who has not, had no part in what came later."""
    hub = machine(All(), keep_going=True, quorum=0.3)
    half, whole = Shortfall(4, 1, 2), ()
    assert told(hub.handle(Begin(5, shortfalls=(half,)))) == dict.fromkeys("abc", (half,))
    hub.handle(arrived("a", 5))
    hub.handle(Lost(5, {"b": "cut off"}))
    hub.handle(arrived("c", 5))
    lost, later, void = Shortfall(5, 0, 1), Shortfall(5, 1, 3), Shortfall(6, 0, 1)
    assert told(hub.handle(Begin(6, shortfalls=(later,)))) == {"a": (later,), "b": (half, lost), "c": (later,)}
    done(hub, 6)
    assert told(hub.handle(Begin(7))) == dict.fromkeys("abc", whole)
    done(hub, 7)
    assert told(hub.handle(Begin(8, shortfalls=(half, void)))) == dict.fromkeys("abc", (half, void))


def test_what_is_under_way_counts_nothing_where_nobody_goes_on_with_it() -> None:
    hub = closed_without_c(CARRIES)
    left = hub.standing.without_errands()
    assert not left.errands and left.shortfalls == {"c": (Shortfall(0, 0, 1),)}
    again = HubRounds(hub.hub, hub.weights, standing=left)
    assert told(again.handle(Begin(1)))["c"] == (Shortfall(0, 0, 1),)
