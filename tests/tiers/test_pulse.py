"""Who has been silent for too long, and a clock that runs only while somebody looks."""

from __future__ import annotations

from tiers.pulse import START_S, Attention, Pulse


def test_a_process_that_was_heard_is_silent_after_a_lease_and_named_once() -> None:
    pulse = Pulse()
    pulse.start("hub", 2.0, 0.0)
    assert pulse.beat("hub", 1.0)
    assert not pulse.beat("hub", 1.5)
    assert pulse.silent(3.5) == {}
    assert pulse.silent(4.0) == {"hub": 2.5}
    assert pulse.silent(4.5) == {}


def test_a_process_may_take_its_time_to_begin() -> None:
    pulse = Pulse()
    pulse.start("hub", 2.0, 0.0)
    assert pulse.silent(START_S) == {}
    assert pulse.silent(START_S + 1) == {"hub": START_S + 1}


def test_the_patience_doubles_until_a_process_has_answered_for_long() -> None:
    pulse = Pulse()
    pulse.start("hub", 1.0, 0.0)
    pulse.beat("hub", 0.0)
    assert pulse.silent(1.5)
    pulse.start("hub", 1.0, 2.0)
    pulse.beat("hub", 2.0)
    assert not pulse.silent(3.5)
    assert pulse.silent(4.5)
    pulse.start("hub", 1.0, 5.0)
    for second in range(5, 50):
        pulse.beat("hub", second)
    assert pulse.silent(50.5)


def test_the_shortest_lease_of_those_that_a_process_serves_counts() -> None:
    pulse = Pulse()
    pulse.start("hub", 5.0, 0.0)
    pulse.narrow("hub", 1.0)
    pulse.narrow("hub", 3.0)
    pulse.beat("hub", 0.0)
    assert pulse.silent(1.5)


def test_time_in_which_nobody_looked_does_not_count() -> None:
    attention = Attention(0.5)
    assert attention.look(100.0) == 0.0
    assert attention.look(100.25) == 0.25
    assert attention.look(160.0) == 0.75
    assert attention.look(159.0) == 0.75
