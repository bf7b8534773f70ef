"""No run starves: each gets its minimum share over a window while it has work, and claims nothing while it has none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import Device, Dispatcher, Job
from scheduler.policies.longest_first import LongestFirst
from scheduler.shares import Shares


def work(run: str, num: int, seconds: float, label: str = "") -> list[Job]:
    labels = frozenset({label} if label else ())
    return [Job(run, f"{run}{i}", 1, seconds, i, run=run, labels=labels) for i in range(num)]


def order(ledger: Dispatcher, num: int, device: str = "x") -> tuple[str, list[str]]:
    """Let a device run so many jobs, each as long as predicted; give the runs' names, and the reasons."""
    now_s, runs, reasons = 0.0, "", []
    for _ in range(num):
        (decision,) = ledger.decide(now_s)
        runs, now_s = runs + decision.jobs[0].run, now_s + (decision.jobs[0].estimate_s or 0.0)
        reasons.append(decision.reason)
        ledger.done(device, decision.jobs)
    return runs, reasons


def test_a_run_of_short_jobs_gets_a_quarter_beside_one_of_long_jobs() -> None:
    """b lacks a quarter of all but for its own seconds, and the longest job is 9 s: 45 / 4 - 0 is more (behind), 47 / 4
    - 2 is (behind), 49 / 4 - 4 is not, 58 / 4 - 4 is (behind)."""
    ledger = Dispatcher(LongestFirst(), min_share=0.5)
    ledger.join(Device("x"))
    ledger.ask([*work("a", 9, 9.0), *work("b", 9, 2.0)])
    runs, reasons = order(ledger, 9)
    assert runs == "aaaaabbab"
    assert reasons[5] == "b is below its minimum share; longest waiting (2 s)"
    assert reasons[0] == "longest waiting (9 s)"


@pytest.mark.parametrize(("min_share", "expected"), [(0.0, "aaaaa"), (1.0, "aaabb")])
def test_the_share_is_a_matter_of_choice(min_share: float, expected: str) -> None:
    ledger = Dispatcher(LongestFirst(), min_share=min_share)
    ledger.join(Device("x"))
    ledger.ask([*work("a", 9, 9.0), *work("b", 9, 2.0)])
    assert order(ledger, 5)[0] == expected


def test_a_run_alone_earns_no_claim_and_owes_none() -> None:
    ledger = Dispatcher(LongestFirst(), min_share=0.5)
    ledger.join(Device("x"))
    ledger.ask(work("a", 9, 2.0))
    assert order(ledger, 4)[0] == "aaaa"
    ledger.ask(work("b", 9, 9.0))
    assert order(ledger, 6)[0] == "bbbbba", "as if both had begun now"


def test_work_that_a_device_may_not_take_is_no_claim_on_it() -> None:
    ledger = Dispatcher(LongestFirst(), min_share=0.5)
    ledger.join(Device("x"))
    ledger.ask([*work("a", 4, 9.0), *work("b", 4, 2.0, "fr")])
    assert order(ledger, 4)[0] == "aaaa"


def test_the_window_moves_on() -> None:
    shares = Shares(0.5, 60.0)
    shares.give(0.0, "a", 30.0, ["a", "b"])
    assert shares.behind("b") and not shares.behind("a")
    shares.forget(59.9)
    assert shares.behind("b")
    shares.forget(60.0)
    assert not shares.behind("b")


def test_whoever_is_patient_may_lack_the_longest_piece() -> None:
    shares = Shares(1.0, 60.0, patience=1.0)
    shares.give(0.0, "a", 10.0, ["a", "b"])
    shares.give(0.0, "a", 10.0, ["a", "b"])
    assert not shares.behind("b"), "10 of 20 are b's, and 10 a piece"
    shares.give(0.0, "a", 1.0, ["a", "b"])
    assert shares.behind("b")
    shares.forget(60.0)
    assert not shares.behind("b")


def test_an_unknown_duration_counts_as_the_mean() -> None:
    shares = Shares(1.0, 60.0)
    shares.give(0.0, "a", None, ["a", "b"])
    shares.give(0.0, "b", None, ["a", "b"])
    assert not shares.behind("a") and not shares.behind("b")
    shares.give(0.0, "a", 10.0, ["a", "b"])
    shares.give(0.0, "b", None, ["a", "b"])
    assert shares.behind("b"), "1 + 4 of 16"


@settings(max_examples=60)
@given(
    lengths=st.tuples(st.floats(0.2, 5.0), st.floats(0.2, 5.0), st.floats(0.2, 5.0)),
    num_devices=st.integers(1, 3),
    num_runs=st.integers(2, 3),
    min_share=st.floats(0.0, 1.0),
)
def test_every_run_that_always_has_work_gets_its_share_but_for_one_job_of_each(
    lengths: tuple[float, ...], num_devices: int, num_runs: int, min_share: float
) -> None:
    """At any time and for any window that has not moved: credit >= min_share * total / runs - the longest jobs."""
    ledger = Dispatcher(LongestFirst(), min_share=min_share, window_s=1e9)
    for number in range(num_devices):
        ledger.join(Device(f"d{number}"))
    given = dict.fromkeys("abc"[:num_runs], 0.0)
    for run, seconds in zip(given, lengths, strict=False):
        ledger.ask(work(run, 120, seconds))
    for _ in range(60):
        for decision in ledger.decide():
            (job,) = decision.jobs
            given[job.run] += job.estimate_s or 0.0
        due = min_share * sum(given.values()) / num_runs - max(lengths) * num_runs
        assert min(given.values()) >= due - 1e-6
        busiest = max(ledger.devices, key=lambda name: (ledger.running(name)[0][0].order, name))
        ledger.done(busiest, ledger.running(busiest)[0])
