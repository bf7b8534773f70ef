"""What is said of work that has no device, and when."""

from __future__ import annotations

from hierfl.runtime.patience import Patience


def test_waiting_is_said_once_and_late() -> None:
    patience = Patience(10.0)
    waiting = {("g", "w/a"): "no device has joined", ("g", "w/b"): "no device has joined"}
    assert patience.look(waiting, 0.0) == [] and patience.look(waiting, 9.0) == []
    assert patience.look(waiting, 10.0) == ["w/a, w/b wait for a device: no device has joined"]
    assert patience.look(waiting, 30.0) == []


def test_what_was_over_and_comes_again_is_said_again() -> None:
    patience = Patience(10.0)
    assert patience.look({("g", "w/a"): "r"}, 0.0) == [] and patience.look({}, 5.0) == []
    assert patience.look({("g", "w/a"): "r"}, 10.0) == [], "it has waited for 0 s"
    assert patience.look({("g", "w/a"): "r"}, 20.0) == ["w/a waits for a device: r"]


def test_many_sites_are_counted() -> None:
    said = Patience(0.0).look({("g", f"w/{i}"): "r" for i in range(5)}, 0.0)
    assert said == ["w/0, w/1, w/2 and 2 more sites wait for a device: r"]


def test_what_waits_too_long_is_given_up_with_the_key_that_says_how_long() -> None:
    patience, waiting = Patience(10.0, limit_s=60.0), {("g", "w/a"): "no device has joined"}
    patience.look(waiting, 0.0)
    later = waiting | {("g", "w/b"): "no device has joined"}
    patience.look(later, 60.0)
    assert patience.spent(later, 59.0) == {}
    given_up = "no device has joined, and none has come within 60 s (runtime.device_timeout_s)"
    assert patience.spent(later, 60.0) == {("g", "w/a"): given_up}, "w/b waits since just now"


def test_without_a_limit_nothing_is_given_up() -> None:
    patience = Patience(10.0)
    patience.look({("g", "w/a"): "r"}, 0.0)
    assert patience.spent({("g", "w/a"): "r"}, 1e9) == {}


def test_who_was_left_out_of_a_round_is_not_waited_for_as_it_is_measured() -> None:
    patience, reason = Patience(10.0, limit_s=60.0), "w/a is not there"
    training, measuring = ({(group, "w/a"): reason} for group in ("train:w:4:7", "evaluate:w"))

    def given_up(work: dict[tuple[str, str], str], now_s: float, round_number: int) -> dict[tuple[str, str], str]:
        patience.look(work, now_s, round_number)
        return patience.spent(work, now_s)

    assert given_up(training, 0.0, 5) == {} and list(given_up(training, 60.0, 5)) == [*training]
    others = {("evaluate:w", "w/b"): reason}
    assert given_up(measuring | others, 61.0, 5) == {("evaluate:w", "w/a"): f"{reason}, as in this round's training"}
    assert given_up({("fine tune:w", "w/a"): reason}, 62.0, 5).keys() == {("fine tune:w", "w/a")}
    assert given_up({("train:w/us:9:8", "w/a"): reason}, 63.0, 5) == {}, "a hub's next round waits for it anew"
    assert given_up(training, 70.0, 6) == {} and given_up(measuring, 75.0, 6) == {}, "and so does the next one"


def test_who_was_not_there_for_a_measurement_is_waited_for_in_the_next() -> None:
    patience, work = Patience(10.0, limit_s=60.0), {("evaluate:w", "w/a"): "r"}
    patience.look(work, 0.0, 1)
    assert patience.spent(work, 60.0)
    patience.look({("fine tune:w", "w/a"): "r"}, 61.0, 1)
    assert patience.spent({("fine tune:w", "w/a"): "r"}, 61.0) == {}
