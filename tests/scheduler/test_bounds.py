"""Lower bounds: never above the exact optimum of small instances, and exact where theory gives the optimum."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optimum import Piece, best_assignment, best_schedule
from scipy.optimize import linprog

from scheduler import Device, lower_bound
from scheduler.bounds import (
    Fleet,
    Task,
    federation_bound,
    price_bound,
    remaining_chain_s,
    round_bound,
    slot_bound,
    workload_bound,
)
from scheduler.workload import Federation, Hub, Site, Workload, eligible, nominal

NATION, WARD = frozenset({"nation"}), frozenset({"nation", "ward"})
EXACT = settings(max_examples=25)

small = st.lists(st.integers(1, 20).map(float), min_size=1, max_size=7)
labels = st.sampled_from([frozenset(), NATION, WARD, frozenset({"other"})])
tasks = st.lists(st.builds(Task, st.integers(1, 9).map(float), labels), min_size=1, max_size=8)


def fleet(*speeds: float, labels: tuple[frozenset[str], ...] = (), memory: int | None = None, places: int = 1) -> Fleet:
    carried = labels or (frozenset(),) * len(speeds)
    devices = tuple(Device(f"d{i}", "cpu", own, memory, places) for i, own in enumerate(carried))
    return Fleet(devices, speeds, tuple(float(k) for k in range(1, places + 1)))


@pytest.mark.parametrize(("speeds", "bound_s"), [([1.0, 1.0], 11.0), ([1.0, 2.0], 7.0), ([2.0] * 4, 3.0)])
def test_of_more_jobs_than_slots_some_slot_runs_one_more(speeds: list[float], bound_s: float) -> None:
    """21 jobs of 1 s: neither their sum, shared out, nor the few longest, tried all ways, say so."""
    assert slot_bound([1.0] * 21, speeds) == pytest.approx(bound_s)


def seconds(jobs: list[Task], on: Fleet) -> list[list[float | None]]:
    """Each job's seconds by device."""
    return [
        [
            job.duration_s / speed if eligible(job.labels, job.memory_bytes, device) else None
            for device, speed in zip(on.devices, on.speeds, strict=True)
        ]
        for job in jobs
    ]


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
        ([4, 4, 4, 4, 4], 2, 12.0),
    ],
    ids=["none", "one", "work", "longest", "two-on-one", "third-and-fourth", "even", "three-on-one"],
)
def test_identical_devices_by_hand(durations: list[float], num_devices: int, bound: float) -> None:
    """max(W / m, the longest, the m-th and the next: of m + 1 jobs two share a device; of 2m + 1, three)."""
    assert lower_bound(durations, num_devices) == pytest.approx(bound)


@pytest.mark.parametrize(
    ("durations", "speeds", "bound"),
    [
        ([8, 1, 1], [2, 1], 4.0),  # the longest on the fastest; all work: 10 / 3
        ([8, 7], [2, 1], 7.0),  # 7 on the slow one; spread over both they would take 5, both on the fast one 7.5
        ([6, 6, 6], [3, 1], 6.0),  # one on the slow one, or all on the fast one
        ([6, 6], [4, 1, 1], 3.0),  # both on the fast one
        ([9, 9, 9, 9, 9, 9], [2, 1], 18.0),  # all work: 54 / 3; two on the slow one
    ],
)
def test_different_speeds_by_hand(durations: list[float], speeds: list[float], bound: float) -> None:
    assert slot_bound(durations, speeds) == pytest.approx(bound)


def test_nested_regions_by_hand() -> None:
    """Two devices in the nation, one of them in the ward. 10 s are the ward's: no help from the second device."""
    on = fleet(1, 1, labels=(WARD, NATION))
    jobs = [Task(5, WARD), Task(5, WARD), Task(2, NATION)]
    assert price_bound(jobs, on) == pytest.approx(10.0)
    assert price_bound([*jobs, Task(12, NATION)], on) == pytest.approx(12.0)
    assert round_bound([*jobs, Task(14, NATION)], on) == pytest.approx(14.0)


