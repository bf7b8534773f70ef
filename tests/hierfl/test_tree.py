from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from cli_fakes import config_of, small

from hierfl.learning.strategies.fedavgm import FedAvgM
from hierfl.tree import describe, draw, survey
from scheduler.participations.buffered import Buffered
from tiers.federation import Federation, Hub, Site
from tiers.topologies.star import Star


@dataclasses.dataclass(frozen=True)
class Own:
    """A kind of the user's own."""


def test_hubs_add_up_their_subtrees() -> None:
    nodes = survey(small())
    assert (nodes["world"].num_train, nodes["world"].num_test, nodes["world"].num_sites) == (70, 21, 3)
    assert nodes["world/us"].num_train == 60


def test_a_hub_that_does_not_wait_for_all_says_so() -> None:
    config = config_of(Hub("world", (Hub("us", (Site("a"),)),), participation=Buffered(goal=2)))
    assert [line.split("  ")[1] for line in draw(survey(config)).plain.splitlines()[:2]] == [
        "star, buffered (goal=2), fedavg, 1 round",
        "star, fedavg, 1 round per round of world",
    ]


def test_one_unknown_site_makes_its_hubs_unknown_and_no_others() -> None:
    nodes = survey(small(Site("dark")))
    assert nodes["world/us"].num_train is None
    assert nodes["world"].num_test is None
    assert nodes["world/budapest"].num_train == 10


def test_a_task_that_does_not_count_is_no_trouble() -> None:
    class Silent:
        pass

    nodes = survey(dataclasses.replace(small(), task=Silent()))
    assert all(node.num_train is None and node.note is None for node in nodes.values())
    assert draw(nodes).plain.splitlines()[-1] == "└─ budapest  data of bp"


class _OnlyCounts:
    """A task that counts and does not list its sites; it fails in its own way at one of them."""

    def num_samples(self, site: str, **source: Any) -> tuple[int, int]:
        if site == "bp":
            raise KeyError("rows")
        return 2, 1


def test_a_task_that_cannot_list_its_sites_may_count_them_and_fail_at_one() -> None:
    nodes = survey(dataclasses.replace(small(), task=_OnlyCounts()))
    assert (nodes["world/us"].num_train, nodes["world/us"].num_test) == (4, 2)
    assert nodes["world"].num_train is None
    assert draw(nodes).plain.splitlines()[-1] == "└─ budapest  data of bp  samples unknown: KeyError: 'rows'"


@pytest.mark.parametrize(
    ("gives", "is_sound"), [("80", False), (80, False), ((1, 2, 3), False), ([np.int64(2), 1], True)]
)
def test_what_a_task_counts_are_two_numbers(monkeypatch: pytest.MonkeyPatch, gives: Any, is_sound: bool) -> None:
    monkeypatch.setattr(_OnlyCounts, "num_samples", lambda self, site, **source: gives)
    last = draw(survey(dataclasses.replace(small(), task=_OnlyCounts()))).plain.splitlines()[-1]
    said = f"_OnlyCounts.num_samples gave {gives!r}; needed: the numbers of training and test samples, as (80, 20)"
    assert ("train 2, test 1" in last) if is_sound else last.endswith(f"samples unknown: {said}")


def test_many_siblings_are_summed_up() -> None:
    sites = tuple(Site(f"site-{i:04d}") for i in range(10_000))
    lines = draw(survey(config_of(Hub("world", sites)))).plain.splitlines()
    assert len(lines) == 22
    assert lines[1] == "├─ site-0000  train 10, test 3"
    assert lines[-1] == "└─ 9,980 more sites  train 99,800, test 29,940"


def test_many_hubs_are_summed_up_and_fit_the_page() -> None:
    hubs = tuple(Hub(f"hub-{h}", tuple(Site(f"site-{i}") for i in range(100))) for h in range(100))
    lines = draw(survey(config_of(Hub("world", hubs)))).plain.splitlines()
    assert len(lines) <= 200
    assert "more hubs" in lines[-1]
    assert lines[0].endswith("10,000 sites  train 100,000, test 30,000")


def test_depth_is_unlimited() -> None:
    node: Hub | Site = Site("bottom")
    for depth in reversed(range(2000)):
        node = Hub(f"h{depth}", (node,))
    assert isinstance(node, Hub)
    nodes = survey(config_of(node))
    assert len(nodes) == Federation(node).num_tiers == 2001
    assert nodes["h0"].num_train == 10
    assert draw(nodes).plain.startswith("h0  star")


def test_a_kind_is_named_with_what_was_changed() -> None:
    assert describe(Star()) == "star"
    assert describe(FedAvgM()) == "fedavgm"
    assert describe(FedAvgM(momentum=0.5)) == "fedavgm (momentum=0.5)"
    assert describe(Own()).endswith(":Own")
