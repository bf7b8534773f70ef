"""Idle figures and the floor beside them, on examples that a reader can recompute; longest-first and its guarantee."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optimum import best_assignment

from scheduler import Device, lower_bound, measure
from scheduler.forecast import Oracle
from scheduler.idle import figures
from scheduler.policies.fifo import Fifo
from scheduler.policies.longest_first import LongestFirst
from scheduler.policy import Policy
from scheduler.simulator import simulate
from scheduler.workload import Federation, Hub, Site, Workload, nominal

small = st.lists(st.integers(1, 20).map(float), min_size=1, max_size=7)


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


def test_faster_devices_weigh_more_by_hand() -> None:
    """Speeds 2 and 1 for 10 s: 30 s of capacity. 16 s of work: the fast one busy for 5, the slow one for 6."""
    idle = figures(
        {"x": 5.0, "y": 6.0}, {"x": 10.0, "y": 10.0}, work_s=16.0, bound_s=8.0, makespan_s=10.0, speeds={"x": 2.0}
    )
    assert idle.idle == pytest.approx(1 - 16 / 30) and idle.floor == pytest.approx(1 - 16 / 24)
    assert idle.efficiency == 0.8 and idle.goodput == pytest.approx(16 / 30)
    assert idle.busy == {"x": 0.5, "y": 0.6}


def test_a_late_device_counts_from_when_it_was_there_by_hand() -> None:
    """Of 10 s y was there for 4, and all of 14 device-seconds were worked: no idle time, no floor."""
    idle = figures({"x": 10.0, "y": 4.0}, {"x": 10.0, "y": 4.0}, work_s=14.0, bound_s=7.0, makespan_s=10.0)
    assert (idle.idle, idle.floor, idle.busy["y"]) == (0.0, 0.0, 1.0)


def test_company_may_do_more_than_there_are_devices() -> None:
    """Two jobs of 6 s alone on one device took 8 s together."""
    idle = figures({"x": 8.0}, {"x": 8.0}, work_s=12.0, bound_s=8.0, makespan_s=8.0)
    assert idle.goodput == 1.5 and idle.idle == idle.floor == 0.0


def test_the_order_in_which_seconds_were_added_is_no_efficiency_above_one() -> None:
    found = figures({"a": 0.6}, {"a": 0.6}, work_s=0.6, bound_s=0.1 + 0.2 + 0.3, makespan_s=0.6)
    assert 0.1 + 0.2 + 0.3 > 0.6
    assert found.efficiency == 1.0


def test_an_efficiency_above_one_is_shown_for_what_it_is() -> None:
    """A bound that a schedule beats is wrong, and must not be cut to look right."""
    assert figures({"x": 1.0}, {"x": 1.0}, work_s=1.0, bound_s=2.0, makespan_s=1.0).efficiency == 2.0


def makespan(policy: Policy, durations: Sequence[float], num_devices: int) -> float:
    """The end of one round whose durations are known."""
    sites = tuple(Site(f"s{i}", duration) for i, duration in enumerate(durations))
    devices = tuple(Device(f"d{i}") for i in range(num_devices))
    work = Workload((Federation("f", (Hub("h", sites),)),), devices)
    return simulate(work, policy, nominal(work), Oracle(work, nominal(work))).makespan_s


def test_longest_first_by_hand() -> None:
    """Graham's example: 3, 3, 2, 2, 2 on two devices takes 7 where 6 is possible; FIFO's order here takes 7, too."""
    assert makespan(LongestFirst(), [2, 2, 2, 3, 3], 2) == 7.0
    assert best_assignment([[d, d] for d in (2, 2, 2, 3, 3)], 2) == pytest.approx(6.0)
    assert makespan(LongestFirst(), [1, 1, 1, 1, 4], 2) == 4.0
    assert makespan(Fifo(), [1, 1, 1, 1, 4], 2) == 6.0


@settings(max_examples=30)
@given(small, st.integers(1, 3))
def test_longest_first_keeps_grahams_bound(durations: list[float], num_devices: int) -> None:
    """At most 4/3 - 1/(3m) of the optimum (Graham 1969)."""
    optimum = best_assignment([[duration] * num_devices for duration in durations], num_devices)
    took = makespan(LongestFirst(), durations, num_devices)
    assert optimum - 1e-6 <= took <= (4 / 3 - 1 / (3 * num_devices)) * optimum + 1e-6
