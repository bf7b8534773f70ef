"""What a hub is told of its own updates is its members' business where these add up to what a hub above keeps."""

from __future__ import annotations

from typing import Any

import pytest

from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.learning.strategies.scaffold import Scaffold
from hierfl.runtime.jobs import Order
from hierfl.runtime.orders import of_hub
from tiers import Hub, Site
from tiers.messages import Opening, Shortfall

SHORT = Shortfall(3, 1, 2)
TOLD = {"west": (SHORT,), "east": (Shortfall(3, 0, 1),)}


@pytest.mark.parametrize(
    ("strategy", "told", "rounds", "expected"),
    [
        (Scaffold(), TOLD, 1, (SHORT,)),
        (Scaffold(), {"east": (SHORT,)}, 1, ()),
        (Scaffold(), None, 1, None),
        (Scaffold(), TOLD, 2, None),
        (FedAvg(), TOLD, 1, None),
    ],
    ids=["told", "nothing", "all count", "several rounds", "nothing is kept"],
)
def test_what_a_hub_hears_of_its_own_updates(strategy: Any, told: Any, rounds: int, expected: Any) -> None:
    opening = Opening("world", 4, 32, 8.0, 40, "float32")
    order = Order("world", 4, (("west", 20), ("east", 20)), opening, strategy.objective(), shortfalls=told)
    assert of_hub(order, Hub("west", (Site("a"),), rounds=rounds)) == expected


def test_the_root_hears_nothing() -> None:
    assert of_hub(None, Hub("world", (Site("a"),))) is None
