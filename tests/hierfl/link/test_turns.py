"""Few members send at a time, and one that is slow keeps nobody waiting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hierfl.link.turns import AT_ONCE, SPAN_S, SWIFT_BYTES, Turns


class Hub:
    """Turns on a clock of its own; `sends` has who was told to send."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.turns = Turns(now=lambda: self.now_s)
        self.sends: list[str] = []

    def ask(self, who: str) -> None:
        if self.turns.ask(who, lambda: self.sends.append(who)):
            self.sends.append(who)


def test_the_next_one_sends_once_one_is_done() -> None:
    hub = Hub()
    for who in "abcd":
        hub.ask(who)
    assert hub.sends == ["a", "b"]
    hub.turns.leave("b")
    assert hub.sends == ["a", "b", "c"]
    hub.ask("b")
    hub.turns.leave("a")
    hub.turns.leave("c")
    assert hub.sends == ["a", "b", "c", "d", "b"]


def test_who_has_its_turn_is_told_at_once_and_who_waits_keeps_its_place() -> None:
    hub = Hub()
    for who in "abcdac":
        hub.ask(who)
    assert hub.sends == ["a", "b", "a"]
    hub.turns.leave("c")
    hub.turns.leave("a")
    assert hub.sends == ["a", "b", "a", "d"]


def test_who_stalls_or_has_a_narrow_line_keeps_nobody_waiting() -> None:
    hub = Hub()
    for who in "abcde":
        hub.ask(who)
    hub.now_s = SPAN_S / 2
    hub.turns.moved("a", SWIFT_BYTES)
    hub.turns.moved("b", SWIFT_BYTES - 1)
    assert hub.sends == ["a", "b"]
    hub.now_s = SPAN_S
    hub.turns.look()
    assert hub.sends == ["a", "b", "c"], "b is slow"
    hub.now_s = 2 * SPAN_S
    hub.turns.moved("b", SWIFT_BYTES)
    hub.turns.look()
    assert hub.sends == ["a", "b", "c", "d"], "a and c have sent nothing in their second span; b is swift now"
    hub.turns.leave("d")
    assert hub.sends[-1] == "e"


def test_who_is_called_and_waits_anew_keeps_its_place() -> None:
    hub = Hub()
    for who in "abcd":
        hub.ask(who)
    hub.turns.give_back("c")
    hub.turns.look()
    assert hub.sends == ["a", "b"]
    hub.turns.give_back("a")
    hub.turns.look()
    assert hub.sends == ["a", "b", "c"]
    hub.turns.forget("b")
    assert hub.sends == ["a", "b", "c"]
    hub.turns.look()
    assert hub.sends == ["a", "b", "c", "d"]


STEPS = st.tuples(st.sampled_from(["ask", "leave", "moved", "wait", "look"]), st.sampled_from("abcdef"))


@given(st.lists(STEPS, max_size=60))
def test_nobody_waits_where_there_is_room_and_everybody_comes_to_send(steps: list[tuple[str, str]]) -> None:
    hub, wants = Hub(), set[str]()
    for what, who in steps:
        match what:
            case "ask":
                hub.ask(who)
                wants.add(who)
            case "leave":
                hub.turns.leave(who)
                wants.discard(who)
            case "moved":
                hub.turns.moved(who, SWIFT_BYTES)
            case "wait":
                hub.now_s += SPAN_S
            case _:
                hub.turns.look()
        sending, waiting = hub.turns._sending, hub.turns._waiting
        assert sending.keys() | waiting.keys() == wants and not sending.keys() & waiting.keys()
        assert what == "wait" or not waiting or sum(not one.is_slow for one in sending.values()) >= AT_ONCE
        assert hub.now_s or len(sending) <= AT_ONCE
    for _ in range(len(wants)):
        hub.now_s += SPAN_S
        hub.turns.look()
    assert hub.turns._sending.keys() == wants
