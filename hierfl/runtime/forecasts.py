"""When the members of a hub are predicted to have answered: what deadlines are made of."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from tiers.federation import Federation, Hub, is_within

__all__ = ["forecasts"]


def forecasts(
    federation: Federation, hub: str, seconds: Callable[[str], float | None], num_places: int
) -> dict[str, float]:
    """Predict the seconds from a hub's order to each member's answer, by name; without those that are not known.

    The sites under the hub are thought to go to `num_places` equal places of work, the longest first, so that a site
    that has to wait for a place is not late. A member that is a hub takes its rounds one after another, each as long as
    its slowest member, or as all its members in turn where its topology is sequential. `seconds`: a site's own, by
    path; None if nothing is known of it.
    """
    below = [path for path in federation.hubs if is_within(path, hub)]
    sites = [member for path in below for member in federation.members(path) if member in federation.sites]
    known = {site: found for site in sites if (found := seconds(site)) is not None}
    ends: dict[str, float] = {}
    free = [0.0] * max(1, num_places)
    for site in sorted(known, key=lambda site: -known[site]):
        ends[site] = free[0] + known[site]
        heapq.heapreplace(free, ends[site])
    for path in reversed(below[1:]):
        node, members = federation.nodes[path], federation.members(path)
        if isinstance(node, Hub) and all(member in ends for member in members):
            in_turn = node.topology.sequential
            round_s = sum(known.get(m, ends[m]) for m in members) if in_turn else max(ends[m] for m in members)
            ends[path] = node.rounds * round_s
    return {member.rpartition("/")[2]: ends[member] for member in federation.members(hub) if member in ends}
