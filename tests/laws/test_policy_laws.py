"""What every dispatch policy keeps; the folder is listed. Histories with faults: `test_dispatcher_ledger.py`."""

from __future__ import annotations

import math
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierfl.kinds import load, names
from scheduler import Device, Dispatcher, Job, Policy
from scheduler.policies.chain_first import ChainFirst
from scheduler.policy import Binding

KINDS = names("policy")
FREE = [kind for kind in KINDS if getattr(load("policy", kind), "work_conserving", True)]
BOUND = [kind for kind in KINDS if kind not in FREE]
each_kind = pytest.mark.parametrize("kind", KINDS)

sizes = st.lists(st.tuples(st.integers(0, 50), st.none() | st.floats(0, 2)), min_size=1, max_size=20)


def jobs_of(drawn: list[tuple[int, float | None]], chain_s: float = 0.0) -> list[Job]:
    return [Job("g", f"site-{i}", size, estimate, i, chain_s=chain_s) for i, (size, estimate) in enumerate(drawn)]


def drained(dispatcher: Dispatcher) -> list[tuple[str, Job]]:
    """Let everything run, a round of calls at a time; give (device, job) in the order of decisions."""
    given_out = []
    while decisions := dispatcher.decide():
        for decision in decisions:
            given_out += [(decision.device, job) for job in decision.jobs]
        for decision in decisions:
            dispatcher.done(decision.device, decision.jobs)
    return given_out


def dispatcher_of(policy: Policy, num_devices: int) -> Dispatcher:
    dispatcher = Dispatcher(policy)
    for number in range(num_devices):
        dispatcher.join(Device(f"device-{number}"))
    return dispatcher


def test_the_folder_is_not_empty() -> None:
    assert {"chain_first", "fifo", "greedy", "longest_first"} <= set(FREE)
    assert {"round_robin", "static"} <= set(BOUND)


@each_kind
def test_a_policy_is_a_frozen_value(kind: str) -> None:
    policy = load("policy", kind)()
    assert isinstance(policy, Policy)
    assert isinstance(policy, Binding) == (kind in BOUND)
    assert type(policy).__dataclass_params__.frozen
    assert policy == load("policy", kind)() and hash(policy) == hash(load("policy", kind)())


@each_kind
@settings(max_examples=50)
@given(drawn=sizes, num_eligible=st.integers(0, 9), chain_s=st.floats(0, 1e6))
def test_priorities_are_pure_and_tell_any_two_jobs_of_a_group_apart(
    kind: str, drawn: list[tuple[int, float | None]], num_eligible: int, chain_s: float
) -> None:
    policy = load("policy", kind)()
    jobs = jobs_of(drawn, chain_s)
    keys = [policy.priority(job, num_eligible) for job in jobs]
    assert keys == [load("policy", kind)().priority(job, num_eligible) for job in jobs]
    assert len(set(keys)) == len(jobs)
    assert not any(math.isnan(part) for key in keys for part in key), "a NaN has no place in an order"
    assert all(policy.reason(job).strip() for job in jobs)


@pytest.mark.parametrize("kind", FREE)
@settings(max_examples=50)
@given(drawn=sizes, num_devices=st.integers(1, 4))
def test_every_job_comes_once_and_in_the_order_of_the_policy(
    kind: str, drawn: list[tuple[int, float | None]], num_devices: int
) -> None:
    policy = load("policy", kind)()
    jobs = jobs_of(drawn)
    dispatcher = dispatcher_of(policy, num_devices)
    dispatcher.ask(jobs)
    first = dispatcher.decide()
    assert all(decision.reason == policy.reason(decision.jobs[0]) for decision in first)
    given_out = [job for decision in first for job in decision.jobs]
    for decision in first:
        dispatcher.done(decision.device, decision.jobs)
    given_out += [job for _, job in drained(dispatcher)]
    assert given_out == sorted(jobs, key=lambda job: policy.priority(job, num_devices))


@each_kind
@settings(max_examples=50)
@given(
    drawn=st.lists(st.tuples(sizes, st.sampled_from(["", "de", "fr"])), min_size=1, max_size=4),
    num_devices=st.integers(1, 3),
)
def test_every_job_of_every_run_is_done_where_it_may_be(
    kind: str, drawn: list[tuple[list[tuple[int, float | None]], str]], num_devices: int
) -> None:
    """Nobody starves: whatever waits besides, in the end all is done."""
    dispatcher = dispatcher_of(load("policy", kind)(), num_devices)
    where = {label: f"{label}-device" for label in ("de", "fr")}
    for label, name in where.items():
        dispatcher.join(Device(name, labels=frozenset({label})))
    for run, (sites, label) in enumerate(drawn):
        labels = frozenset({label} if label else ())
        dispatcher.ask(
            Job(f"g{run}", f"s{i}", size, estimate, i, f"run-{run}", labels=labels)
            for i, (size, estimate) in enumerate(sites)
        )
    done = drained(dispatcher)
    assert len({job.key for _, job in done}) == len(done) == sum(len(sites) for sites, _ in drawn)
    assert all(device in where.values() for device, job in done if job.labels)
    assert all(where[label] == device for device, job in done for label in job.labels)


