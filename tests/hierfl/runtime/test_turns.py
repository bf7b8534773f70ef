"""A worker's two threads: what is taken back is not begun, what has begun is not taken back."""

from __future__ import annotations

import threading

from hierfl.runtime.turns import Turns


def test_what_has_begun_is_not_taken_back() -> None:
    turns = Turns()
    assert turns.begin(3) and turns.begin(4)
    assert turns.take_back((3, 4, 5, 7)) == (5, 7)
    assert not turns.begin(5) and turns.begin(6) and not turns.begin(7)
    assert turns.begin(8), "nothing is left of what was taken back"


def test_a_call_waits_for_what_goes_past_it_and_was_made_before() -> None:
    turns, begun = Turns(), threading.Event()

    def work() -> None:
        assert turns.begin(9, after=8)
        begun.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert not begun.wait(0.05)
    turns.passed(8)
    thread.join(10)
    assert begun.is_set()


def test_a_call_is_done_in_one_place_whoever_is_first() -> None:
    """Two threads race for the same calls, many times; each call is begun or taken back, never both or neither."""
    turns, begun, taken = Turns(), [], []
    start = threading.Barrier(2)

    def work() -> None:
        start.wait()
        begun.extend(ticket for ticket in range(2000) if turns.begin(ticket))

    thread = threading.Thread(target=work)
    thread.start()
    start.wait()
    for first in range(0, 2000, 50):
        taken.extend(turns.take_back(range(first, first + 50)))
    thread.join(10)
    assert sorted(begun + taken) == list(range(2000))
