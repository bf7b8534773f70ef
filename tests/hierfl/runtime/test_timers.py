"""Timers count from the opening and ring once."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from hierfl.runtime.timers import Timers
from tiers.messages import SetTimer, TimeUp

SET = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(1, 50).map(float), st.integers(0, 50).map(float))
)


@given(SET, st.integers(0, 120).map(float))
def test_what_is_due_rings_in_the_order_of_time_and_once(
    timers: list[tuple[str, int, float, float]], now: float
) -> None:
    clock = Timers()
    for hub, number, after_s, opened_s in timers:
        clock.set(hub, SetTimer(number, after_s), opened_s)
    due = sorted(opened_s + after_s for _, _, after_s, opened_s in timers)
    assert clock.left_s(now) == (max(0.0, due[0] - now) if due else math.inf)
    rung = clock.ring(now)
    assert sorted((hub, event.round_number, event.elapsed_s) for hub, event in rung) == sorted(
        (hub, number, after_s) for hub, number, after_s, opened_s in timers if opened_s + after_s <= now
    )
    assert clock.ring(now) == []
    assert clock.left_s(now) > 0.0


def test_a_closed_round_rings_no_more() -> None:
    clock = Timers()
    clock.set("us", SetTimer(0, 1.0), 0.0)
    clock.set("us", SetTimer(0, 9.0), 0.0)
    clock.set("eu", SetTimer(3, 2.0), 0.5)
    clock.drop("us")
    assert clock.left_s(0.0) == 2.5
    assert clock.ring(100.0) == [("eu", TimeUp(3, 2.0))]
