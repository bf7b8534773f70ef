"""When members are predicted to have answered."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hierfl.runtime.forecasts import forecasts
from tiers.federation import Federation, Hub, Site
from tiers.topologies.cyclic import Cyclic

US = Hub("us", (Site("a"), Site("b")), rounds=2)
TREE = Federation(Hub("world", (US, Site("c"), Site("d")), rounds=9))
SECONDS = {"world/us/a": 1.0, "world/us/b": 3.0, "world/c": 4.0, "world/d": 2.0}


def test_with_a_place_for_each_a_member_takes_its_own_time_and_a_hub_its_rounds() -> None:
    assert forecasts(TREE, "world", SECONDS.get, 4) == {"us": 6.0, "c": 4.0, "d": 2.0}
    assert forecasts(TREE, "world/us", SECONDS.get, 4) == {"a": 1.0, "b": 3.0}


def test_who_has_to_wait_for_a_place_is_not_late() -> None:
    """One place, the longest first: c 4, b 7, d 9, a 10, so that us takes twice 10."""
    assert forecasts(TREE, "world", SECONDS.get, 1) == {"us": 20.0, "c": 4.0, "d": 9.0}


def test_a_hub_whose_members_take_turns_takes_the_sum_of_them() -> None:
    """Nobody of us waits for a place behind one of us: with one place or four it takes twice 1 + 3 s."""
    tree = Federation(Hub("world", (replace(US, topology=Cyclic()), Site("c"), Site("d"))))
    assert [forecasts(tree, "world", SECONDS.get, places)["us"] for places in (4, 1)] == [8.0, 8.0]


def test_what_is_not_known_is_left_out() -> None:
    known = {path: seconds for path, seconds in SECONDS.items() if path != "world/us/a"}
    assert forecasts(TREE, "world", known.get, 4) == {"c": 4.0, "d": 2.0}
    assert forecasts(TREE, "world", lambda site: None, 4) == {}


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(1, 5))
def test_a_forecast_is_never_below_the_sites_own_time_nor_above_all_work(seconds: list[int], num_places: int) -> None:
    names = [f"s{number}" for number in range(len(seconds))]
    tree = Federation(Hub("world", tuple(Site(name) for name in names)))
    own = {f"world/{name}": float(value) for name, value in zip(names, seconds, strict=True)}
    found = forecasts(tree, "world", own.get, num_places)
    assert all(own[f"world/{name}"] <= found[name] <= sum(own.values()) for name in names)
    assert max(found.values()) >= sum(own.values()) / num_places
    assert max(found.values()) <= sum(own.values()) / num_places + max(own.values())
