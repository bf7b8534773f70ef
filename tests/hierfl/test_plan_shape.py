"""A tree in the simulator: what fits is exact, what does not is slower, and the tree's bound is never beaten."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierfl.planning.case import Case
from hierfl.planning.shape import Shape, SiteWork, asked, rounds_per_round
from scheduler.participations.sample import Sample
from scheduler.policies.chain_first import ChainFirst
from scheduler.policies.fifo import Fifo
from scheduler.policies.longest_first import LongestFirst
from scheduler.policies.static import Static
from scheduler.views import Device
from tiers.federation import Federation, Hub, Site, parent

POLICIES = (ChainFirst(), Fifo(), LongestFirst(), Static())
DE, FR = frozenset({"de"}), frozenset({"fr"})


def case_of(root: Hub, works: dict[str, SiteWork], devices: tuple[Device, ...], rounds: int = 1) -> Case:
    tree = Federation(root)
    took = {
        (hub, number): {site: works[site].seconds for site in sites}
        for hub, number, sites in asked(tree, works, rounds, 0)
        if sites
    }
    return Case(tree, works, took, devices, rounds, {})


def seconds(**works: float | SiteWork) -> dict[str, SiteWork]:
    """Work by path, `a__b` for a/b."""
    made = {name.replace("__", "/"): work for name, work in works.items()}
    return {path: work if isinstance(work, SiteWork) else SiteWork(work, 1) for path, work in made.items()}


def pool(num: int) -> tuple[Device, ...]:
    return tuple(Device(f"d{i}") for i in range(num))


def test_hubs_of_one_round_are_exact_at_any_depth() -> None:
    """Sites 4, 3, 2 and 1 under hubs in hubs, on two devices: 4 + 1 and 3 + 2 take 5 s, as without any hub."""
    deep = Hub("r", (Site("a"), Hub("h", (Site("b"), Hub("i", (Site("c"), Site("d")))))))
    case = case_of(deep, seconds(r__a=4, r__h__b=3, r__h__i__c=2, r__h__i__d=1), pool(2), rounds=3)
    outcome = case.simulate(LongestFirst())
    assert case.shape.notes == () and case.shape.lock_step == 1
    assert outcome.makespan_s == pytest.approx(15.0) and case.bound_s == pytest.approx(15.0)
    assert case.rounds_s(outcome) == pytest.approx([5.0, 5.0, 5.0])


def test_a_hub_with_rounds_of_its_own_by_hand() -> None:
    """h takes 2 rounds of 3 s while r's own site takes 5 s on the other device: 6 s."""
    root = Hub("r", (Site("a"), Hub("h", (Site("b"),), rounds=2)))
    case = case_of(root, seconds(r__a=5, r__h__b=3), pool(2))
    assert case.shape.notes == ()
    assert case.simulate(Fifo()).makespan_s == case.bound_s == 6.0
    assert sorted(case.actual) == [
        ("r/r#0", "r/r/r/a"),
        ("r/r/h#0", "r/r/h/r/h/b"),
        ("r/r/h#1", "r/r/h/r/h/b"),
    ]


def test_rounds_inside_rounds_run_in_lock_step_and_say_so() -> None:
    """h does 2 rounds, in each of which i does 2 of 1 s and c one of 2 s, on two devices.

    Without lock-step i's rounds run beside c: 2 s, twice. In lock-step c's 2 s lie in i's first step: 2 + 1, twice.
    """
    root = Hub("r", (Hub("h", (Hub("i", (Site("b"),), rounds=2), Site("c")), rounds=2),))
    case = case_of(root, seconds(r__h__i__b=1, r__h__c=2), pool(2))
    assert case.bound_s == 4.0 and case.simulate(Fifo()).makespan_s == 6.0
    (note,) = case.shape.notes
    assert note.startswith("members of r/h have rounds of their own") and "slower than a run" in note


