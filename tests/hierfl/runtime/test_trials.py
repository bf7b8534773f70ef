"""Orders that are tried before a round: what is simulated, what is adopted and why, and when there is no trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from types import SimpleNamespace

import pytest

from hierfl.runtime.trials import MAX_JOBS, Need, Trials, stage, try_orders
from scheduler import Device, Job
from scheduler.participations.deadline import Deadline
from scheduler.policies.chain_first import ChainFirst
from scheduler.policies.fifo import Fifo
from scheduler.policies.longest_first import LongestFirst
from scheduler.rollout import BUDGET_S
from scheduler.workload import Workload
from tiers.federation import Federation, Hub, Site
from tiers.topologies.cyclic import Cyclic

DE = frozenset({"de"})
NEEDS = {"world/us/a": Need(1), "world/us/b": Need(1), "world/c": Need(2, DE), "world/d": Need(3)}
SECONDS = {"world/us/a": 10.0, "world/us/b": 30.0, "world/c": 100.0, "world/d": 20.0}
TWO = (Device("x", labels=DE), Device("y"))


def tree(**options: object) -> Federation:
    us = Hub("us", (Site("a"), Site("b")), rounds=2)
    return Federation(Hub("world", (us, Site("c"), Site("d")), rounds=9, **options))  # type: ignore[arg-type]


def seconds(site: str, kind: str) -> float | None:
    return SECONDS[site] / {"cpu": 1.0, "gpu": 4.0}[kind]


def ticking(step_s: float) -> Callable[[], float]:
    """A clock that goes on by so much whenever it is looked at."""
    ticks = count()
    return lambda: next(ticks) * step_s


def sites_of(work: Workload) -> dict[str, tuple[int, float]]:
    return {site.name: (hub.rounds, site.duration_s) for _, hub, site in work.sites()}


def test_a_round_of_the_root_has_every_hub_as_often_as_it_runs_within_it() -> None:
    staged = stage(tree(), NEEDS, TWO, (1.0,), seconds)
    assert isinstance(staged, Workload)
    expected = {"world/us/a": (2, 10.0), "world/us/b": (2, 30.0), "world/c": (1, 100.0), "world/d": (1, 20.0)}
    assert sites_of(staged) == expected
    assert {hub.name: hub.labels for hub in staged.federations[0].hubs}["world [de]"] == DE
    assert staged.federations[0].rounds == 1 and staged.devices == TWO


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"predict": lambda site, kind: None}, "not all durations are known"),
        ({"predict": lambda site, kind: 0.01}, "is too short for a trial"),
        ({"devices": TWO[1:]}, "not all durations are known"),
        ({"tree": tree(participation=Deadline())}, "world does not wait for all"),
        ({"tree": tree(topology=Cyclic())}, "world asks its members one after another"),
        ({"tree": Federation(Hub("world", (Hub("us", (Site("a"),), rounds=MAX_JOBS + 1),)))}, "too many for a trial"),
    ],
)
def test_where_a_trial_cannot_pay_or_be_trusted_there_is_none(change: Mapping[str, object], reason: str) -> None:
    given = {"tree": tree(), "needs": NEEDS, "devices": TWO, "rates": (1.0,), "predict": seconds, **change}
    found = stage(**given)  # type: ignore[arg-type]
    assert isinstance(found, str) and reason in found


SKEWED = Federation(Hub("world", tuple(Site(name) for name in "abcde"), rounds=3))


def skewed(site: str, kind: str) -> float:
    return 40.0 if site == "world/e" else 10.0


def test_the_policys_own_order_stays_unless_another_is_better() -> None:
    needs = dict.fromkeys(SKEWED.sites, Need(1))
    given = (SKEWED, needs, TWO, (1.0,), skewed)
    adopted, choice = try_orders(ChainFirst(), *given, ticking(0.0))
    assert adopted == ChainFirst() and choice.rule == "chain_first"
    assert choice.ends_s["chain_first"] == pytest.approx(40.0) and choice.ends_s["fifo"] == pytest.approx(60.0)


def test_what_takes_longer_than_its_budget_changes_nothing() -> None:
    needs = dict.fromkeys(SKEWED.sites, Need(1))
    policy = ChainFirst()
    adopted, choice = try_orders(policy, SKEWED, needs, TWO, (1.0,), skewed, ticking(BUDGET_S / 3))
    assert (
        adopted is policy
        and choice.reason == "there is more to simulate than 3 rules can be tried on"
        and not choice.ends_s
    )
    _, choice = try_orders(policy, SKEWED, needs, TWO, (1.0,), skewed, ticking(BUDGET_S / 1000))
    assert len(choice.ends_s) == 3


class Run:
    """As much of a run as trials see; `said` and `used` in order."""

    def __init__(self, policy: object, held_s: object = None) -> None:
        self.said: list[tuple[str, str, str]] = []
        self.used: list[object] = []
        self.predict: Callable[..., float | None] = lambda kind, site, units, device: seconds(site, device)
        sites = {site: SimpleNamespace(labels=frozenset(), training=SimpleNamespace(batch_size=8)) for site in NEEDS}
        config = SimpleNamespace(federation=tree(), sites=sites, runtime=SimpleNamespace(policy=policy))
        estimates = SimpleNamespace(
            predict=lambda *given: self.predict(*given), need_bytes=lambda size: 0, rates=lambda device: (1.0,)
        )
        crew = SimpleNamespace(
            estimates=estimates,
            gate=SimpleNamespace(held_s=lambda: held_s),
            devices={device.name: device for device in TWO},
            use=self.used.append,
        )
        scribe = SimpleNamespace(notice=lambda *said: self.said.append(said))
        self.trials = Trials(config, crew, scribe, ticking(0.0))  # type: ignore[arg-type]

    def begin(self) -> None:
        self.trials.begin(dict.fromkeys(NEEDS, 5), {site: self.predict("train", site, 5, "cpu") for site in NEEDS})


def shortest_first(policy: ChainFirst, job: Job, num_eligible: int) -> tuple[float, ...]:
    """The worst order for a round: c, 100 s, begins last."""
    return (job.estimate_s or 0.0, float(job.order))


def test_an_order_is_adopted_for_its_round_and_both_ends_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChainFirst, "priority", shortest_first)
    run = Run(ChainFirst())
    run.begin(), run.begin()
    assert run.used == [LongestFirst()] and len(run.said) == 1, "said once while it lasts"
    assert run.said[0][:2] == ("info", "world")
    assert run.said[0][2].startswith("longest_first orders this round: predicted to take")
    run.predict = lambda kind, site, units, device: 0.01
    run.begin()
    assert run.used.pop() == ChainFirst()
    assert run.said.pop()[2] == "chain_first orders again: a round is too short for a trial"
    run.predict = lambda kind, site, units, device: seconds(site, device)
    run.begin()
    assert run.used.pop() == LongestFirst() and run.said.pop()
    run.predict = lambda *given: None
    run.begin()
    assert run.used[1:] == [ChainFirst()]
    assert run.said[1][2] == "chain_first orders again: not all durations are known yet"


@pytest.mark.parametrize(("policy", "held_s"), [(Fifo(), None), (ChainFirst(rollout=False), None), (None, {"x": 1.0})])
def test_nothing_is_tried_for_other_policies_on_shared_devices_or_where_it_is_not_wished(
    policy: object, held_s: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChainFirst, "priority", shortest_first)
    run = Run(policy, held_s)
    run.begin()
    assert not run.used and not run.said
