"""What every dispatch policy keeps; the folder is listed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierfl.kinds import load, names
from scheduler import Dispatcher, Job, Policy

KINDS = names("policy")
each_kind = pytest.mark.parametrize("kind", KINDS)

sizes = st.lists(st.tuples(st.integers(0, 50), st.none() | st.floats(0, 2)), min_size=1, max_size=20)


def jobs_of(drawn: list[tuple[int, float | None]]) -> list[Job]:
    return [Job("g", f"site-{i}", size, estimate, i) for i, (size, estimate) in enumerate(drawn)]


def test_the_folder_is_not_empty() -> None:
    assert {"fifo", "greedy", "longest_first"} <= set(KINDS)


@each_kind
def test_a_policy_is_a_frozen_value(kind: str) -> None:
    policy = load("policy", kind)()
    assert isinstance(policy, Policy)
    assert type(policy).__dataclass_params__.frozen
    assert policy == load("policy", kind)() and hash(policy) == hash(load("policy", kind)())


@each_kind
@settings(max_examples=50)
@given(drawn=sizes)
def test_priorities_are_pure_and_tell_any_two_jobs_of_a_group_apart(
    kind: str, drawn: list[tuple[int, float | None]]
) -> None:
    policy = load("policy", kind)()
    jobs = jobs_of(drawn)
    keys = [policy.priority(job) for job in jobs]
    assert keys == [load("policy", kind)().priority(job) for job in jobs]
    assert len(set(keys)) == len(jobs)
    assert not any(math.isnan(part) for key in keys for part in key), "a NaN has no place in an order"
    assert all(policy.reason(job).strip() for job in jobs)


@each_kind
@settings(max_examples=50)
@given(drawn=sizes, num_devices=st.integers(1, 4))
def test_every_job_comes_once_and_in_the_order_of_the_policy(
    kind: str, drawn: list[tuple[int, float | None]], num_devices: int
) -> None:
    policy = load("policy", kind)()
    jobs = jobs_of(drawn)
    dispatcher = Dispatcher(policy)
    for number in range(num_devices):
        dispatcher.join(f"device-{number}")
    dispatcher.ask(jobs)
    given_out: list[Job] = []
    while decisions := dispatcher.decide():
        for decision in decisions:
            assert decision.reason == policy.reason(decision.jobs[0])
            given_out.extend(decision.jobs)
        for decision in decisions:
            dispatcher.done(decision.device, decision.jobs)
    assert given_out == sorted(jobs, key=policy.priority)


def order_of(kind: str, drawn: list[tuple[int, float | None]]) -> list[int]:
    return [job.order for job in sorted(jobs_of(drawn), key=load("policy", kind)().priority)]


def test_fifo_is_the_order_of_asking() -> None:
    assert order_of("fifo", [(3, 1.0), (9, 5.0), (1, None)]) == [0, 1, 2]


def test_greedy_is_the_order_of_samples() -> None:
    assert order_of("greedy", [(3, 9.0), (9, 1.0), (3, None), (5, 2.0)]) == [1, 3, 0, 2]


def test_longest_first_takes_the_unknown_by_samples_then_the_longest() -> None:
    drawn = [(3, 1.0), (9, None), (1, 7.0), (20, None), (2, 1.0)]
    assert order_of("longest_first", drawn) == [3, 1, 2, 0, 4]
