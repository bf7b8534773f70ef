"""A tree in simulated time, by hand and by law: rounds end when the hubs' policies say so, and no bound is beaten."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierfl.config.schema import Runtime
from hierfl.planning.case import Case
from hierfl.planning.devices import seated
from hierfl.planning.shape import Pauses, SiteWork, asked
from hierfl.planning.simulation import simulate
from hierfl.runtime.estimates import Estimates
from scheduler.participations.buffered import Buffered
from scheduler.participations.deadline import Deadline
from scheduler.participations.sample import Sample
from scheduler.policies.chain_first import ChainFirst
from scheduler.policies.fifo import Fifo
from scheduler.policies.longest_first import LongestFirst
from scheduler.policies.static import Static
from scheduler.views import Device
from tiers.federation import Federation, Hub, Site, parent, rounds_per_round
from tiers.topologies.allreduce import AllReduce
from tiers.topologies.cyclic import Cyclic
from tiers.topologies.peer import Peer
from tiers.topologies.star import Star
from tiers.topologies.swarm import Swarm
from tiers.topology import Topology

POLICIES = (ChainFirst(), Fifo(), LongestFirst(), Static())
EARLY = (
    Buffered(goal=1),
    Buffered(goal=3, staleness=2),
    Deadline(after_s=2.0, quorum=0.5, weight=0.5),
    Deadline(after_s=1.0, quorum=0.1, weight=0.1, late="refuse"),
    Deadline(after_s=1.0, quorum=0.1, weight=0.1, staleness=1),
)
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
    ran = simulate(case, LongestFirst())
    assert ran.makespan_s == pytest.approx(15.0) and case.bound_s == pytest.approx(15.0)
    assert ran.rounds_s() == pytest.approx([5.0, 5.0, 5.0])


def test_a_hub_with_rounds_of_its_own_by_hand() -> None:
    """h takes 2 rounds of 3 s while r's own site takes 5 s on the other device: 6 s."""
    root = Hub("r", (Site("a"), Hub("h", (Site("b"),), rounds=2)))
    case = case_of(root, seconds(r__a=5, r__h__b=3), pool(2))
    assert simulate(case, Fifo()).makespan_s == case.bound_s == 6.0


def test_rounds_inside_rounds_run_beside_their_siblings() -> None:
    """h does 2 rounds, in each of which i does 2 of 1 s and c one of 2 s, on two devices: 2 s, twice."""
    root = Hub("r", (Hub("h", (Hub("i", (Site("b"),), rounds=2), Site("c")), rounds=2),))
    case = case_of(root, seconds(r__h__i__b=1, r__h__c=2), pool(2))
    assert case.bound_s == simulate(case, Fifo()).makespan_s == 4.0


def test_members_that_take_turns_leave_devices_idle_and_no_schedule_helps() -> None:
    """A cycle of 4, 3 and a star of two sites of 2 s, on two devices: 4 + 3 + 2 s a round; the floor says so."""
    root = Hub("r", (Site("a"), Site("b"), Hub("h", (Site("c"), Site("d")))), topology=Cyclic())
    case = case_of(root, seconds(r__a=4, r__b=3, r__h__c=2, r__h__d=2), pool(2), rounds=3)
    ran = simulate(case, LongestFirst())
    assert ran.rounds_s() == pytest.approx([9.0, 9.0, 9.0]) and case.bound_s == pytest.approx(27.0)
    figures = case.figures(ran)
    assert figures.idle == figures.floor == pytest.approx(1 - 11 / 18) and figures.efficiency == pytest.approx(1.0)


def test_a_cycle_below_a_star_is_one_chain() -> None:
    """h's sites of 1 and 2 s take turns in each of 2 rounds, while r's own site takes 5 s: 6 s."""
    root = Hub("r", (Site("a"), Hub("h", (Site("b"), Site("c")), rounds=2, topology=Cyclic("by_size"))))
    case = case_of(root, seconds(r__a=5, r__h__b=1, r__h__c=2), pool(3))
    assert simulate(case, Fifo()).makespan_s == case.bound_s == 6.0
    once = case_of(replace(root, members=(Site("a"), replace(root.members[1], rounds=1))), case.sites, pool(3))
    assert simulate(once, Fifo()).makespan_s == once.bound_s == 5.0


