"""Graphs over a hub's members, and the parts that neighbours take of each other's models."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given as each
from hypothesis import strategies as st

from tiers import graphs
from tiers.graphs import Graph

KINDS: dict[str, Callable[[list[str]], Graph]] = {
    "complete": graphs.complete,
    "ring": graphs.ring,
    "torus": graphs.torus,
    "small_world": lambda names: graphs.small_world(names, 4, 0.3, 1, "w"),
    "erdos_renyi": lambda names: graphs.erdos_renyi(names, 0.4, 1, "w"),
    "given": lambda names: graphs.given(names, {"m0": names[1:], "gone": ["m0"]}),
}
each_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def members(num: int) -> list[str]:
    return [f"m{i}" for i in range(num)]


def degrees(graph: Graph) -> set[int]:
    return {len(others) for others in graph.values()}


@each_kind
@pytest.mark.parametrize("num", [1, 2, 3, 4, 7, 12])
def test_a_graph_is_symmetric_in_the_order_of_the_names_and_nobody_is_its_own_neighbour(
    make: Callable[[list[str]], Graph], num: int
) -> None:
    names = members(num)
    graph = make(names)
    assert list(graph) == names and graph == make(names)
    for name, others in graph.items():
        assert name not in others and list(others) == sorted(set(others), key=names.index)
        assert all(name in graph[other] for other in others)


def test_known_shapes() -> None:
    assert graphs.complete(members(5))["m2"] == ("m0", "m1", "m3", "m4")
    assert graphs.ring(members(5))["m0"] == ("m1", "m4") and graphs.ring(members(2)) == {"m0": ("m1",), "m1": ("m0",)}
    torus = graphs.torus(members(12))
    assert degrees(torus) == {4} and torus["m0"] == ("m1", "m3", "m4", "m8"), "three rows of four"
    assert graphs.torus(members(7)) == graphs.ring(members(7)), "a prime number makes one row"
    assert graphs.given(members(4), {"m0": ["m1"], "m1": ["m0", "m3"], "m9": ["m0"]})["m1"] == ("m0", "m3")


def test_a_small_world_has_the_edges_of_its_ring_some_of_them_elsewhere() -> None:
    names = members(40)
    lattice = graphs.small_world(names, 4, 0.0, 0, "w")
    assert degrees(lattice) == {4} and lattice["m0"] == ("m1", "m2", "m38", "m39")
    drawn = graphs.small_world(names, 4, 0.3, 0, "w")
    assert sum(map(len, drawn.values())) == 160
    moved = sum(other not in lattice[name] for name, others in drawn.items() for other in others) / 160
    assert 0.15 < moved < 0.45
    assert drawn != graphs.small_world(names, 4, 0.3, 1, "w") != graphs.small_world(names, 4, 0.3, 1, "w/h")


def test_random_edges_follow_from_the_seed_and_the_two_names_alone() -> None:
    names = members(60)
    graph = graphs.erdos_renyi(names, 0.2, 3, "w")
    assert 0.16 < sum(map(len, graph.values())) / (60 * 59) < 0.24
    fewer = graphs.erdos_renyi(names[::-2], 0.2, 3, "w")
    assert all(set(others) == set(graph[name]) & set(fewer) for name, others in fewer.items())
    assert graph != graphs.erdos_renyi(names, 0.2, 4, "w")


def test_who_has_no_way_to_the_first_is_named() -> None:
    assert graphs.cut_off(graphs.ring(members(9))) == []
    assert graphs.cut_off(graphs.given(members(5), {"m0": ["m2"], "m1": ["m4"]})) == ["m1", "m3", "m4"]


@each_kind
@each(sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=9))
def test_metropolis_rows_add_up_to_one_and_keep_the_weighted_mean(
    make: Callable[[list[str]], Graph], sizes: list[int]
) -> None:
    weights = dict(zip(members(len(sizes)), sizes, strict=True))
    graph = make(list(weights))
    rows = graphs.metropolis(graph, weights)
    for name, row in rows.items():
        assert set(row) == {name, *graph[name]} and sum(row.values()) == 1 and min(row.values()) >= 0 < row[name]
        assert all(weights[name] * part == weights[other] * rows[other][name] for other, part in row.items())


def test_metropolis_on_known_graphs() -> None:
    sizes = {"m0": 1, "m1": 2, "m2": 5}
    rows = graphs.metropolis(graphs.complete(list(sizes)), sizes)
    assert all(row == {name: Fraction(size, 8) for name, size in sizes.items()} for row in rows.values())
    ring = graphs.metropolis(graphs.ring(members(6)), dict.fromkeys(members(6), 7))
    assert set(ring["m0"].values()) == {Fraction(1, 3)}, "1 / (1 + max(d_i, d_j))"
    star = graphs.metropolis(graphs.given(members(4), {"m0": members(4)[1:]}), dict.fromkeys(members(4), 1))
    assert star["m1"] == {"m0": Fraction(1, 4), "m1": Fraction(3, 4)} and star["m0"]["m0"] == Fraction(1, 4)
