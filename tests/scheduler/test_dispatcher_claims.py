"""Claims on unequal devices: long work may leave a slow idle device to short work, and no device idles for it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import Device, Dispatcher, Job, Policy
from scheduler.claims import NUM_CLAIMS, pools
from scheduler.eligibility import Reach
from scheduler.policies.chain_first import ChainFirst
from scheduler.policies.fifo import Fifo
from scheduler.waiting import Lane

SPEEDS = {"slow": 1.0, "fast": 4.0}
SLOW, FAST = Device("a", "slow"), Device("f", "fast")


def predict(job: Job, device: Device) -> float | None:
    return None if job.estimate_s is None else job.estimate_s / SPEEDS[device.kind]


def job(name: str, estimate_s: float | None, run: str = "", **fields: object) -> Job:
    return Job(name, name, 1, estimate_s, 0, run, **fields)  # type: ignore[arg-type]


def ledger_of(*devices: Device, policy: Policy | None = None, **options: object) -> Dispatcher:
    ledger = Dispatcher(policy or ChainFirst(), 1, predict, **options)  # type: ignore[arg-type]
    for device in devices:
        ledger.join(device)
    return ledger


def decided(ledger: Dispatcher, now_s: float = 0.0) -> list[tuple[str, str]]:
    return [(decision.device, decision.jobs[0].name) for decision in ledger.decide(now_s)]


def test_long_work_leaves_a_slow_device_to_short_work() -> None:
    """The fast device is busy for 2 s. 7 s of work end there after 3.75, on the slow one after 7; 1 s after 4 or 1."""
    ledger = ledger_of(SLOW, FAST)
    ledger.ask([job("first", 8.0), job("long", 7.0), job("short", 1.0)])
    first, second = ledger.decide()
    assert (first.device, first.jobs[0].name) == ("f", "first")
    assert (second.device, second.jobs[0].name) == ("a", "short")
    assert second.reason == "1 before it end sooner on faster devices; longest remaining chain (1 s)"
    ledger.done("a", second.jobs)
    ledger.ask([job("other", 5.0)])
    assert decided(ledger, 1.0) == [("a", "other")], "long: after 2.75 or 7; other then: after 4 or 5. It loses less"
    ledger.done("f", first.jobs)
    assert decided(ledger, 2.0) == [("f", "long")]


def test_a_device_does_not_idle_where_all_would_rather_wait() -> None:
    ledger = ledger_of(SLOW, FAST)
    ledger.ask([job("first", 8.0), job("long", 7.0)])
    assert decided(ledger) == [("f", "first"), ("a", "long")]


def test_what_is_claimed_counts_for_those_who_come_after() -> None:
    """Six of 7 s: after the first claim, of 2 + 1.75 s, the second would end after 5.5, and the third after 7.25."""
    ledger = ledger_of(SLOW, FAST, policy=ChainFirst())
    ledger.ask([job("first", 8.0), *(job(f"j{i}", 7.0) for i in range(6))])
    assert decided(ledger) == [("f", "first"), ("a", "j2")], "by name among equals"


def test_the_time_that_has_passed_counts() -> None:
    """At 7 s the 40 s of work on the fast device have 3 to go: 5 s of work end there after 4.25; at 5.5, after 5.75."""
    for now_s, expected in ((5.5, "long"), (7.0, "short")):
        ledger = ledger_of(FAST)
        ledger.ask([job("first", 40.0)])
        ledger.decide()
        ledger.join(SLOW)
        ledger.ask([job("long", 5.0), job("short", 1.0)])
        assert decided(ledger, now_s) == [("a", expected)]


def test_an_equally_fast_device_is_not_waited_for_nor_one_that_is_paused() -> None:
    ledger = ledger_of(FAST, Device("g", "fast"), SLOW)
    ledger.ask([job("first", 8.0), job("second", 8.0)])
    assert decided(ledger) == [("f", "first"), ("g", "second")]
    ledger.done("g", ledger.running("g")[0])
    ledger.ask([job("third", 7.0), job("fourth", 1.0)])
    assert decided(ledger) == [("g", "third"), ("a", "fourth")]
    ledger = ledger_of(SLOW, FAST)
    ledger.ask([job("first", 8.0)])
    ledger.decide()
    ledger.pause("f")
    ledger.ask([job("long", 7.0), job("short", 1.0)])
    assert decided(ledger) == [("a", "long")]


@pytest.mark.parametrize("policy", [ChainFirst(), Fifo()])
def test_unknown_durations_wait_for_nothing_and_fifo_never_does(policy: Policy) -> None:
    ledger = ledger_of(SLOW, FAST, policy=policy)
    unknown = policy == ChainFirst()
    ledger.ask([job("first", 8.0), job("long", None if unknown else 7.0), job("short", 1.0)])
    if unknown:
        assert dict(decided(ledger)) == {"a": "long", "f": "first"}
    else:
        assert decided(ledger) == [("f", "first"), ("a", "long")]


@pytest.mark.parametrize(
    ("other", "expected"), [(SLOW, {"a": "tiny", "f": "small"}), (Device("g", "fast"), {"f": "large", "g": "small"})]
)
def test_while_no_duration_is_known_unequal_devices_begin_with_the_smallest(
    other: Device, expected: dict[str, str]
) -> None:
    """The largest would hold up all on a slow device that nobody knows to be slow; equal devices begin with it."""
    sizes = {"large": 30, "small": 20, "tiny": 10}
    ledger = ledger_of(FAST, other)
    ledger.ask([Job("g", name, size, None, order) for order, (name, size) in enumerate(sizes.items())])
    decisions = ledger.decide()
    assert {d.device: d.jobs[0].name for d in decisions} == expected
    assert all(("until it is known how fast" in d.reason) == (other is SLOW) for d in decisions)


@pytest.mark.parametrize(("min_share", "expected"), [(0.0, "b1"), (1.0, "a1")])
def test_a_run_below_its_share_claims_first(min_share: float, expected: str) -> None:
    """The fast device has 2 s to go, a has had all its 60. 7 s of a's and 6 s of b's both end sooner there: in this
    order after 3.75 and 5.25, so b's lose 0.75 on the slow one; b's first after 3.5 and 5.25, so a's lose 1.75."""
    ledger = ledger_of(FAST, min_share=min_share)
    ledger.ask([job("b1", 6.0, "b")])
    for begun_s in (0.0, 20.0, 40.0):
        ledger.ask([job("first", 80.0, "a")])
        assert decided(ledger, begun_s) == [("f", "first")]
        if begun_s < 40.0:
            ledger.done("f", ledger.running("f")[0])
    ledger.join(SLOW)
    ledger.ask([job("a1", 7.0, "a")])
    assert decided(ledger, 58.0) == [("a", expected)]