def test_memory_by_hand() -> None:
    """Two places but 16 GB: 10 GB jobs run one at a time, 6 GB jobs beside them. Memory-seconds alone say 15 s."""
    on = fleet(1, memory=16, places=2)
    assert price_bound([Task(12, memory_bytes=10), Task(20, memory_bytes=6)], on) == pytest.approx(16.0)
    assert price_bound([Task(12, memory_bytes=10), Task(8, memory_bytes=6)], on) == pytest.approx(12.0)
    assert price_bound([Task(12, memory_bytes=10), Task(12, memory_bytes=9)], on) == pytest.approx(24.0)


@pytest.mark.parametrize(("job_bytes", "bound"), [(0, 10.0), (4, 10.0), (5, 30 / 2.2), (6, 20.0), (9, 30.0), (17, 0.0)])
def test_equal_jobs_share_a_device_as_far_as_its_memory_and_its_places_go(job_bytes: int, bound: float) -> None:
    """30 s of work at the total rates 1, 1.5, 2.2, 3, 9 of 1, 2, ... jobs: with 16 GB and four places."""
    device = Device("d", "gpu", frozenset(), 16, 4)
    on = Fleet((device,), (1.0,), (1.0, 1.5, 2.2, 3.0, 9.0))
    assert price_bound([Task(20, memory_bytes=job_bytes), Task(10, memory_bytes=job_bytes)], on) == pytest.approx(bound)


def test_no_work_takes_no_time() -> None:
    assert price_bound([], fleet(1)) == round_bound([], fleet(1)) == slot_bound([], [1.0]) == 0.0


def test_what_company_costs_by_hand() -> None:
    """Two jobs at once get 1.5 times the rate of one: 12 s of work take 8."""
    on = Fleet((Device("d", places=2),), (1.0,), (1.0, 1.5))
    assert price_bound([Task(6), Task(6)], on) == pytest.approx(8.0)


@EXACT
@given(small, st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=1, max_size=3))
def test_no_schedule_beats_the_bound_of_slots(durations: list[float], speeds: list[float]) -> None:
    jobs = [Task(duration) for duration in durations]
    optimum = best_assignment(seconds(jobs, fleet(*speeds)), len(speeds))
    assert slot_bound(durations, speeds) <= optimum + 1e-6
    assert round_bound(jobs, fleet(*speeds)) <= optimum + 1e-6


@EXACT
@given(tasks, st.sampled_from([(1.0, 1.0, 1.0), (2.0, 1.0, 3.0)]))
def test_no_schedule_beats_the_bound_under_residency(jobs: list[Task], speeds: tuple[float, ...]) -> None:
    on = fleet(*speeds, labels=(WARD, NATION, frozenset({"other"})))
    optimum = best_assignment(seconds(jobs, on), 3)
    assert round_bound(jobs, on) <= optimum + 1e-6
    assert round_bound(jobs, on) >= 0.5 * optimum, "and it says something"


@settings(max_examples=12)
@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from([1, 4, 7, 14])), min_size=1, max_size=6))
def test_no_schedule_beats_the_bound_of_memory(jobs: list[tuple[int, int]]) -> None:
    on = fleet(1, 1, memory=16, places=3)
    optimum = best_schedule([Piece((p, p), memory) for p, memory in jobs], [3, 3], [16, 16])
    bound = round_bound([Task(float(p), memory_bytes=memory) for p, memory in jobs], on)
    assert bound <= optimum + 1e-6
    assert bound >= sum(p * memory for p, memory in jobs) / (16 * 2) - 1e-9, "sum(mem p) / (M m) is contained"


