"""A tree's work: what sites take in which round, who is asked, and what no schedule can beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hierfl.held import held
from scheduler.bounds import Fleet, Task, price_bound, round_bound
from scheduler.participation import Candidates
from tiers.federation import Federation, parent

__all__ = ["Asked", "Pauses", "SiteWork", "Took", "asked", "member_weights", "tree_bounds"]

Took = Mapping[tuple[str, int], Mapping[str, float]]
"""Seconds by hub's path and round (counted through, from 0), then by site's path; without sites that sit it out."""

Asked = list[tuple[str, int, tuple[str, ...]]]
"""Rounds of hubs, by path and number, each with the sites right under the hub that take part."""


@dataclass(frozen=True, slots=True)
class SiteWork:
    """A site's training of one round: seconds alone on a device of the usual kind, and what a device must offer."""

    seconds: float
    steps: int
    weight: int = 1
    labels: frozenset[str] = frozenset()
    memory_bytes: int = 0


@dataclass(frozen=True)
class Pauses:
    """Seconds in which no device is busy, by hub's path, none where it is missing.

    `opening_s`: from a hub's opening of a round to its asking for work; `closing_s`: from the end of its last member to
    its barrier; `call_s`: from the end of a call on a device to the next. Of a run that was: `opened_s` and `closed_s`
    by hub and round, as it was then, `between_s` by the root's rounds, from the barrier to the next opening, and
    `gaps_s` by site and round, before the work of a call that began with it, in the order of the calls.
    """

    opening_s: Mapping[str, float] = field(default_factory=dict)
    closing_s: Mapping[str, float] = field(default_factory=dict)
    call_s: float = 0.0
    opened_s: Mapping[tuple[str, int], float] = field(default_factory=dict)
    closed_s: Mapping[tuple[str, int], float] = field(default_factory=dict)
    between_s: Mapping[int, float] = field(default_factory=dict)
    gaps_s: Mapping[tuple[str, int], float] = field(default_factory=dict)

    def before(self, hub: str, number: int) -> float:
        """Give the pause before a hub's round asks for work."""
        return self.opened_s.get((hub, number), self.opening_s.get(hub, 0.0))

    def after(self, hub: str, number: int) -> float:
        """Give the time that an update takes to a hub in its round."""
        return self.closed_s.get((hub, number), self.closing_s.get(hub, 0.0))

    def least_s(self) -> dict[str, float]:
        """Give by hub what its rounds take at least beside their work."""
        least: dict[str, float] = {}
        for usual, found in ((self.opening_s, self.opened_s), (self.closing_s, self.closed_s)):
            shortest = {**usual}
            for (hub, _), seconds in found.items():
                shortest[hub] = min(seconds, shortest.get(hub, seconds))
            for hub, seconds in shortest.items():
                least[hub] = least.get(hub, 0.0) + seconds
        return least


def member_weights(tree: Federation, sites: Mapping[str, SiteWork]) -> dict[str, int]:
    """Give every node's weight by path, hubs rolled up; 0 for a site without work."""
    weights = {path: sites[path].weight if path in sites else 0 for path in tree.sites}
    for path in reversed(list(tree.hubs)):
        weights[path] = sum(weights[member] for member in tree.members(path))
    return weights


def asked(tree: Federation, sites: Mapping[str, SiteWork], rounds: int, seed: int) -> Asked:
    """List the rounds of all hubs in so many rounds of the root, each with the sites that are asked.

    Exact where all that are asked are waited for.
    """
    weights = member_weights(tree, sites)
    found: Asked = []
    for root_round in range(rounds):
        stack = [(tree.root.name, root_round)]
        while stack:
            hub, number = stack.pop()
            free = {path.rpartition("/")[2]: weights[path] for path in tree.members(hub) if weights.get(path)}
            if not free:
                continue
            choice = held(tree.hubs[hub], hub).participation.choose(Candidates(hub, number, seed, free))
            members = [f"{hub}/{name}" for name in choice.asked]
            found.append((hub, number, tuple(member for member in members if member in sites)))
            for member in reversed([member for member in members if member in tree.hubs]):
                each = tree.hubs[member].rounds
                stack.extend((member, number * each + step) for step in reversed(range(each)))
    return found


def tree_bounds(
    tree: Federation, sites: Mapping[str, SiteWork], took: Took, fleet: Fleet, pause_s: Mapping[str, float]
) -> list[float]:
    """Bound what each round of the root takes, in order: no schedule on these devices is faster.

    A hub's round takes at least what the sites in it take on the devices that may have them, what its longest member's
    own rounds take, and what all work below it takes by prices (`scheduler.bounds`). `pause_s`: what a round of a hub
    takes at least beside its own sites' work. That hubs wait for all is taken for granted. Where members take turns, a
    round takes the sum over them.
    """
    cache: dict[tuple[Task, ...], float] = {}
    open_rounds: dict[str, dict[int, _Round]] = {path: {} for path in tree.hubs}
    for (path, number), seconds in took.items():
        own = [Task(spent, sites[site].labels, sites[site].memory_bytes) for site, spent in seconds.items()]
        open_rounds[path].setdefault(number, _Round(tree.hubs[path].topology.sequential)).own.extend(own)
    bounds_s: dict[int, float] = {}
    for path in reversed(list(tree.hubs)):
        hub, above = tree.hubs[path], parent(path)
        own_s = pause_s.get(path, 0.0)
        for number, found in open_rounds[path].items():
            if above is None:
                bounds_s[number] = found.bound(fleet, cache, own_s)
                continue
            in_turn = tree.hubs[above].topology.sequential
            upper = open_rounds[above].setdefault(number // hub.rounds, _Round(in_turn))
            if hub.rounds == 1 and not (in_turn or hub.topology.sequential):  # its barrier lies inside its parent's
                upper.own.extend(found.own)
                upper.below.extend(found.below)
                upper.add(path, max(found.chains.values(), default=0.0))
            else:
                upper.below.extend((*found.own, *found.below))
                upper.add(path, found.bound(fleet, cache, own_s))
    return [bound_s for _, bound_s in sorted(bounds_s.items())]


@dataclass
class _Round:
    """A round of a hub: its sites' work, that of members with chains of their own, and these one by one.

    `in_turn`: nothing of it runs side by side.
    """

    in_turn: bool = False
    own: list[Task] = field(default_factory=list)
    below: list[Task] = field(default_factory=list)
    chains: dict[str, float] = field(default_factory=dict)

    def add(self, member: str, seconds: float) -> None:
        """Lengthen a member's chain."""
        self.chains[member] = self.chains.get(member, 0.0) + seconds

    def bound(self, fleet: Fleet, cache: dict[tuple[Task, ...], float], pause_s: float) -> float:
        """Bound the round: its sites and the pause after them, its longest chain, all work; or all in turn."""
        if self.in_turn:
            own_s = sum(round_bound([task], fleet) for task in self.own) + (pause_s if self.own else 0.0)
            return own_s + sum(self.chains.values())
        key = tuple(self.own)
        if key not in cache:
            cache[key] = round_bound(self.own, fleet)
        found = max(cache[key] + (pause_s if self.own else 0.0), *self.chains.values(), 0.0)
        return max(found, price_bound([*self.own, *self.below], fleet)) if self.below else found