@pytest.mark.parametrize("topology", [Swarm(), AllReduce(), Peer()])
def test_members_that_exchange_take_what_a_star_takes(topology: Topology) -> None:
    """Sites of 4 and 3 s and a hub of two rounds of 1 and 0.5 s, on two devices: its second begins at 4.5 s."""
    hub = Hub("h", (Site("c"), Site("d")), rounds=2, topology=topology)
    case = case_of(
        Hub("r", (Site("a"), Site("b"), hub), topology=topology),
        seconds(r__a=4, r__b=3, r__h__c=1, r__h__d=0.5),
        pool(2),
        rounds=3,
    )
    star = case_of(
        Hub("r", (Site("a"), Site("b"), replace(hub, topology=Star())), topology=Star()), case.sites, pool(2), rounds=3
    )
    assert simulate(case, Fifo()).rounds_s() == simulate(star, Fifo()).rounds_s() == pytest.approx([5.5] * 3)


def test_the_member_with_the_longest_chain_behind_it_comes_first() -> None:
    """One device: h's a is short, but b, 9 s, comes after it on the other; so a goes before r's own site."""
    h = Hub("h", (Site("a"), Site("b")), topology=Cyclic())
    root = Hub("r", (Site("c"), h))
    works = {"r/c": SiteWork(3, 1, labels=DE), "r/h/a": SiteWork(1, 1, labels=DE), "r/h/b": SiteWork(9, 1, labels=FR)}
    case = case_of(root, works, (Device("d", labels=DE), Device("f", labels=FR)))
    assert simulate(case, ChainFirst()).makespan_s == 10.0


def test_sites_of_different_residency_share_a_hubs_rounds() -> None:
    """h's sites share no device but a barrier: 2 rounds of 3 s; r's own site of 2 s comes in between."""
    root = Hub("r", (Hub("h", (Site("b"), Site("c")), rounds=2), Site("a")))
    works = seconds(r__h__b=SiteWork(3, 1, 1, DE), r__h__c=SiteWork(1, 1, 1, FR), r__a=SiteWork(2, 1, 1, FR))
    devices = (Device("berlin", labels=DE), Device("paris", labels=FR))
    case = case_of(root, works, devices)
    assert simulate(case, ChainFirst()).rounds_s() == [6.0], "paris: c, a until 3, c again"
    assert case.bound_s == 6.0


def test_who_is_not_asked_does_nothing() -> None:
    root = Hub("r", tuple(Site(f"s{i}") for i in range(10)), participation=Sample(fraction=0.3))
    works = {f"r/s{i}": SiteWork(1.0, 1) for i in range(10)}
    case = case_of(root, works, pool(3), rounds=4)
    assert [len(own) for own in case.took.values()] == [3] * 4
    assert len({tuple(own) for own in case.took.values()}) > 1, "another draw in each round"
    ran = simulate(case, Fifo())
    assert ran.makespan_s == 4.0
    done = [
        sorted(job.name for d in ran.decisions if d.round_number == n for job in d.assign.jobs) for n in (1, 2, 3, 4)
    ]
    assert done == [sorted(own) for own in case.took.values()], "the simulated machines draw as the bound does"


def test_a_deadline_closes_without_the_slowest_who_counts_when_he_comes() -> None:
    """Four sites of 1 s on three devices beside one of 5 s on its own: rounds of 2 s, the slow one in the third."""
    policy = Deadline(after_s=1.5, quorum=0.8, weight=0.8)
    root = Hub("r", (Site("slow"), *(Site(f"s{i}") for i in range(4))), participation=policy)
    works = {"r/slow": SiteWork(5.0, 1)} | {f"r/s{i}": SiteWork(1.0, 1) for i in range(4)}
    case = case_of(root, works, pool(4), rounds=3)
    said: list[Any] = []
    ran = simulate(case, LongestFirst(), emit=said.append)
    closed = [record for record in said if type(record).__name__ == "RoundClosed"]
    assert [record.time_s for record in closed] == [2.0, 4.0, 5.5], "the deadline holds: 1.5 s after the third began"
    assert "slow" in closed[0].missing and closed[2].carried.keys() == {"slow"}
    figures = case.figures(ran)
    assert figures.round_s == pytest.approx(5.5 / 3)
    assert figures.idle == pytest.approx(1 - (5.0 + 4 * 2 + 3) / (4 * 5.5)), "what the end cuts off does not count"