@settings(max_examples=12)
@given(
    st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=3),
    st.lists(st.integers(1, 2), min_size=3, max_size=3),
)
def test_no_schedule_beats_the_bound_over_barriers(hubs: list[list[int]], kappa: list[int]) -> None:
    """One global round of up to three hubs with kappa rounds each, on two devices."""
    made = tuple(
        Hub(f"h{h}", tuple(Site(f"s{i}", d) for i, d in enumerate(durations)), rounds)
        for h, (durations, rounds) in enumerate(zip(hubs, kappa, strict=False))
    )
    work = Workload((Federation("f", made),), tuple(Device(f"d{i}") for i in range(2)))
    pieces = [
        Piece((int(site.duration_s),) * 2, 0, f"{hub.name}#{k}")
        for hub in made
        for k in range(hub.rounds)
        for site in hub.sites
    ]
    after = {f"{hub.name}#{k}": [f"{hub.name}#{k - 1}"] for hub in made for k in range(1, hub.rounds)}
    optimum = best_schedule(pieces, [1, 1], [np.inf, np.inf], after)
    bound = workload_bound(work, nominal(work))
    assert bound <= optimum + 1e-6
    assert len(made) > 1 or bound >= 0.75 * optimum


@EXACT
@given(tasks, st.tuples(*[st.floats(0.5, 4)] * 3))
def test_prices_give_the_fractional_optimum(jobs: list[Task], speeds: tuple[float, ...]) -> None:
    """min T such that every job is cut over its devices and no device works longer than T, by SciPy's solver."""
    on = fleet(*speeds, labels=(WARD, NATION, frozenset({"other"})))
    allowed = seconds(jobs, on)
    num = len(jobs) * 3
    whole, load = np.zeros((len(jobs), num + 1)), np.zeros((3, num + 1))
    for j, row in enumerate(allowed):
        for d, duration in enumerate(row):
            whole[j, 3 * j + d] = duration is not None
            load[d, 3 * j + d] = duration or 0.0
    load[:, num] = -1
    found = linprog(np.eye(num + 1)[num], load, np.zeros(3), whole, np.ones(len(jobs)))
    assert price_bound(jobs, on) == pytest.approx(found.fun, rel=1e-7)


def test_prices_give_the_fractional_optimum_of_jobs_that_share_memory() -> None:
    """min T such that sets of jobs at once do all work, none on a device longer than T, by SciPy's solver."""
    for seed in range(40):
        random = np.random.default_rng(seed)
        needs, places = random.integers(1, 13, random.integers(2, 6)).tolist(), int(random.integers(2, 5))
        rates = (1.0, *(1.0 + np.cumsum(np.sort(random.uniform(0.1, 0.9, places - 1))[::-1])).tolist())
        devices = tuple(Device(f"d{i}", "", frozenset(), int(random.choice([12, 16, 24])), places) for i in range(4))
        on = Fleet(devices, tuple(random.uniform(0.3, 3.0, 4).tolist()), rates)
        work = np.exp(2.0 * random.standard_normal(len(needs)))
        done = [
            (number, [held.count(c) * speed * rates[len(held) - 1] / len(held) for c in range(len(needs))])
            for number, (device, speed) in enumerate(zip(on.devices, on.speeds, strict=True))
            for num in range(1, places + 1)
            for held in combinations_with_replacement(range(len(needs)), num)
            if sum(needs[c] for c in held) <= (device.memory_bytes or 0)
        ]
        busy = np.array([[float(number == d) for number, _ in done] + [-1.0] for d in range(4)])
        rows = np.array([[*(-row[c] for _, row in done), 0.0] for c in range(len(needs))])
        found = linprog(np.eye(len(done) + 1)[-1], np.vstack([busy, rows]), [*[0.0] * 4, *-work])
        jobs = [Task(float(took), memory_bytes=need) for took, need in zip(work, needs, strict=True)]
        assert price_bound(jobs, on) == pytest.approx(found.fun, rel=1e-7), seed


