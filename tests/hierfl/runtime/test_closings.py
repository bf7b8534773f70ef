"""What is said of a round as it closes."""

from __future__ import annotations

from hierfl.monitor.records import NodesChanged, Record, RoundClosed
from hierfl.runtime.closings import NAMED, Closings, shortened
from hierfl.runtime.scribe import Scribe
from tiers.federation import Federation, Hub, Site
from tiers.messages import Close

LATE = "late: still at work when the round closed"


def made() -> tuple[Closings, list[Record]]:
    said: list[Record] = []
    tree = Federation(Hub("world", (Site("a"), Site("b"), Site("c"))))
    closings = Closings(Scribe(tree, said.append, 0.0))
    closings.opened("world")
    closings.asked("world", 0, ["a", "b", "c"])
    return closings, said


def rounds(said: list[Record]) -> list[RoundClosed]:
    return [record for record in said if isinstance(record, RoundClosed)]


def states(said: list[Record]) -> list[tuple[str, str, int]]:
    return [(node, one.state, one.round_number) for one in said if isinstance(one, NodesChanged) for node in one.nodes]


def test_the_late_are_told_from_the_lost_and_until_they_are_carried() -> None:
    closings, said = made()
    closings.lost("world", 0, ["c"])
    closings.closed("world", Close(0, ("a",), {"b": LATE, "c": "power cut"}, 1, "deadline"))
    closings.asked("world", 1, ["a", "c"])
    closings.closed("world", Close(1, ("a", "c"), {"b": "still at work for round 0"}, 2, "all others"))
    closings.asked("world", 2, ["a"])
    closings.closed("world", Close(2, ("a",), {}, 2, "all", {"b": "late by 2 rounds, weight 58% of 10"}))
    first, second, third = rounds(said)
    assert first.late == ("b",) and first.missing == {"b": "late: at work since round 1", "c": "power cut"}
    assert second.late == ("b",) and second.missing == {"b": "late: at work since round 1"}
    assert third.late == () and third.carried == {"b": "late by 2 rounds, weight 58% of 10"}
    assert states(said) == [("world/b", "late", 1)]


def test_a_member_that_is_asked_again_within_the_round_that_counts_it_is_at_work_still() -> None:
    closings, said = made()
    closings.closed("world", Close(0, ("a", "c"), {"b": LATE}, 2, "the goal"))
    closings.asked("world", 1, ["a", "b"])
    closings.closed("world", Close(1, ("a",), {}, 2, "the goal", {"b": "late by 1 round"}))
    closings.closed("world", Close(2, ("a",), {"b": "still at work for round 1"}, 1, "the goal"))
    assert [record.late for record in rounds(said)] == [("b",), (), ("b",)]


def test_bytes_that_come_between_rounds_count_for_the_next_one() -> None:
    closings, said = made()
    closings.count_bytes("world", 5)
    closings.closed("world", Close(0, ("a", "b", "c"), {}, 3, "all reported"))
    closings.count_bytes("world", 7)
    closings.opened("world")
    closings.count_bytes("world", 1)
    closings.closed("world", Close(1, ("a", "b", "c"), {}, 3, "all reported"))
    assert [record.bytes_up for record in rounds(said)] == [5, 8]


def test_a_reason_that_many_share_is_counted() -> None:
    many = {f"s{number}": "not drawn" for number in range(NAMED + 1)}
    few = {f"t{number}": "power cut" for number in range(NAMED)}
    assert shortened({**many, **few}) == (few, {"not drawn": NAMED + 1})
    assert shortened({}) == ({}, {})