def test_a_buffer_steps_at_its_goal_by_hand() -> None:
    """Two updates a step: b comes every second and trains on from the newest model, a every two."""
    root = Hub("r", (Site("a"), Site("b")), participation=Buffered(goal=2))
    case = case_of(root, seconds(r__a=2, r__b=1), pool(2), rounds=3)
    ran = simulate(case, Fifo())
    assert ran.rounds_s() == [2.0, 2.0, 2.0], "b waits for the step, since it would only send the same again"
    alone = case_of(replace(root, participation=Buffered(goal=1)), seconds(r__a=2, r__b=1), pool(2), rounds=4)
    assert simulate(alone, Fifo()).rounds_s() == [1.0, 1.0, 0.0, 1.0], "b, then both at once, then b"


def test_semi_synchronous_tiers() -> None:
    """Each region waits for its own; the nation for one of two: the slow region is late in every other round."""
    regions = Hub("fast", (Site("a"),)), Hub("slow", (Site("b"),))
    root = Hub("r", regions, participation=Deadline(after_s=1.0, quorum=0.5, weight=0.5))
    case = case_of(root, seconds(r__fast__a=1, r__slow__b=1.5), pool(2), rounds=3)
    assert simulate(case, Fifo()).rounds_s() == [1.0, 1.0, 1.0]
    waiting = case_of(Hub("r", regions), seconds(r__fast__a=1, r__slow__b=1.5), pool(2), rounds=3)
    assert simulate(waiting, Fifo()).rounds_s() == [1.5, 1.5, 1.5]


def test_a_round_that_is_given_up_ends_the_simulation_and_says_so() -> None:
    root = Hub("r", (Site("a"), Site("b")), participation=Deadline(after_s=1.0, quorum=1.0, give_up_s=2.0))
    ran = simulate(case_of(root, seconds(r__a=1, r__b=9), pool(2), rounds=3), Fifo())
    assert ran.rounds_s() == [2.0] and ran.gave_up.startswith("r gives up its round 1: 1 of 2 members")


def test_a_second_federation_beside_the_first_takes_what_it_leaves() -> None:
    """Each has a site of 2 s and one of 1 s; both together fill two devices for 3 s."""
    case = case_of(Hub("r", (Site("a"), Site("b"))), seconds(r__a=2, r__b=1), pool(2))
    ran = simulate(case, LongestFirst(), beside=[case])
    figures = case.figures(ran)
    assert len(ran.rounds) == 2 and ran.makespan_s == 3.0
    assert figures.idle == pytest.approx(0.0) and figures.efficiency == pytest.approx(1.0)


@dataclass
class Drawn:
    """A drawn tree with its works."""

    root: Hub
    works: dict[str, SiteWork]


@st.composite
def trees(draw: st.DrawFn) -> Drawn:
    """Trees of up to four tiers, kappa up to 3, two nations; members of some hubs take turns."""
    topologies = st.sampled_from([Star(), Star(), Cyclic("shuffled")])
    works: dict[str, SiteWork] = {}

    def node(name: str, above: str, depth: int) -> Site | Hub:
        path = f"{above}/{name}"
        if depth == 0 or draw(st.booleans()):
            labels = draw(st.sampled_from([frozenset[str](), DE, FR]))
            works[path] = SiteWork(draw(st.integers(1, 9)), 1, labels=labels)
            return Site(name)
        members = tuple(node(f"n{i}", path, depth - 1) for i in range(draw(st.integers(1, 3))))
        return Hub(name, members, rounds=draw(st.integers(1, 3)), topology=draw(topologies))

    members = tuple(node(f"n{i}", "r", 2) for i in range(draw(st.integers(1, 3))))
    return Drawn(Hub("r", members, rounds=2, topology=draw(topologies)), works)


FLEET = (Device("d", labels=DE), Device("f", labels=FR), Device("any", labels=DE | FR))


@settings(max_examples=60)
@given(trees(), st.sampled_from(POLICIES), st.integers(1, 2))
def test_no_schedule_beats_the_bound_and_no_work_is_lost(drawn: Drawn, policy: object, rounds: int) -> None:
    case = case_of(drawn.root, drawn.works, FLEET, rounds)
    ran = simulate(case, policy)  # type: ignore[arg-type]
    assert ran.makespan_s >= case.bound_s - 1e-9
    jobs = {site: rounds * rounds_per_round(case.tree, parent(site) or "") for site in drawn.works}
    assert case.num_jobs == sum(jobs.values()) == sum(len(decision.assign.jobs) for decision in ran.decisions)
    assert case.work_s == pytest.approx(sum(drawn.works[site].seconds * num for site, num in jobs.items()))
    assert ran.work_s() == pytest.approx(case.work_s) and sum(ran.rounds_s()) == pytest.approx(ran.makespan_s)


