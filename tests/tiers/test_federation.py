from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tiers import Federation, Hub, Site, parent

US = Hub("us", (Site("cleveland"), Site("long_beach")), rounds=2)
WORLD = Hub("world", (US, Site("budapest"), Hub("switzerland", (Site("zurich"),))), rounds=15)


def test_nodes_stand_by_path_parents_first_in_the_order_of_the_configuration() -> None:
    tree = Federation(WORLD)
    assert list(tree.nodes) == [
        "world",
        "world/us",
        "world/us/cleveland",
        "world/us/long_beach",
        "world/budapest",
        "world/switzerland",
        "world/switzerland/zurich",
    ]
    assert tree.nodes["world/us"] is US
    assert list(tree.hubs) == ["world", "world/us", "world/switzerland"]
    assert list(tree.sites) == [path for path in tree.nodes if path not in tree.hubs]
    assert tree.members("world") == ("world/us", "world/budapest", "world/switzerland")
    assert tree.num_tiers == 3
    with pytest.raises(KeyError):
        tree.members("world/budapest")


def test_parents() -> None:
    assert parent("world/us/cleveland") == "world/us"
    assert parent("world") is None
    assert all(parent(path) in Federation(WORLD).hubs for path in Federation(WORLD).nodes if path != "world")


def test_one_name_may_stand_under_two_hubs() -> None:
    tree = Federation(Hub("w", (Hub("a", (Site("x"),)), Hub("b", (Site("x"),)))))
    assert list(tree.sites) == ["w/a/x", "w/b/x"]


def test_depth_is_unlimited() -> None:
    node: Site | Hub = Site("leaf")
    for depth in range(3000):
        node = Hub(f"h{depth}", (node,))
    assert isinstance(node, Hub)
    tree = Federation(node)
    assert tree.num_tiers == 3001
    assert len(tree.sites) == 1 and len(tree.hubs) == 3000


def test_a_wide_tree_is_walked_at_once() -> None:
    hubs = tuple(Hub(f"h{i}", tuple(Site(f"s{j}") for j in range(100))) for i in range(100))
    tree = Federation(Hub("w", hubs))
    assert len(tree.sites) == 10_000 and len(tree.nodes) == 10_101


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Site(""), "must not be empty"),
        (lambda: Site("a/b"), "or hold '/': 'a/b'"),
        (lambda: Hub("a/b", (Site("x"),)), "or hold '/': 'a/b'"),
        (lambda: Hub("h", ()), "hub 'h' has no members"),
        (lambda: Hub("h", (Site("x"), Site("y"), Site("x"))), r"two members of one name: \['x'\]"),
        (lambda: Hub("h", (Site("x"), Hub("x", (Site("y"),)))), r"two members of one name: \['x'\]"),
        (lambda: Hub("h", (Site("x"),), rounds=0), "'h' has rounds 0; at least 1"),
        (lambda: Hub("h", (Site("x"),), quorum=0.0), "'h' has quorum 0.0; a fraction above 0"),
        (lambda: Hub("h", (Site("x"),), quorum=1.5), "'h' has quorum 1.5"),
        (lambda: Hub("h", (Site("x"),), quorum=float("nan")), "'h' has quorum nan"),
    ],
)
def test_a_tree_is_valid_once_it_exists(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_a_tree_is_a_value() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        WORLD.rounds = 3  # type: ignore[misc]
    assert Federation(WORLD) == Federation(dataclasses.replace(WORLD))
    assert Federation(WORLD) != Federation(WORLD, epoch=1)
