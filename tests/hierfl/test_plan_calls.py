"""What calls cost beside their sites' work, by hand."""

from __future__ import annotations

import pytest

from hierfl.planning.calls import Calls
from scheduler import Device
from scheduler.eventlog import Span

ALONE = {name: Device(name) for name in ("x", "y")}


def called(calls: Calls, worker: str, start_s: float, end_s: float, **seconds: float) -> None:
    """A call in the first round, and what each of its sites took."""
    sites = tuple(f"world/{name}" for name in seconds)
    calls.called(Span(worker, "train", start_s, end_s, sites, 1))
    for site, spent in zip(sites, seconds.values(), strict=True):
        calls.trained(worker, site, 0, spent)


def test_a_gap_counts_from_the_workers_last_end_or_from_the_asking_with_what_the_call_took_beside_its_sites() -> None:
    calls = Calls()
    for site, at_s in {"a": 1.0, "b": 1.0, "c": 4.0, "d": 4.5}.items():
        calls.asked(f"world/{site}", 0, at_s)
    called(calls, "x", 1.25, 2.5, a=1.0)  # 0.25 after the asking, and as much beside the training
    called(calls, "x", 2.75, 3.75, b=1.0)  # 0.25 after the one before
    called(calls, "y", 4.75, 7.25, c=1.0, d=1.0)  # of two sites that share a call the first has it
    found = calls.gaps_s(ALONE)
    assert found == pytest.approx({("world/a", 0): 0.5, ("world/b", 0): 0.25, ("world/c", 0): 1.25})


def test_workers_of_one_device_wait_for_each_other() -> None:
    """A place that was free waited for what the other held, memory: that is the schedule's, not the call's."""
    device = Device("gpu", places=2)
    calls = Calls()
    for site in "abc":
        calls.asked(f"world/{site}", 0, 0.0)
    called(calls, "x", 0.0, 1.0, a=1.0)
    called(calls, "y", 0.0, 3.0, b=3.0)
    called(calls, "x", 3.5, 4.5, c=1.0)
    assert calls.gaps_s({"x": device, "y": device})["world/c", 0] == pytest.approx(0.5)
    assert calls.gaps_s(ALONE)["world/c", 0] == pytest.approx(2.5)


def test_what_is_no_sites_call_counts_nowhere() -> None:
    calls = Calls()
    calls.trained("x", "world/a", 0, 1.0)
    called(calls, "x", 0.0, 1.0, b=1.0)
    calls.trained("x", "world/a", 0, 1.0)
    assert calls.gaps_s(ALONE) == {("world/b", 0): 0.0}


def test_a_call_is_as_long_as_its_sites_work_and_ends_when_it_did() -> None:
    calls = Calls()
    called(calls, "x", 0.0, 3.0, a=1.0)
    called(calls, "y", 1.0, 2.5, b=0.5, c=0.5)
    called(calls, "y", 3.0, 4.0, d=2.0)  # clocks differ a little: no call begins before itself
    calls.called(Span("x", "evaluate", 3.0, 3.5, ("world/a",), 1))
    assert [(span.actor, span.start_s, span.end_s) for span in calls.worked()] == [
        ("y", 1.5, 2.5),
        ("x", 2.0, 3.0),
        ("x", 3.0, 3.5),
        ("y", 3.0, 4.0),
    ]
