"""The remaining chain by hand: the slowest member of a star, all members of a cycle, as often as there are rounds."""

from __future__ import annotations

from hierfl.runtime.chains import Chains
from tiers import Federation, Hub, Site, Topology
from tiers.topologies.cyclic import Cyclic
from tiers.topologies.star import Star

SECONDS = {"world/us/a": 1.0, "world/us/b": 3.0, "world/c": 4.0}


def chains(inner: Topology, outer: Topology) -> Chains:
    us = Hub("us", (Site("a"), Site("b")), rounds=2, topology=inner)
    found = Chains(Federation(Hub("world", (us, Site("c")), rounds=5, topology=outer)))
    found.begin(3, SECONDS.get)
    return found


def test_a_star_takes_what_its_slowest_member_takes() -> None:
    found = chains(Star(), Star())
    assert found.remaining_s("world", 3) == 6.0, "one round is left: twice 3 s in us"
    assert found.remaining_s("world/us", 6) == 6.0 + 3.0, "and one of its own"
    assert found.remaining_s("world/us", 7) == 6.0


def test_a_cycle_takes_what_all_its_members_take_and_waits_for_those_to_come() -> None:
    found = chains(Cyclic(), Star())
    assert found.remaining_s("world", 3) == 8.0, "twice 1 + 3 s in us"
    assert found.remaining_s("world/us", 6, ("b",)) == 8.0 + 4.0 + 3.0, "b's turn, and one round of its own"
    assert found.remaining_s("world/us", 7) == 8.0


def test_hubs_of_a_cycle_take_turns_like_sites() -> None:
    found = chains(Star(), Cyclic())
    assert found.remaining_s("world", 3, ("us", "c")) == 2 * (6.0 + 4.0)
    assert found.remaining_s("world", 3, ("c",)) == 4.0 + 10.0
    assert found.remaining_s("world", 3) == 10.0


def test_what_is_not_known_counts_as_nothing() -> None:
    found = chains(Cyclic(), Star())
    found.begin(4, lambda site: None)
    assert found.remaining_s("world/us", 8, ("b",)) == 0.0
