"""Devices are leased to runs: one holder, none free that a run wants, nobody starves, nothing is preempted."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.leases import SLICE_S, Granted, LeaseDecision, Leases, Recall, Want
from scheduler.shares import MIN_SHARE

LONG = Want((1.0,), 9.0)
SHORT = Want((2.0,), 2.0)


def granted(decisions: list[LeaseDecision]) -> dict[str, str]:
    return {decision.device: decision.run for decision in decisions if isinstance(decision, Granted)}


def recalled(decisions: list[LeaseDecision]) -> dict[str, float]:
    return {decision.device: decision.after_s for decision in decisions if isinstance(decision, Recall)}


def leases_of(runs: str, *devices: str, policy: str = "p") -> Leases:
    leases = Leases(min_share=0.5)
    for device in devices:
        leases.offer(device)
    for run in runs:
        leases.register(run, policy)
    return leases


def number(decisions: list[LeaseDecision], device: str) -> int:
    return next(d.number for d in decisions if isinstance(d, Granted) and d.device == device)


class History:
    """A long drawn history beside a ledger of our own; `check` says what always holds after decisions."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.leases = Leases(min_share=self.random.choice([0.0, 0.5, 1.0]))
        self.devices: set[str] = set()
        self.runs: dict[str, tuple[dict[str, Want], int]] = {}
        self.held: dict[str, tuple[str, int]] = {}
        self.told_back: set[int] = set()
        self.had: dict[str, set[str]] = {}
        self.now_s = 0.0
        self.names = 0
        self.log: list[LeaseDecision] = []
        self.seen: Counter[str] = Counter()

    def step(self) -> None:
        self.now_s += self.random.choice([0.0, 0.01, 0.3, 20.0])
        rules = [self.offer, self.withdraw, self.register, self.leave, *[self.want] * 4, *[self.release] * 4]
        rule = self.random.choice(rules)
        rule()
        self.seen[rule.__name__] += 1
        self.take(self.leases.decide(self.now_s))
        self.check()

    def offer(self) -> None:
        device = self.random.choice("vwxyz")
        self.leases.offer(device)
        self.devices.add(device)

    def withdraw(self) -> None:
        if self.random.random() < 0.3:
            device = self.random.choice("vwxyz")
            self.leases.withdraw(device)
            self.devices.discard(device)
            self.held.pop(device, None)

    def register(self) -> None:
        if len(self.runs) < 4:
            run = f"run-{self.names}"
            self.names += 1
            self.runs[run] = ({}, 0)
            self.had[run] = {device for device in "vw" if self.random.random() < 0.2}
            self.leases.register(run, self.random.choice(["p", "p", "q"]), sorted(self.had[run]), self.now_s)

    def leave(self) -> None:
        if self.runs and self.random.random() < 0.3:
            run = self.random.choice(sorted(self.runs))
            self.leases.leave(run)
            del self.runs[run]
            self.held = {device: lease for device, lease in self.held.items() if lease[0] != run}

    def want(self) -> None:
        if self.runs:
            run = self.random.choice(sorted(self.runs))
            wants = {
                device: Want(
                    (self.random.choice([0.0, 1.0]), self.random.random()), self.random.choice([None, 0.1, 7.0])
                )
                for device in "vwxyz"
                if self.random.random() < 0.6 and self.held.get(device, ("",))[0] != run
            }
            self.runs[run] = (wants, self.random.choice([0, 1, 9]))
            self.leases.want(run, *self.runs[run])

    def release(self) -> None:
        if self.held:
            device = self.random.choice(sorted(self.held))
            run, number = self.held[device]
            self.leases.release(run, device, number + 1, self.now_s)
            assert self.leases.holder(device) == run, "another lease is not this one"
            self.leases.release(run, device, number, self.now_s)
            self.leases.release(run, device, number, self.now_s)
            del self.held[device]

    def take(self, decisions: list[LeaseDecision]) -> None:
        for decision in decisions:
            assert decision.reason and decision.run in self.runs
            self.seen[type(decision).__name__] += 1
            if isinstance(decision, Granted):
                assert decision.device in self.devices and decision.device not in self.held, "one holder at most"
                wants, left = self.runs[decision.run]
                if decision.device in self.had[decision.run] and "before" in decision.reason:
                    self.had[decision.run].discard(decision.device)
                else:
                    assert decision.device in wants and left > 0, "nobody is given what it does not want"
                    self.runs[decision.run] = (wants, left - 1)
                self.held[decision.device] = (decision.run, decision.number)
            elif decision.number:
                assert self.held[decision.device] == (decision.run, decision.number)
                assert decision.number not in self.told_back and 0.0 <= decision.after_s <= SLICE_S
                self.told_back.add(decision.number)
        self.log += decisions

    def check(self) -> None:
        assert {device: self.leases.holder(device) for device in self.devices} == {
            device: self.held.get(device, (None,))[0] for device in self.devices
        }
        for run, (wants, left) in self.runs.items():
            if left:
                for device in set(wants) & self.devices:
                    holder, number = self.held[device]  # a KeyError: free, and wanted
                    assert holder == run or number in self.told_back, "a holder knows that others want it"
        assert self.leases.decide(self.now_s) == []


@pytest.mark.parametrize("seed", range(30))
def test_in_any_history_a_device_has_one_holder_and_is_not_free_while_it_is_wanted(seed: int) -> None:
    history, again = History(seed), History(seed)
    for _ in range(200):
        history.step()
    for _ in range(200):
        again.step()
    assert history.log == again.log, "the same events, the same decisions"
    assert min(history.seen[kind] for kind in ("Granted", "Recall", "release", "leave", "withdraw")) > 0