@pytest.mark.parametrize("kind", BOUND)
@settings(max_examples=50)
@given(turn=st.integers(0, 10**6), seat=st.integers(0, 10**6), num_devices=st.integers(1, 9))
def test_a_binding_policy_names_one_of_the_devices_and_deals_evenly(
    kind: str, turn: int, seat: int, num_devices: int
) -> None:
    policy, devices = load("policy", kind)(), [f"device-{i}" for i in range(num_devices)]
    job = jobs_of([(1, None)])[0]
    dealt = [policy.device(job, devices, turn + i, seat + i) for i in range(num_devices)]
    assert sorted(dealt) == devices and dealt[0] == policy.device(job, devices, turn, seat)


@pytest.mark.parametrize("kind", BOUND)
def test_a_binding_policy_leaves_devices_idle_that_a_free_one_would_use(kind: str) -> None:
    """Sites 0 and 2 are x's; while x is at 0, y has done 1 and idles."""
    dispatcher = dispatcher_of(load("policy", kind)(), 2)
    dispatcher.ask(jobs_of([(1, 9.0), (1, 1.0), (1, 9.0)]))
    assert [decision.device for decision in dispatcher.decide()] == ["device-0", "device-1"]
    dispatcher.done("device-1", dispatcher.running("device-1")[0])
    assert dispatcher.decide() == [] and dispatcher.has_waiting("g")


def test_static_is_the_same_device_each_round() -> None:
    dispatcher, had = dispatcher_of(load("policy", "static")(), 3), defaultdict(set)
    for number in range(4):
        jobs = jobs_of([(1, 1.0)] * 7)
        dispatcher.ask(jobs[number:] + jobs[:number])
        for device, job in drained(dispatcher):
            had[job.name].add(device)
    assert len(had) == 7 and all(len(devices) == 1 for devices in had.values())


def order_of(kind: str, drawn: list[tuple[int, float | None]]) -> list[int]:
    policy = load("policy", kind)()
    return [job.order for job in sorted(jobs_of(drawn), key=lambda job: policy.priority(job, 1))]


@pytest.mark.parametrize("kind", ["fifo", *BOUND])
def test_fifo_is_the_order_of_asking(kind: str) -> None:
    assert order_of(kind, [(3, 1.0), (9, 5.0), (1, None)]) == [0, 1, 2]


def test_greedy_is_the_order_of_samples() -> None:
    assert order_of("greedy", [(3, 9.0), (9, 1.0), (3, None), (5, 2.0)]) == [1, 3, 0, 2]


@pytest.mark.parametrize("kind", ["chain_first", "longest_first"])
def test_the_longest_goes_first_after_the_unknown_by_samples(kind: str) -> None:
    drawn = [(3, 1.0), (9, None), (1, 7.0), (20, None), (2, 1.0)]
    assert order_of(kind, drawn) == [3, 1, 2, 0, 4]


def chain_key(chain_s: float, estimate_s: float, num_eligible: int, bucket: float = 0.1) -> tuple[float, ...]:
    return ChainFirst(bucket).priority(Job("g", "s", 1, estimate_s, 0, chain_s=chain_s), num_eligible)


def test_the_remaining_chain_counts_and_within_a_bucket_the_fewest_devices() -> None:
    """1.1 ** 48 = 97.0 and 1.1 ** 49 = 106.7 are a bucket's ends."""
    assert chain_key(100.0, 1.0, 9) < chain_key(0.0, 90.0, 1), "a short job on a long chain"
    assert chain_key(0.0, 98.0, 1) < chain_key(0.0, 106.0, 2), "about equal: the less flexible"
    assert chain_key(0.0, 106.0, 2) < chain_key(0.0, 98.0, 2), "equally flexible: the longer"
    assert chain_key(0.0, 107.0, 2) < chain_key(0.0, 98.0, 1), "not equal any more"
    assert chain_key(0.0, 107.0, 2, bucket=1.0) > chain_key(0.0, 98.0, 1, bucket=1.0), "wider buckets"
    assert chain_key(0.0, 0.0, 1) > chain_key(0.0, 1e-6, 1), "nothing left to do goes last"


@settings(max_examples=50)
@given(left_s=st.floats(1e-6, 1e6), factor=st.floats(1.1001, 100.0), few=st.integers(1, 9), many=st.integers(1, 9))
def test_chains_that_differ_by_more_than_a_bucket_go_by_length(
    left_s: float, factor: float, few: int, many: int
) -> None:
    assert chain_key(0.0, left_s * factor, many) < chain_key(0.0, left_s, few)


@pytest.mark.parametrize("bucket", [0.0, -1.0, math.nan])
def test_a_bucket_has_a_width(bucket: float) -> None:
    with pytest.raises(ValueError, match="bucket must be above 0"):
        ChainFirst(bucket)