@settings(max_examples=60)
@given(tasks, st.floats(0.01, 1000), st.randoms(use_true_random=False))
def test_bounds_scale_with_time_and_ignore_the_order(jobs: list[Task], factor: float, random: object) -> None:
    on = fleet(1.0, 2.0, 3.0, labels=(WARD, NATION, frozenset({"other"})))
    scaled = [Task(factor * job.duration_s, job.labels) for job in jobs]
    random.shuffle(scaled)  # type: ignore[attr-defined]
    assert round_bound(scaled, on) == pytest.approx(factor * round_bound(jobs, on))


@settings(max_examples=60)
@given(tasks, tasks)
def test_more_work_never_lowers_a_bound_and_a_device_more_never_raises_it(jobs: list[Task], more: list[Task]) -> None:
    few = fleet(1.0, 2.0, 3.0, labels=(WARD, NATION, frozenset({"other"})))
    many = fleet(1.0, 2.0, 3.0, 3.0, labels=(WARD, NATION, frozenset({"other"}), WARD))
    assert round_bound(jobs, few) <= round_bound(jobs + more, few) * (1 + 1e-9)
    assert round_bound(jobs, many) <= round_bound(jobs, few) * (1 + 1e-9)


def test_many_memory_needs_are_rounded_down_and_still_bound() -> None:
    """Forty different needs on four places: 9 ... 10 of 16 GB run alone, and the bound says nearly so."""
    on = fleet(1, memory=16_000, places=4)
    jobs = [Task(1.0, memory_bytes=9_000 + 25 * i) for i in range(40)]
    assert 0.5 * 40 <= price_bound(jobs, on) <= 40 + 1e-9


def federation(rounds: int = 3, transfer_s: float = 0.0) -> Federation:
    """Two hubs: one of 4 + 2 s, one round; one of 2 + 1 s, two rounds."""
    first = Hub("a", (Site("x", 4.0), Site("y", 2.0)), 1, frozenset(), transfer_s)
    second = Hub("b", (Site("x", 2.0), Site("y", 1.0)), 2, frozenset(), transfer_s)
    return Federation("f", (first, second), rounds)


def test_a_chain_of_rounds_by_hand() -> None:
    """Four devices: a takes 4, b 2 + 2: a round 4. Two devices: 12 s of work a round: 6. Transfers are waited for."""
    for num_devices, transfer_s, bound in ((4, 0.0, 12.0), (2, 0.0, 18.0), (4, 1.0, 18.0)):
        work = Workload((federation(3, transfer_s),), tuple(Device(f"d{i}") for i in range(num_devices)))
        assert federation_bound(work.federations[0], nominal(work), Fleet.of(work)) == pytest.approx(bound)
        assert workload_bound(work, nominal(work)) == pytest.approx(bound)


def test_federations_share_devices_by_hand() -> None:
    """Two federations of 12 s a round on two devices: 2 x 3 x 12 / 2; one that begins late is waited for."""
    one = federation()
    work = Workload((one, Federation("g", one.hubs, 3)), (Device("d0"), Device("d1")))
    assert workload_bound(work, nominal(work)) == pytest.approx(36.0)
    late = Workload((one, Federation("g", one.hubs, 3, start_s=30.0)), (Device("d0"), Device("d1")))
    assert workload_bound(late, nominal(late)) == pytest.approx(30 + 18.0)


def test_the_remaining_chain_by_hand() -> None:
    """b has one more round of 2 s in this global round; three global rounds of max(1 x 5, 2 x 2) s follow."""
    assert remaining_chain_s({"a": 5.0, "b": 2.0}, {"a": 1, "b": 2}, "b", 1, 3) == 2.0 + 3 * 5.0


def test_a_site_that_sits_out_counts_nowhere() -> None:
    work = Workload((federation(1),), (Device("d"),))
    actual = {key: took for key, took in nominal(work).items() if not key[1].endswith("/y")}
    assert workload_bound(work, actual) == pytest.approx(8.0)
