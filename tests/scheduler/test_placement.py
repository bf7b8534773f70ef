"""Replicas of one hub go to different machines, and all of them evenly."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from scheduler.placement import choose, crowded


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 12))
def test_replicas_are_apart_where_they_can_be_and_machines_serve_alike(machines: int, replicas: int, hubs: int) -> None:
    names = [f"m{number}" for number in range(machines)]
    load: Counter[str] = Counter()
    for _ in range(hubs):
        placed: list[str] = []
        for _ in range(replicas):
            placed.append(choose(names, placed, load))
            load[placed[-1]] += 1
        assert len(set(placed)) == min(machines, replicas)
    assert max(load.values()) - min(load[name] for name in names) <= 1


def test_a_machine_that_is_gone_is_chosen_no_more_and_the_siblings_stay_apart() -> None:
    assert choose(["a", "c"], ["a"], {"a": 1, "b": 9, "c": 5}) == "c"
    assert choose(["a"], ["a"], {}) == "a"


def test_a_machine_where_one_is_ready_is_chosen_unless_a_sibling_is_there() -> None:
    machines, load = ["a", "b", "c"], {"a": 0, "b": 2, "c": 1}
    assert choose(machines, [], load) == "a"
    assert choose(machines, [], load, {"b"}) == "b"
    assert choose(machines, [], load, {"b", "c"}) == "c"
    assert choose(machines, ["b"], load, {"b"}) == "a", "replicas of one hub stay apart"
    assert choose(machines, ["a", "b", "c"], load, {"b"}) == "b"
    assert choose(["a"], [], load, {"b"}) == "a"


def test_who_shares_a_machine_is_found() -> None:
    assert crowded({"world": ["a", "b", "a"], "world/us": ["a", "b"], "world/eu": ["b", "b"]}) == {
        "a": ["world"],
        "b": ["world/eu"],
    }
