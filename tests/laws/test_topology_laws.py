"""What every topology's compute plan keeps; the folder is listed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hub_schedules import ORDERS
from hypothesis import given, settings
from hypothesis import strategies as st

from hierfl.kinds import load, names
from tiers import HUB, Gather, Mix, Partners, Topology, Train

KINDS = names("topology")
TOPOLOGIES = [load("topology", kind)(**fields) for kind in KINDS for fields in [{}, *ORDERS.get(kind, [])]]
each_kind = pytest.mark.parametrize("topology", TOPOLOGIES, ids=str)
weights_of = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 99), min_size=1, max_size=8)
partners_of = st.builds(Partners, st.just("w/h"), st.integers(0, 100), st.integers(0, 3), weights_of)


def partners(weights: Mapping[str, int], round_number: int = 0, seed: int = 0, hub: str = "w") -> Partners:
    return Partners(hub, round_number, seed, weights)


def test_the_folder_is_not_empty() -> None:
    assert {"star", "cyclic", "swarm", "allreduce", "peer"} <= set(KINDS)


@each_kind
def test_a_topology_is_a_frozen_value(topology: Topology) -> None:
    assert isinstance(topology, Topology)
    assert type(topology).__dataclass_params__.frozen  # type: ignore[attr-defined]


@each_kind
@settings(max_examples=50)
@given(who=partners_of)
def test_every_member_trains_once_and_the_hub_has_the_last_word_where_it_is_the_centre(
    topology: Topology, who: Partners
) -> None:
    plan = topology.plan(who)
    assert sorted(plan.trained) == sorted(who.weights)
    last = plan.steps[-1]
    assert not isinstance(last, Train) and set(last.of) <= set(who.weights)
    assert (last.at == HUB) == topology.has_centre == (not plan.exchange)


@each_kind
@settings(max_examples=50)
@given(who=partners_of)
def test_without_a_centre_every_update_is_mixed_and_nothing_passes_through_the_hub(
    topology: Topology, who: Partners
) -> None:
    steps = topology.plan(who).exchange
    assert topology.has_centre or {name for step in steps if isinstance(step, Mix) for name in step.of} == {
        *who.weights
    }
    assert all({step.at, *step.of} <= who.weights.keys() for step in steps)
    parts: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for step in steps:
        if isinstance(step, Mix) and step.part is not None:
            parts.setdefault(step.of, []).append(step.part)
    for of, slices in parts.items():
        assert sorted(slices) == [(k, len(slices)) for k in range(len(slices))], f"each slice of {of} once"


@each_kind
@settings(max_examples=50)
@given(who=partners_of)
def test_steps_come_after_what_they_need(topology: Topology, who: Partners) -> None:
    trained: set[str] = set()
    places = {HUB}
    for step in topology.plan(who).steps:
        if isinstance(step, Train):
            assert step.source in places or (topology.keeps_models and step.source == step.member)
            trained.add(step.member)
            places.add(step.member)
        else:
            assert step.of and len(set(step.of)) == len(step.of)
            assert set(step.of) <= trained
            places.add(step.at)


@each_kind
@settings(max_examples=50)
@given(who=partners_of)
def test_stages_are_the_members_in_order_one_by_one_where_the_topology_says_so(
    topology: Topology, who: Partners
) -> None:
    plan = topology.plan(who)
    assert tuple(name for stage in plan.stages for name in stage) == plan.trained
    assert all(plan.stages) and (max(map(len, plan.stages)) == 1 or not topology.sequential)
    assert topology.sequential or len(plan.stages) == 1


@each_kind
@settings(max_examples=20)
@given(who=partners_of)
def test_the_same_round_has_the_same_plan(topology: Topology, who: Partners) -> None:
    again = replace(topology)  # type: ignore[type-var]
    assert again == topology and topology.plan(who) == again.plan(replace(who, weights=dict(who.weights)))


def test_a_star_trains_all_from_the_hub_and_mixes_all_at_it() -> None:
    plan = load("topology", "star")().plan(partners({"a": 1, "b": 2}))
    assert plan.steps == (Train("a", HUB), Train("b", HUB), Mix(("a", "b"), HUB))


def test_a_cycle_trains_and_mixes_one_after_another() -> None:
    plan = load("topology", "cyclic")().plan(partners({"b": 1, "a": 2}))
    assert plan.steps == (Train("b"), Mix(("b",)), Train("a"), Mix(("a",)))


def test_in_a_swarm_the_reducing_member_rotates() -> None:
    swarm = load("topology", "swarm")()
    plans = [swarm.plan(partners({"b": 1, "a": 2, "c": 3}, number)) for number in range(4)]
    assert [plan.exchange for plan in plans] == [(Mix(("b", "a", "c"), at),) for at in "bacb"]
    assert plans[0].steps[:-1] == (Train("b"), Train("a"), Train("c"))


def test_a_drawn_leader_follows_from_seed_hub_and_round_alone() -> None:
    swarm, weights = load("topology", "swarm")(leader="drawn"), dict.fromkeys("abcd", 1)
    leaders = [swarm.plan(partners(weights, number)).exchange[0].at for number in range(800)]
    assert all(150 < leaders.count(name) < 250 for name in "abcd"), "all are as likely"
    mixed = dict.fromkeys("dbca", 7)
    assert leaders[:20] == [swarm.plan(partners(mixed, number)).exchange[0].at for number in range(20)]
    others = [{"seed": 1}, {"hub": "w/h"}]
    assert all(leaders != [swarm.plan(partners(weights, n, **o)).exchange[0].at for n in range(800)] for o in others)


def test_in_an_allreduce_each_adds_a_slice_and_gathers_all() -> None:
    plan = load("topology", "allreduce")().plan(partners({"a": 1, "b": 2}))
    both = ("a", "b")
    assert plan.exchange == (Mix(both, "a", (0, 2)), Mix(both, "b", (1, 2)), Gather(both, "a"), Gather(both, "b"))


def test_too_many_members_of_an_allreduce_are_refused() -> None:
    allreduce = load("topology", "allreduce")()
    assert "257 members are more than the 256" in allreduce.misfit(partners({f"m{i}": 1 for i in range(257)}))
    assert allreduce.misfit(partners({f"m{i}": 1 for i in range(256)})) == ""


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"graph": "sphere"}, "graph is 'sphere'"),
        ({"graph": "small_world", "neighbours": 3}, "neighbours is 3; an even number"),
        ({"graph": "small_world", "rewire": 1.5}, "rewire is 1.5; from 0 to 1"),
        ({"gossip_steps": 0}, "gossip_steps is 0; at least 1"),
        ({"graph": "given"}, "edges belong to graph given, and it needs some"),
        ({"edges": {"a": ["b"]}}, "edges belong to graph given"),
        ({"weights": "given"}, "weights are given with the edges of graph given; graph is complete"),
        ({"graph": "given", "weights": "given", "edges": {"a": ("b",)}}, "edges need their weights"),
        (
            {"graph": "given", "weights": "given", "edges": {"a": {"b": 0.2}, "b": {"a": 0.3}}},
            "give b and a two weights, 0.2 and 0.3",
        ),
        ({"graph": "given", "weights": "given", "edges": {"a": {"b": 0.7, "c": 0.4}}}, "weights of a add up to 1.1"),
        ({"graph": "given", "weights": "given", "edges": {"a": {"b": -0.1}}}, "weight of a and b is -0.1; from 0 to 1"),
    ],
)
def test_peers_that_make_no_sense_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load("topology", "peer")(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"graph": "given", "edges": {"a": ("b",), "x": ("a",)}}, "edges names x, which the hub has not"),
        ({"graph": "given", "edges": {"a": ("b",)}}, "not connected: no way from a to c, d; add edges"),
        ({"graph": "erdos_renyi", "probability": 0.01}, "no way from a to b, c, d; raise probability"),
    ],
)
def test_members_with_no_way_to_each_other_are_named(fields: dict[str, Any], said: str) -> None:
    topology = load("topology", "peer")(**fields)
    assert said in topology.misfit(partners(dict.fromkeys("abcd", 1)))


def test_peers_train_their_own_models_and_mix_with_their_neighbours_turn_by_turn() -> None:
    plan = load("topology", "peer")(graph="ring", gossip_steps=2).plan(partners(dict.fromkeys("abcd", 5)))
    assert plan.steps[:4] == tuple(Train(name, name) for name in "abcd")
    assert [(step.at, step.of, step.turn) for step in plan.exchange if isinstance(step, Mix)] == [
        (at, of, turn)
        for turn in (0, 1)
        for at, of in zip("abcd", map(tuple, ("abd", "abc", "bcd", "acd")), strict=True)
    ]
    assert {part for step in plan.exchange for part in step.weights} == {Fraction(1, 3)}


def test_the_graph_stays_whoever_takes_part_in_a_round() -> None:
    ring, members = load("topology", "peer")(graph="ring"), tuple("abcd")
    plan = ring.plan(Partners("w", 0, 0, {"a": 1, "b": 1, "c": 1}, members))
    assert [step.of for step in plan.exchange] == [("a", "b"), ("a", "b", "c"), ("b", "c")]


def test_by_size_the_smallest_comes_first_and_of_equal_ones_the_name_decides() -> None:
    plan = load("topology", "cyclic")(order="by_size").plan(partners({"d": 9, "c": 2, "b": 5, "a": 5}))
    assert plan.trained == ("c", "a", "b", "d")


def test_a_shuffled_order_is_drawn_from_seed_hub_and_round_alone() -> None:
    cycle, names_of = load("topology", "cyclic")(order="shuffled"), "abcdefgh"
    weights = dict.fromkeys(names_of, 1)
    first = cycle.plan(partners(weights)).trained
    mixed = Random(1).sample(names_of, len(names_of))
    assert cycle.plan(partners(dict.fromkeys(mixed, 7))).trained == first, "how they stand does not matter"
    fewer = cycle.plan(partners(dict.fromkeys("aceg", 1))).trained
    assert fewer == tuple(name for name in first if name in fewer), "who else takes part does not matter"
    others = [{"round_number": 1}, {"seed": 1}, {"hub": "w/h"}]
    assert len({first, *(cycle.plan(partners(weights, **other)).trained for other in others)}) == 4
    starts = [cycle.plan(partners(weights, number)).trained[0] for number in range(800)]
    assert all(60 < starts.count(name) < 140 for name in names_of), "all are as likely"
