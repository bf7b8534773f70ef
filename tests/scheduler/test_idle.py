"""Idle figures and the floor beside them, on examples that a reader can recompute; longest-first under a clock."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import Dispatcher, Job, lower_bound, measure
from scheduler.policies.fifo import Fifo
from scheduler.policies.longest_first import LongestFirst
from scheduler.policy import Policy


@pytest.mark.parametrize(
    ("durations", "num_devices", "bound"),
    [
        ([], 3, 0.0),
        ([4.0], 3, 4.0),
        ([3, 3, 2, 2, 2], 2, 6.0),
        ([10, 1, 1], 2, 10.0),
        ([3, 3, 3], 2, 6.0),
        ([5, 4, 3, 3], 3, 6.0),
        ([1.0] * 8, 4, 2.0),
    ],
    ids=["none", "one", "work", "longest", "two-on-one", "third-and-fourth", "even"],
)
def test_lower_bounds_by_hand(durations: list[float], num_devices: int, bound: float) -> None:
    """max(W / m, the longest, the m-th and the next together: of m + 1 jobs two share a device)."""
    assert lower_bound(durations, num_devices) == pytest.approx(bound)


def best(durations: Sequence[float], num_devices: int) -> float:
    """The shortest makespan of all assignments, by trying them."""
    return min(
        max(sum(d for d, at in zip(durations, places, strict=True) if at == device) for device in range(num_devices))
        for places in product(range(num_devices), repeat=len(durations))
    )


small = st.lists(st.integers(1, 20).map(float), min_size=1, max_size=7)


@settings(max_examples=60)
@given(small, st.integers(1, 3))
def test_no_schedule_beats_the_lower_bound(durations: list[float], num_devices: int) -> None:
    assert lower_bound(durations, num_devices) <= best(durations, num_devices) + 1e-9


def test_figures_of_a_round_by_hand() -> None:
    """Two devices; jobs 3, 3, 2, 2, 2 (W = 12, LB = 6) that took 7 s: 14 device-seconds, 2 of them idle."""
    idle = measure({"x": 7.0, "y": 5.0}, [(7.0, [3, 3, 2, 2, 2])])
    assert idle.busy == {"x": 1.0, "y": pytest.approx(5 / 7)}
    assert idle.idle == pytest.approx(2 / 14)
    assert idle.floor == 0.0
    assert idle.avoidable == pytest.approx(2 / 14)
    assert idle.efficiency == pytest.approx(6 / 7)
    assert idle.makespan_s == 7.0


def test_a_dominant_site_is_structural_not_avoidable() -> None:
    """One job of 10 and two of 1 on two devices: LB = 10 = makespan; 12 of 20 device-seconds at best."""
    idle = measure({"x": 10.0, "y": 2.0}, [(10.0, [10, 1, 1])])
    assert (idle.idle, idle.floor) == (pytest.approx(0.4), pytest.approx(0.4))
    assert idle.avoidable == pytest.approx(0.0) and idle.efficiency == pytest.approx(1.0)


def test_rounds_add_up_each_with_its_own_bound() -> None:
    """LB = 4 + 3; W = 8 on 2 devices; 10 s of barriers: idle 12/20, floor 1 - 8/14, efficiency 7/10."""
    idle = measure({"x": 5.0, "y": 3.0}, [(6.0, [4, 1]), (4.0, [3])])
    assert idle.idle == pytest.approx(0.6)
    assert idle.floor == pytest.approx(1 - 8 / 14)
    assert idle.efficiency == pytest.approx(0.7)
    assert idle.makespan_s == 10.0


def test_a_device_that_did_nothing_counts_as_idle() -> None:
    idle = measure({"x": 4.0, "y": 0.0}, [(4.0, [4.0])])
    assert idle.busy["y"] == 0.0 and idle.idle == pytest.approx(0.5) and idle.floor == pytest.approx(0.5)


def test_nothing_measured_is_no_figure_of_idleness() -> None:
    idle = measure({"x": 0.0}, [])
    assert (idle.idle, idle.floor, idle.efficiency, idle.makespan_s) == (0.0, 0.0, 1.0, 0.0)
    assert measure({}, []).busy == {}
    assert measure({"x": 0.0}, [(2.0, [])]).idle == 1.0


@settings(max_examples=60)
@given(st.lists(small, min_size=1, max_size=3), st.integers(1, 3), st.floats(1.0, 3.0))
def test_figures_stay_within_their_bounds(rounds: list[list[float]], num_devices: int, slack: float) -> None:
    """For any schedule that there can be: makespan at least the bound, busy at most what was worked."""
    spans = [(lower_bound(durations, num_devices) * slack, durations) for durations in rounds]
    worked = sum(map(sum, rounds))
    idle = measure({f"d{i}": worked / num_devices for i in range(num_devices)}, spans)
    assert 0.0 <= idle.floor <= idle.idle + 1e-9 <= 1.0 + 1e-9
    assert idle.efficiency == pytest.approx(1 / slack)


def run(policy: Policy, durations: Sequence[float], num_devices: int) -> float:
    """The makespan under a dispatcher of depth 1 and a clock that jumps from end to end."""
    dispatcher = Dispatcher(policy, depth=1)
    for device in range(num_devices):
        dispatcher.join(f"d{device}")
    dispatcher.ask(Job("g", f"s{i}", 1, duration, i) for i, duration in enumerate(durations))
    now, ends = 0.0, [(0.0, "", ())]
    while ends:
        now, device, jobs = heapq.heappop(ends)
        dispatcher.done(device, jobs)
        for decision in dispatcher.decide():
            spent_s = sum(job.estimate_s or 0.0 for job in decision.jobs)
            heapq.heappush(ends, (now + spent_s, decision.device, decision.jobs))
    return now


def test_longest_first_by_hand() -> None:
    """Graham's example: 3, 3, 2, 2, 2 on two devices takes 7 where 6 is possible; FIFO's order here takes 7, too."""
    assert run(LongestFirst(), [2, 2, 2, 3, 3], 2) == 7.0
    assert best([2, 2, 2, 3, 3], 2) == 6.0
    assert run(LongestFirst(), [1, 1, 1, 1, 4], 2) == 4.0
    assert run(Fifo(), [1, 1, 1, 1, 4], 2) == 6.0


@settings(max_examples=60)
@given(small, st.integers(1, 3))
def test_longest_first_keeps_grahams_bound(durations: list[float], num_devices: int) -> None:
    """At most 4/3 - 1/(3m) of the optimum (Graham 1969)."""
    optimum = best(durations, num_devices)
    makespan = run(LongestFirst(), durations, num_devices)
    assert optimum - 1e-9 <= makespan <= (4 / 3 - 1 / (3 * num_devices)) * optimum + 1e-9