def test_mixed_residency_under_a_hub_with_rounds_puts_all_in_lock_step() -> None:
    """h's sites may not share devices but its barrier: 2 rounds of 3 s; r's own site of 4 s lies in the first step."""
    root = Hub("r", (Hub("h", (Site("b"), Site("c")), rounds=2), Site("a")))
    works = seconds(r__h__b=SiteWork(3, 1, 1, DE), r__h__c=SiteWork(1, 1, 1, FR), r__a=SiteWork(4, 1, 1, FR))
    devices = (Device("berlin", labels=DE), Device("paris", labels=FR))
    case = case_of(root, works, devices, rounds=2)
    assert case.shape.lock_step == 2 and "different residency" in case.shape.notes[0]
    assert case.rounds_s(case.simulate(Fifo())) == [8.0, 8.0], "4 + 1 on paris, then 3 on berlin"
    assert case.bound_s == 12.0, "what no order can beat: berlin has 3 + 3 in each round, paris 4 + 1 + 1"


def test_who_is_not_asked_does_nothing() -> None:
    root = Hub("r", tuple(Site(f"s{i}") for i in range(10)), participation=Sample(fraction=0.3))
    works = {f"r/s{i}": SiteWork(1.0, 1) for i in range(10)}
    case = case_of(root, works, pool(3), rounds=4)
    assert [len(own) for own in case.took.values()] == [3] * 4
    assert len({tuple(own) for own in case.took.values()}) > 1, "another draw in each round"
    assert case.simulate(Fifo()).makespan_s == 4.0


@dataclass
class Drawn:
    """A drawn tree with its works."""

    root: Hub
    works: dict[str, SiteWork]


@st.composite
def trees(draw: st.DrawFn) -> Drawn:
    """Trees of up to four tiers, kappa up to 3, two nations."""
    works: dict[str, SiteWork] = {}

    def node(name: str, above: str, depth: int) -> Site | Hub:
        path = f"{above}/{name}"
        if depth == 0 or draw(st.booleans()):
            labels = draw(st.sampled_from([frozenset[str](), DE, FR]))
            works[path] = SiteWork(draw(st.integers(1, 9)), 1, labels=labels)
            return Site(name)
        members = tuple(node(f"n{i}", path, depth - 1) for i in range(draw(st.integers(1, 3))))
        return Hub(name, members, rounds=draw(st.integers(1, 3)))

    members = tuple(node(f"n{i}", "r", 2) for i in range(draw(st.integers(1, 3))))
    return Drawn(Hub("r", members, rounds=2), works)


FLEET = (Device("d", labels=DE), Device("f", labels=FR), Device("any", labels=DE | FR))


@settings(max_examples=60)
@given(trees(), st.sampled_from(POLICIES), st.integers(1, 2))
def test_no_schedule_beats_the_bound_and_no_work_is_lost(drawn: Drawn, policy: object, rounds: int) -> None:
    case = case_of(drawn.root, drawn.works, FLEET, rounds)
    outcome = case.simulate(policy)  # type: ignore[arg-type]
    assert outcome.makespan_s >= case.bound_s - 1e-9
    jobs = {site: rounds * rounds_per_round(case.tree, parent(site) or "") for site in drawn.works}
    assert len(case.actual) == sum(jobs.values()), "no two jobs have one name"
    assert sum(case.actual.values()) == pytest.approx(
        sum(drawn.works[site].seconds * num for site, num in jobs.items())
    )
    assert sum(case.rounds_s(outcome)) == pytest.approx(outcome.makespan_s)


@settings(max_examples=60)
@given(trees())
def test_jobs_of_one_round_of_a_hub_share_a_round_of_the_workload_and_rounds_follow_each_other(drawn: Drawn) -> None:
    """A later round of any hub lies in a later round of the workload's hub, or the barrier between would be lost."""
    tree = Federation(drawn.root)
    shape = Shape(tree, drawn.works)
    for site in drawn.works:
        hub = parent(site) or ""
        numbers = [int(shape.key(site, number)[0].rpartition("#")[2]) for number in range(6)]
        assert numbers == sorted(set(numbers))
        others = [path for path in tree.members(hub) if path in drawn.works]
        assert all(
            shape.key(path, 3)[0].rpartition("#")[2] == shape.key(site, 3)[0].rpartition("#")[2] for path in others
        )


def test_pauses_are_part_of_the_bound() -> None:
    root = Hub("r", (Site("a"), Hub("h", (Site("b"),), rounds=2)))
    plain = case_of(root, seconds(r__a=1, r__h__b=3), pool(2))
    case = replace(plain, transfer_s={"r": 0.25, "r/h": 0.5, "r/unknown": 9.0})
    assert case.bound_s == 7.0 and case.simulate(Fifo()).makespan_s == 7.0