def test_among_equal_devices_the_one_that_least_waits_for() -> None:
    """Two jobs can run on x only, so one that may choose takes y; no name tells it."""
    here = frozenset({"de"})
    for labels_of_a, expected in ((here, "b"), (frozenset[str](), "a")):
        others = here - labels_of_a
        ledger = ledger_of(Device("a", "slow", labels_of_a), Device("b", "slow", others), policy=Fifo())
        ledger.ask([job("free", 1.0), job("p", 1.0, labels=here), job("q", 1.0, labels=here)])
        first, _ = ledger.decide()
        assert (first.device, first.jobs[0].name) == (expected, "free")


@pytest.mark.parametrize("num_jobs", [300, 3000])
def test_an_event_looks_at_so_many_claims_at_most(num_jobs: int) -> None:
    """All would rather wait for one of a hundred fast devices that are about to be free; each is asked of two kinds."""
    asked = 0

    def counted(job: Job, device: Device) -> float | None:
        nonlocal asked
        asked += 1
        return predict(job, device)

    ledger = Dispatcher(ChainFirst(), 1, counted)
    for number in range(100):
        ledger.join(Device(f"f{number:02}", "fast"))
    ledger.ask(job(f"j{number:04}", 8.0) for number in range(num_jobs))
    ledger.decide(0.0)
    ledger.join(SLOW)
    asked = 0
    (decision,) = ledger.decide(1.9)
    assert decision.device == "a" and asked <= 2 * NUM_CLAIMS + 1


@settings(max_examples=60)
@given(drawn=st.lists(st.frozensets(st.integers(0, 9), min_size=1, max_size=3), max_size=12))
def test_pools_share_no_device_and_are_as_small_as_can_be(drawn: list[frozenset[int]]) -> None:
    lanes = [Lane(("", "", "", 0, Reach(sorts, (), False), None), 0) for sorts in drawn]
    parts = pools(lanes)
    assert sorted(map(id, (lane for part in parts for lane in part))) == sorted(map(id, lanes))
    reached = [frozenset().union(*(lane.reach.sorts for lane in part)) for part in parts]
    assert sum(map(len, reached)) == len(frozenset().union(*reached))
    for part in parts:
        grown, left = set(part[0].reach.sorts), part[1:]
        while joined := [lane for lane in left if not grown.isdisjoint(lane.reach.sorts)]:
            grown.update(*(lane.reach.sorts for lane in joined))
            left = [lane for lane in left if lane not in joined]
        assert not left, "nothing in a pool could stand apart"
