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
