"""Joint figures of runs that share devices, on examples that a reader can recompute."""

from __future__ import annotations

import pytest

from scheduler import Device
from scheduler.bounds import Task
from scheduler.joint import Stretch, join

X, Y = Device("x"), Device("y")
LATE = (("a", 0.0), ("b", 1.5))


def stretch(run: str, start_s: float, end_s: float, bound_s: float, *work: Task, devices: tuple[Device, ...] = (X, Y)):
    return Stretch(run, start_s, end_s, bound_s, work, devices, {})


def test_two_runs_by_hand() -> None:
    """Run a: jobs of 4 and 2, its bound 4; run b the same, each waits for x and y in turn. W = 12 on 2 in 7 s."""
    both = [stretch("a", 0.0, 5.0, 4.0, Task(6.0)), stretch("b", 0.0, 7.0, 4.0, Task(6.0))]
    calls = {"a": {"x": [(0.0, 4.0)], "y": [(0.0, 2.0)]}, "b": {"x": [(4.0, 6.0)], "y": [(3.0, 7.0)]}}
    joint = join(both, calls)
    assert joint.wanted_s == {"x": 7.0, "y": 7.0}
    assert joint.busy_s == {"x": {"a": 4.0, "b": 2.0}, "y": {"a": 2.0, "b": 4.0}}
    assert joint.idle.idle == pytest.approx(2 / 14)
    assert joint.idle.floor == 0.0, "12 s on two devices: 6 s each"
    assert joint.idle.efficiency == pytest.approx(6 / 7) and joint.idle.goodput == pytest.approx(12 / 14)
    assert joint.share("a") == pytest.approx(1 / 2) and joint.fraction("b") == pytest.approx(6 / 14)


def test_one_run_alone_has_its_own_figures() -> None:
    """A round of 5 s with the bound 4, then half a second that nobody wanted, then one of 3 s with the bound 3."""
    rounds = [stretch("a", 0.0, 5.0, 4.0, Task(6.0)), stretch("a", 5.5, 8.5, 3.0, Task(3.0))]
    joint = join(rounds, {"a": {"x": [(0.0, 4.0), (5.5, 8.5)], "y": [(0.0, 2.0)]}})
    assert joint.wanted["y"] == [(0.0, 5.0), (5.5, 8.5)]
    assert joint.idle.idle == pytest.approx(1 - 9 / 16) and joint.idle.floor == pytest.approx(1 - 9 / 14)
    assert joint.idle.efficiency == pytest.approx(7 / 8) and joint.share("a") == 1.0


def test_no_schedule_begins_before_the_work_is_there() -> None:
    """b comes at 6 with 8 s of work for two devices: 6 + 4 at least; a's own rounds are a chain of 4 + 3."""
    rounds = [stretch("a", 0.0, 5.0, 4.0, Task(4.0)), stretch("a", 5.0, 8.0, 3.0, Task(3.0))]
    joint = join([*rounds, stretch("b", 6.0, 12.0, 2.0, Task(8.0))], {"a": {}, "b": {}})
    assert joint.idle.efficiency == pytest.approx(10 / 12)
    joint = join([*rounds, stretch("b", 6.0, 8.0, 0.5, Task(0.5))], {"a": {}, "b": {}})
    assert joint.idle.efficiency == pytest.approx(7 / 8)


def test_a_device_is_idle_only_for_runs_that_may_use_it() -> None:
    """y is a's alone: wanted for 2 s of 6. Its work of 2 s there is all that it could do."""
    rounds = [stretch("a", 0.0, 2.0, 2.0, Task(2.0, frozenset({"n"})), devices=(X, Device("y", labels=frozenset("n"))))]
    joint = join(
        [*rounds, stretch("b", 0.0, 6.0, 6.0, Task(6.0), devices=(X,))],
        {"a": {"y": [(0.0, 2.0)]}, "b": {"x": [(0.0, 6.0)], "y": []}},
    )
    assert joint.wanted_s == {"x": 6.0, "y": 2.0} and joint.idle.busy == {"x": 1.0, "y": 1.0}
    assert joint.idle.idle == 0.0 and joint.idle.floor == 0.0 and joint.idle.efficiency == 1.0


def test_work_side_by_side_counts_once_as_busy_and_twice_as_goodput() -> None:
    wide = Device("x", places=2)
    both = [stretch(run, 0.0, 4.0, 3.0, Task(4.0), devices=(wide,)) for run in "ab"]
    joint = join(both, {run: {"x": [(0.0, 4.0)]} for run in "ab"})
    assert joint.idle.busy == {"x": 1.0} and joint.busy_s == {"x": {"a": 4.0, "b": 4.0}}
    assert joint.idle.idle == 0.0 and joint.idle.goodput == pytest.approx(2.0)


def test_work_outside_of_what_was_wanted_is_not_counted() -> None:
    """A late site goes on after the last barrier."""
    joint = join([stretch("a", 0.0, 2.0, 1.0, Task(1.0), devices=(X,))], {"a": {"x": [(1.0, 9.0)]}})
    assert joint.busy_s == {"x": {"a": 1.0}} and joint.idle.idle == pytest.approx(0.5)


def test_long_histories_are_quick_and_add_up() -> None:
    """Two runs of 500 rounds each, a second long, one after the other with a pause: every second 0.5 s busy on x."""
    rounds = [
        stretch(run, 3.0 * number + late_s, 3.0 * number + late_s + 1.0, 0.5, Task(0.5), devices=(X,))
        for number in range(500)
        for run, late_s in LATE
    ]
    calls = {run: {"x": [(3.0 * n + late_s, 3.0 * n + late_s + 0.5) for n in range(500)]} for run, late_s in LATE}
    joint = join(rounds, calls)
    assert len(joint.wanted["x"]) == 1000 and joint.busy_s["x"] == pytest.approx({"a": 250.0, "b": 250.0})
    assert joint.idle.idle == pytest.approx(0.5) == joint.idle.efficiency


def test_memory_and_company_count_in_the_bound() -> None:
    """Jobs of 3 bytes on a device of 4 have no company: 8 s of work take 8 s, where two at once would take 5."""
    wide = Device("x", memory_bytes=4, places=2)
    for memory_bytes, bound_s in ((3, 8.0), (2, 5.0)):
        work = Task(4.0, memory_bytes=memory_bytes)
        both = [Stretch(run, 0.0, 10.0, 3.0, (work,), (wide,), {"x": 1.0}, (1.0, 1.6)) for run in "ab"]
        assert join(both, {"a": {}, "b": {}}).idle.efficiency == pytest.approx(bound_s / 10.0)
