"""What every topology's compute plan keeps; the folder is listed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierfl.kinds import load, names
from tiers import HUB, Mix, Topology, Train

KINDS = names("topology")
each_kind = pytest.mark.parametrize("kind", KINDS)
members_of = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=8, unique=True)


def test_the_folder_is_not_empty() -> None:
    assert "star" in KINDS


@each_kind
def test_a_topology_is_a_frozen_value(kind: str) -> None:
    topology = load("topology", kind)()
    assert isinstance(topology, Topology)
    assert type(topology).__dataclass_params__.frozen
    assert topology == load("topology", kind)()


@each_kind
@settings(max_examples=50)
@given(members=members_of, round_number=st.integers(0, 100))
def test_every_member_trains_once_and_the_hub_has_the_last_word(
    kind: str, members: list[str], round_number: int
) -> None:
    plan = load("topology", kind)().plan(tuple(members), round_number)
    assert sorted(plan.trained) == sorted(members)
    last = plan.steps[-1]
    assert isinstance(last, Mix) and last.at == HUB and set(last.of) <= set(members)


@each_kind
@settings(max_examples=50)
@given(members=members_of, round_number=st.integers(0, 100))
def test_steps_come_after_what_they_need(kind: str, members: list[str], round_number: int) -> None:
    plan = load("topology", kind)().plan(tuple(members), round_number)
    trained: set[str] = set()
    places = {HUB}
    for step in plan.steps:
        if isinstance(step, Train):
            assert step.source in places
            trained.add(step.member)
            places.add(step.member)
        else:
            assert step.of and len(set(step.of)) == len(step.of)
            assert set(step.of) <= trained
            places.add(step.at)


@each_kind
@settings(max_examples=20)
@given(members=members_of, round_number=st.integers(0, 100))
def test_the_same_round_has_the_same_plan(kind: str, members: list[str], round_number: int) -> None:
    one, two = load("topology", kind)(), load("topology", kind)()
    assert one.plan(tuple(members), round_number) == two.plan(list(members), round_number)


def test_a_star_trains_all_from_the_hub_and_mixes_all_at_it() -> None:
    plan = load("topology", "star")().plan(["a", "b"], 0)
    assert plan.steps == (Train("a", HUB), Train("b", HUB), Mix(("a", "b"), HUB))
