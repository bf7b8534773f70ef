"""Rollout: it adopts what is predicted to be better by more than the margin, within its budget, and says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import numpy as np
import pytest

from scheduler import Device, Job
from scheduler.forecast import Learned, Oracle
from scheduler.policies.chain_first import ChainFirst
from scheduler.policies.fifo import Fifo
from scheduler.policies.longest_first import LongestFirst
from scheduler.rollout import BUDGET_S, Choice, Rollout, choose
from scheduler.simulator import Simulation, simulate
from scheduler.stand import HubStand, Running, Stand
from scheduler.workload import Federation, Hub, Site, Workload, draw, nominal


@dataclass(frozen=True)
class ShortestFirst:
    """The worst rule for a makespan."""

    def priority(self, job: Job, num_eligible: int) -> tuple[float, ...]:
        return (job.estimate_s or 0.0, float(job.order))

    def reason(self, job: Job) -> str:
        return "shortest"


RULES = {"shortest": ShortestFirst(), "longest": LongestFirst()}
DEVICES = (Device("d0"), Device("d1"))


def workload(*durations: float, rounds: int = 3, devices: tuple[Device, ...] = DEVICES) -> Workload:
    sites = tuple(Site(f"s{i}", float(duration)) for i, duration in enumerate(durations))
    return Workload((Federation("f", (Hub("h", sites),), rounds),), devices)


def ask(
    work: Workload,
    current: str,
    stand: Stand | None = None,
    budget: int = 1000,
    clock: Callable[[], float] | None = None,
) -> Choice:
    begin = Stand(tuple(device.name for device in work.devices)) if stand is None else stand
    return choose(work, Oracle(work, nominal(work)), begin, RULES, current, budget=budget, clock=clock)


def test_the_better_rule_is_adopted_and_named() -> None:
    """1, 1, 1, 1, 4 on two devices: shortest first ends at 2 + 4, longest first at 4; three rounds of it."""
    choice = ask(workload(1, 1, 1, 1, 4), "shortest")
    assert choice.rule == "longest" and choice.ends_s == pytest.approx({"shortest": 18.0, "longest": 12.0})
    assert choice.reason == "predicted to take 12 s, 33% less than shortest"


def test_the_rule_in_use_stays_unless_it_is_beaten_by_more_than_the_margin() -> None:
    """Two equal sites: no rule matters. 99.5 against 100 s: half a percent is too little."""
    assert ask(workload(1, 1), "shortest").rule == "shortest" and ask(workload(1, 1), "longest").rule == "longest"
    small = workload(0.5, 0.5, 99.5)
    choice = ask(small, "shortest")
    assert choice.rule == "shortest" and choice.ends_s["longest"] < choice.ends_s["shortest"]
    assert "more than 1% on shortest" in choice.reason


def test_what_is_not_known_or_not_affordable_changes_nothing() -> None:
    work = workload(1, 1, 1, 1, 4)
    unknown = choose(work, Learned(), Stand(("d0", "d1")), RULES, "shortest")
    assert (unknown.rule, unknown.num_events, unknown.reason) == ("shortest", 0, "not all durations are known yet")
    assert "too small" in ask(work, "shortest", budget=1).reason


@pytest.mark.parametrize("budget", [10, 40, 100])
def test_the_budget_bounds_the_simulated_events_and_what_is_not_played_to_its_end_is_not_compared(budget: int) -> None:
    """200 rounds are more than any budget here, a single one of 5 events is not but for the smallest."""
    choice = ask(workload(1, 1, 1, 1, 4, rounds=200), "shortest", budget=budget)
    assert 0 < choice.num_events <= budget + 2 * len(DEVICES) * len(RULES)
    assert choice.rule == "shortest" and not choice.ends_s and "more to simulate" in choice.reason
    assert ask(workload(1, 1, 1, 1, 4, rounds=1), "shortest", budget=budget).rule == (
        "shortest" if budget == 10 else "longest"
    )


def test_a_clock_bounds_the_seconds() -> None:
    """A clock is looked at once, and then after every step: some 20 here."""
    work = workload(1, 1, 1, 1, 4)
    for step_s, expected in ((BUDGET_S / 5, "shortest"), (BUDGET_S / 1000, "longest")):
        ticks = count()
        assert ask(work, "shortest", clock=lambda ticks=ticks, step_s=step_s: next(ticks) * step_s).rule == expected


def test_a_trial_begins_where_the_run_stands() -> None:
    """d0 is at s0 for 2 more seconds, s1 and s2 wait, one round is over: shortest first 2 + 4, longest first 4 + 1.

    The third round is 4 more for either: s0 of 2, s1 of 1, s2 of 4 on two devices (shortest first: 5).
    """
    work = workload(2, 1, 4, rounds=3)
    hub = HubStand(1, ("f/h/s1", "f/h/s2"), (Running("f/h/s0", "d0", 2.0),))
    stand = Stand(("d0", "d1"), {"f/h": hub}, frozenset({"f"}), frozenset(), 7.0)
    assert ask(work, "shortest", stand).ends_s == pytest.approx({"shortest": 5.0 + 5.0, "longest": 4.0 + 4.0})


def test_a_resumed_simulation_goes_on_as_the_first_would_have() -> None:
    """Stop a run at every moment, begin a second one where it stands: the end is the same."""
    rng = np.random.default_rng(5)
    hubs = tuple(
        Hub(
            f"h{h}", tuple(Site(f"s{i}", float(d)) for i, d in enumerate(rng.uniform(1, 9, 4))), kappa, frozenset(), 0.5
        )
        for h, kappa in enumerate((1, 2))
    )
    work = Workload((Federation("f", hubs, 2), Federation("g", hubs, 1, start_s=3.0)), DEVICES)
    actual = nominal(work)
    oracle = Oracle(work, actual)
    whole = simulate(work, ChainFirst(), actual, oracle)
    run = Simulation(work, ChainFirst(), actual, oracle)
    stops = 0
    while run.step() and not (run.ends_s):
        choice = choose(work, oracle, run.stand(), {"chain": ChainFirst()}, "chain", budget=10_000)
        assert run.now_s + choice.ends_s["chain"] == pytest.approx(whole.makespan_s, rel=0.12)
        stops += 1
    assert stops > 10


def test_a_simulation_takes_the_advice() -> None:
    """The first round knows nothing; then longest first takes over, and keeps the floor."""
    work = workload(1, 1, 1, 1, 4, rounds=5)
    actual = draw(work, np.random.default_rng(1), 0.01)
    forecast = Learned()
    rollout = Rollout(work, forecast, RULES)
    advised = simulate(work, RULES["shortest"], actual, forecast, advise=rollout)
    alone = simulate(work, RULES["shortest"], actual, Learned())
    rules = [choice.rule for choice in rollout.choices]
    assert len(rules) == 5 and rules[0] == "shortest" and rules[2:] == ["longest"] * 3
    assert advised.makespan_s < 0.85 * alone.makespan_s
    assert simulate(work, Fifo(), actual, Learned(), advise=lambda stand: None) == simulate(
        work, Fifo(), actual, Learned()
    )