def test_a_device_stays_with_its_run_without_a_word_until_another_wants_it() -> None:
    leases = leases_of("ab", "x")
    leases.want("a", {"x": LONG}, 5)
    (first,) = leases.decide(0.0)
    assert first == Granted("a", "x", 1, "no other run wants it")
    leases.want("a", {}, 4)
    assert leases.decide(30.0) == []
    leases.want("b", {"x": SHORT}, 1)
    assert leases.decide(60.0) == [Recall("a", "x", 1, 0.0, "b wants it")]
    assert leases.decide(61.0) == [] and leases.holder("x") == "a", "it ends what it runs"
    leases.release("a", "x", 1, 62.0)
    assert leases.decide(62.0) == [Granted("b", "x", 2, "no other run wants it")]


def test_under_contention_a_lease_lasts_a_slice() -> None:
    leases = leases_of("ab", "x")
    leases.want("a", {"x": LONG}, 5)
    leases.decide(0.0)
    leases.want("b", {"x": SHORT}, 5)
    assert recalled(leases.decide(0.1)) == {"x": pytest.approx(SLICE_S - 0.1)}
    leases.want("a", {"x": LONG}, 5)
    leases.release("a", "x", 1, 0.25)
    decisions = leases.decide(0.25)
    assert decisions == [
        Granted("b", "x", 2, "it is below its minimum share"),
        Recall("b", "x", 2, SLICE_S, "a wants it"),
    ]


def test_a_run_with_one_job_gets_one_device_and_its_fastest() -> None:
    leases = leases_of("ab", "x", "y", "z")
    leases.want("a", {"x": Want((1.0,), 4.0), "y": Want((1.0,), 3.0), "z": Want((1.0,), 5.0)}, 1)
    leases.want("b", dict.fromkeys("xyz", SHORT), 9)
    assert granted(leases.decide(0.0)) == {"y": "a", "x": "b", "z": "b"}


def test_what_a_run_had_before_the_ledger_was_lost_it_has_again() -> None:
    leases = leases_of("", "x", "y")
    leases.register("a", "p", ["x"])
    leases.want("a", {"y": LONG}, 9)
    leases.register("b", "p", ["x", "y"])
    decisions = leases.decide(0.0)
    assert granted(decisions) == {"x": "a", "y": "b"}
    assert [d for d in decisions if isinstance(d, Recall)] == [
        Recall("b", "x", 0, 0.0, "another run has it"),
        Recall("b", "y", number(decisions, "y"), SLICE_S, "a wants it"),
    ]


def test_runs_of_different_policies_take_turns() -> None:
    leases = Leases()
    leases.offer("x")
    leases.register("a", "fifo")
    leases.register("b", "longest_first")
    order = ""
    for step in range(6):
        leases.want("a", {"x": Want((0.0,), 1.0)}, 9)
        leases.want("b", {"x": Want((9.0,), 1.0)}, 9)
        decisions = leases.decide(float(step))
        order += granted(decisions)["x"]
        leases.release(order[-1], "x", number(decisions, "x"), step + 1.0)
    assert order == "ababab"


def test_a_run_of_short_jobs_gets_a_quarter_beside_one_of_long_jobs() -> None:
    """b's seconds against a quarter of all: 0 of 9 (behind), 2 of 11 (behind), 4 of 13, 4 of 22 (behind), 6 of 24."""
    leases, order, reasons, now_s = leases_of("ab", "x"), "", [], 0.0
    for _ in range(7):
        leases.want("a", {"x": LONG}, 9)
        leases.want("b", {"x": SHORT}, 9)
        decisions = leases.decide(now_s)
        run = granted(decisions)["x"]
        now_s += {"a": 9.0, "b": 2.0}[run]
        order, reasons = order + run, [*reasons, decisions[0].reason]
        leases.release(run, "x", number(decisions, "x"), now_s)
    assert order == "abbabab"
    assert reasons[1] == "it is below its minimum share"


@settings(max_examples=60)
@given(
    lengths=st.tuples(st.floats(0.3, 5.0), st.floats(0.3, 5.0), st.floats(0.3, 5.0)),
    errors=st.tuples(st.floats(0.2, 5.0), st.floats(0.2, 5.0), st.floats(0.2, 5.0)),
    num_devices=st.integers(1, 3),
    num_runs=st.integers(2, 3),
)
def test_every_run_that_always_wants_gets_its_share_however_wrong_its_predictions(
    lengths: tuple[float, ...], errors: tuple[float, ...], num_devices: int, num_runs: int
) -> None:
    """At any time: seconds had >= min_share * total / runs, but for what is under way when the books are put right."""
    runs, devices = "abc"[:num_runs], [f"d{i}" for i in range(num_devices)]
    leases = Leases(window_s=1e9)
    for device in devices:
        leases.offer(device)
    for run in runs:
        leases.register(run)
    takes = dict(zip(runs, lengths, strict=False))
    said = {run: length * error for (run, length), error in zip(takes.items(), errors, strict=False)}
    had, ends, now_s = dict.fromkeys(runs, 0.0), {}, 0.0
    for _ in range(80):
        for run in runs:
            leases.want(run, {device: Want((float(ord(run)),), said[run]) for device in devices}, 99)
        for decision in leases.decide(now_s):
            if isinstance(decision, Granted):
                ends[decision.device] = (now_s + takes[decision.run], decision.run, decision.number)
        device = min(ends, key=lambda name: (ends[name], name))
        now_s, run, lease = ends.pop(device)
        leases.release(run, device, lease, now_s)
        had[run] += takes[run]
        slack = (max(lengths) + max(said.values())) * (num_devices + num_runs)
        assert min(had.values()) >= MIN_SHARE * sum(had.values()) / num_runs - slack
    assert min(had.values()) > 0, "nobody starves"