@settings(max_examples=60)
@given(trees(), st.sampled_from(POLICIES), st.sampled_from(EARLY), st.data())
def test_hubs_that_close_early_do_all_rounds_and_beat_no_bound(
    drawn: Drawn, policy: object, early: object, data: st.DataObject
) -> None:
    """Any hub may close early, at any tier: all rounds are done, and no more work than the devices can do."""
    rounds = 3
    hubs = data.draw(st.sets(st.sampled_from(sorted(Federation(drawn.root).hubs)), min_size=1))
    case = case_of(_with(drawn.root, "r", hubs, early), drawn.works, FLEET, rounds)
    ran = simulate(case, policy)  # type: ignore[arg-type]
    assert len(ran.rounds_s()) == rounds and not ran.gave_up
    figures = case.figures(ran)
    assert 0.0 <= figures.floor <= figures.idle + 1e-9 <= 1.0 and figures.efficiency <= 1.0 + 1e-9
    assert simulate(case, policy) == ran, "the same again"  # type: ignore[arg-type]


def _with(hub: Hub, path: str, early: set[str], policy: object) -> Hub:
    """Give a tree in which these hubs close early."""
    members = tuple(_with(m, f"{path}/{m.name}", early, policy) if isinstance(m, Hub) else m for m in hub.members)
    changed: dict[str, Any] = {"participation": policy, "topology": Star()} if path in early else {}
    return replace(hub, members=members, **changed)


def test_a_call_begins_after_the_gap_that_was_measured_of_it() -> None:
    """a's call was held up for half a second in its first round, and b's in neither: 2.5 s, then 2 s."""
    case = case_of(Hub("r", (Site("a"), Site("b"))), seconds(r__a=1, r__b=1), pool(1), rounds=2)
    held_up = replace(case, pauses=Pauses(gaps_s={("r/a", 0): 0.5}))
    assert simulate(held_up, Fifo()).rounds_s() == pytest.approx([2.5, 2.0])


@pytest.mark.parametrize("first", ["r/a", "r/b", "r/c"])
def test_a_gap_counts_once_though_its_call_begins_with_another_site(first: str) -> None:
    """Three sites of a ms, put together in calls as they are short; one was held up for half a second in round 1."""
    case = case_of(Hub("r", (Site("a"), Site("b"), Site("c"))), seconds(r__a=1e-3, r__b=1e-3, r__c=1e-3), pool(1), 2)
    held_up = replace(case, pauses=Pauses(gaps_s={(first, 0): 0.5}))
    assert simulate(held_up, ChainFirst()).rounds_s() == pytest.approx([0.503, 0.003])


def test_what_learns_shares_a_device_only_once_it_is_known_what_one_does_alone() -> None:
    """Two sites of a second on one device of two places, which does both at once as fast as each alone."""
    case = case_of(Hub("r", (Site("a"), Site("b"))), seconds(r__a=1, r__b=1), (Device("d", places=2),), rounds=8)
    shared = replace(case, rates=(1.0, 2.0))
    assert simulate(shared, Fifo()).rounds_s() == pytest.approx([1.0] * 8)
    found = simulate(shared, Fifo(), estimates=Estimates("")).rounds_s()
    assert found[0] == pytest.approx(2.0) and found[-1] == pytest.approx(1.0)


def test_threads_of_a_process_are_one_device_in_its_log() -> None:
    found = seated(Runtime(kind="local"), ["worker-0", "worker-1"])
    assert found["worker-0"] == found["worker-1"] and found["worker-0"].places == 2


def test_pauses_are_part_of_the_bound() -> None:
    root = Hub("r", (Site("a"), Hub("h", (Site("b"),), rounds=2)))
    plain = case_of(root, seconds(r__a=1, r__h__b=3), pool(2))
    pauses = Pauses({"r/h": 0.25}, {"r": 0.5, "r/h": 0.25, "r/unknown": 9.0})
    case = replace(plain, pauses=pauses)
    assert case.bound_s == 7.0 and simulate(case, Fifo()).makespan_s == 7.5, "the root's own pause comes after h's"
    as_it_was = replace(pauses, opened_s={("r/h", 0): 1.25})
    assert simulate(replace(plain, pauses=as_it_was), Fifo()).makespan_s == 8.5
