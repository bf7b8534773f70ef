"""The dispatcher by example: who is fed first, how much goes into one call."""

from __future__ import annotations

import pytest

from scheduler import Assign, Dispatcher, Job
from scheduler.dispatch import CHUNK_MAX_S, CHUNK_MIN_S
from scheduler.policies.fifo import Fifo
from scheduler.policies.longest_first import LongestFirst


def jobs(*estimates: float | None, group: str = "g") -> list[Job]:
    return [Job(group, f"{group}{i}", 1, estimate, i) for i, estimate in enumerate(estimates)]


def dispatcher(*devices: str, depth: int = 2) -> Dispatcher:
    found = Dispatcher(Fifo(), depth)
    for device in devices:
        found.join(device)
    return found


def said(decisions: list[Assign]) -> list[tuple[str, list[str]]]:
    return [(decision.device, [job.name for job in decision.jobs]) for decision in decisions]


def test_idle_devices_come_before_second_places() -> None:
    ledger = dispatcher("x", "y")
    ledger.ask(jobs(9, 9, 9, 9, 9))
    assert said(ledger.decide()) == [("x", ["g0"]), ("y", ["g1"]), ("x", ["g2"]), ("y", ["g3"])]
    assert ledger.decide() == [] and ledger.has_waiting("g")
    ledger.done("y", ledger.running("y")[0])
    assert said(ledger.decide()) == [("y", ["g4"])]
    assert not ledger.has_waiting("g")


def test_a_device_that_was_emptied_is_fed_before_one_with_a_place() -> None:
    ledger = dispatcher("x", "y")
    ledger.ask(jobs(9, 9, 9))
    ledger.decide()
    for chunk in ledger.running("y"):
        ledger.done("y", chunk)
    ledger.ask(jobs(9, group="h"))
    assert said(ledger.decide()) == [("y", ["h0"])]


def test_short_jobs_share_a_call_until_it_is_long_enough() -> None:
    """Ten jobs of 4 ms on one device: a call holds at least 10 ms, or a place's share of all that waits."""
    ledger = dispatcher("x")
    ledger.ask(jobs(*[0.004] * 10))
    first, second = ledger.decide()
    assert len(first.jobs) == 5, "half of 40 ms for each of two places"
    assert len(second.jobs) == 2, "half of the 20 ms left are below 10, which two fill to 8"


def test_a_call_is_never_longer_than_the_maximum_or_one_job() -> None:
    ledger = dispatcher("x")
    ledger.ask(jobs(*[0.03] * 100))
    assert [len(decision.jobs) for decision in ledger.decide()] == [3, 3]
    ledger = dispatcher("x")
    ledger.ask(jobs(5.0, 0.001, 0.001))
    assert said(ledger.decide()) == [("x", ["g0"]), ("x", ["g1", "g2"])]
    assert CHUNK_MIN_S < CHUNK_MAX_S


def test_devices_share_what_waits() -> None:
    """Four tiny jobs on four devices go to four, though one call could hold them."""
    ledger = dispatcher("a", "b", "c", "d")
    ledger.ask(jobs(*[0.0001] * 4))
    assert [len(decision.jobs) for decision in ledger.decide()] == [1, 1, 1, 1]


def test_unknown_durations_go_alone() -> None:
    ledger = dispatcher("x", depth=4)
    ledger.ask(jobs(None, 0.001, None, 0.001))
    assert said(ledger.decide()) == [("x", ["g0"]), ("x", ["g1"]), ("x", ["g2"]), ("x", ["g3"])]


def test_groups_never_share_a_call_and_the_policy_chooses_between_them() -> None:
    ledger = Dispatcher(LongestFirst())
    ledger.join("x")
    ledger.ask(jobs(0.001, 0.002, group="g"))
    ledger.ask(jobs(0.003, group="h"))
    assert said(ledger.decide()) == [("x", ["h0"]), ("x", ["g1", "g0"])]


def test_who_leaves_gives_its_work_back() -> None:
    ledger = dispatcher("x", "y")
    work = jobs(9, 9, 9, 9, 9)
    ledger.ask(work)
    ledger.decide()
    assert ledger.leave("x") == (work[0], work[2])
    assert ledger.leave("x") == () and ledger.running("x") == () and ledger.devices == ("y",)
    ledger.done("x", (work[0],))
    ledger.ask(work[:1])
    ledger.join("x")
    assert said(ledger.decide()) == [("x", ["g0"]), ("x", ["g4"])]


def test_joining_twice_keeps_the_work() -> None:
    ledger = dispatcher("x")
    ledger.ask(jobs(9))
    ledger.decide()
    ledger.join("x")
    assert len(ledger.running("x")) == 1


def test_a_group_is_taken_back() -> None:
    ledger = dispatcher("x")
    ledger.ask(jobs(9, 9, 9, 9))
    ledger.decide()
    ledger.ask(jobs(9, group="h"))
    assert sorted(ledger.withdraw("g")) == [("g", "g2"), ("g", "g3")]
    assert ledger.withdraw("g") == () and not ledger.has_waiting("g") and ledger.has_waiting("h")
    assert len(ledger.running("x")) == 2, "what runs, runs on"


def test_nothing_is_decided_without_devices_or_work() -> None:
    ledger = dispatcher()
    ledger.ask(jobs(1))
    assert ledger.decide() == [] and ledger.has_waiting("g")
    assert dispatcher("x").decide() == []


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_depth_bounds_what_a_device_holds(depth: int) -> None:
    ledger = dispatcher("x", depth=depth)
    ledger.ask(jobs(*[9.0] * 5))
    assert len(ledger.decide()) == depth == len(ledger.running("x"))
