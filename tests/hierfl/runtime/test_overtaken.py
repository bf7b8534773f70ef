"""Replies are read in the order of the calls, line by line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hierfl.runtime.overtaken import in_turn


def test_what_has_overtaken_an_earlier_reply_waits_for_it() -> None:
    sent = [("a1", "a"), ("b1", "b"), ("sign of life", None), ("a2", "a"), ("b2", "b")]
    assert in_turn(sent, {"a2", "b1", "b2", "sign of life"}) == (["b1", "sign of life", "b2"], ["a2"])
    assert in_turn(sent, {"a1", "a2"}) == (["a1", "a2"], [])
    assert in_turn(sent, set()) == ([], [])


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=12), st.data())
def test_each_reply_is_read_once_and_each_line_in_order(lines: list[str | None], data: st.DataObject) -> None:
    outstanding = dict(enumerate(lines))
    read: list[int] = []
    come: set[int] = set()
    for number in data.draw(st.permutations(range(len(lines)))):
        come.add(number)
        now, early = in_turn(outstanding.items(), come)
        assert come == {*now, *early}
        read += now
        come -= set(now)
        for one in now:
            assert all(
                outstanding[other] != outstanding[one] or lines[one] is None for other in outstanding if other < one
            )
            del outstanding[one]
    assert sorted(read) == list(range(len(lines)))
