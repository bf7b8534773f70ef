"""A tree of any depth as the simulator's workload, which has two tiers: a federation of hubs of sites.

What fits exactly: sites and hubs of one round per round of their parent, at any depth, for their barriers lie inside
their parent's; and under the root hubs with several rounds of their own (kappa), whose sites have all the same
residency. Anything else runs in lock-step: each round of a hub is cut into as many steps as its members need, all sites
of a step meet before the next one, and a member that has fewer steps to do sits the rest out. Lock-step adds barriers
and takes none away, so what it predicts can be had.

The bound is the tree's own in either case: no barrier counts in it that the tree has not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from scheduler.bounds import Fleet, Task, price_bound, round_bound
from scheduler.participation import Candidates
from scheduler.views import JobKey
from scheduler.workload import Federation as Planned
from scheduler.workload import Hub as PlannedHub
from scheduler.workload import Site as PlannedSite
from tiers.federation import Federation, parent

__all__ = ["Asked", "Shape", "SiteWork", "Took", "asked", "rounds_per_round", "tree_bounds"]

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


class Shape:
    """Places every round of every hub in the simulator's workload; `notes` say where that is not exact."""

    def __init__(self, tree: Federation, sites: Mapping[str, SiteWork]) -> None:
        self._tree = tree
        self._sites = sites
        self._steps = _steps(tree)
        self._top = _tops(tree)
        several = {top: hub.rounds * self._steps[top] for top, hub in tree.hubs.items() if self._top[top] == top}
        self._rounds = {top: num for top, num in several.items() if top != tree.root.name and num > 1}
        labels: dict[str, set[frozenset[str]]] = {}
        for site, work in sites.items():
            labels.setdefault(self._top[parent(site) or ""], set()).add(work.labels)
        self._mixed = sorted(top for top in self._rounds if len(labels.get(top, ())) > 1)
        self.lock_step = max(self._rounds.values()) if self._mixed else 1
        self.groups = self._grouped()
        self.notes = tuple(self._notes())

    def rounds(self, group: str) -> int:
        """Give the rounds of a group of sites per global round of the workload."""
        return 1 if self._mixed else self._rounds.get(group, 1)

    def key(self, site: str, number: int) -> JobKey:
        """Name the job of a site in a round of its hub, counted through from 0."""
        hub = parent(site) or ""
        top = self._top[hub]
        offset = 0
        while (above := parent(hub)) is not None:
            number, step = divmod(number, self._tree.hubs[hub].rounds)
            offset += step * self._steps[hub]
            hub = above
        length = self.lock_step if self._mixed else self._rounds.get(top, 1)
        name = f"{self._tree.root.name}/{self._of[site]}"
        return f"{name}#{number * length + offset}", f"{name}/{site}"

    def root_round(self, hub: str, number: int) -> int:
        """Give the root's round in which a hub's round lies, both from 0."""
        while (above := parent(hub)) is not None:
            number //= self._tree.hubs[hub].rounds
            hub = above
        return number

    def pauses(self, transfer_s: Mapping[str, float]) -> dict[str, float]:
        """Keep the pauses that count here: the root's, and those of hubs with several rounds."""
        kept = {self._tree.root.name} if self._mixed else {self._tree.root.name, *self._rounds}
        return {hub: seconds for hub, seconds in transfer_s.items() if hub in kept}

    def federation(self, rounds: int, transfer_s: Mapping[str, float]) -> Planned:
        """Make the workload's federation; `transfer_s` of `pauses`, the root's where one is missing."""
        usual_s = transfer_s.get(self._tree.root.name, 0.0)
        hubs: list[PlannedHub] = []
        for group, members in self.groups.items():
            made = tuple(self._planned(site) for site in members)
            between_s = transfer_s.get(group, usual_s)
            labels = self._sites[members[0]].labels
            hubs.append(PlannedHub(group, made, self.rounds(group), labels, between_s))
        return Planned(self._tree.root.name, tuple(hubs), rounds * self.lock_step)

    def _planned(self, site: str) -> PlannedSite:
        work = self._sites[site]
        return PlannedSite(site, work.seconds, work.steps, work.memory_bytes)

    def _grouped(self) -> dict[str, tuple[str, ...]]:
        """Group sites that share their rounds and their residency: under a hub with several rounds all below it."""
        found: dict[tuple[str, frozenset[str]], list[str]] = {}
        for hub in self._tree.hubs:
            for site in (path for path in self._tree.members(hub) if path in self._sites):
                whose = self._top[hub] if self._top[hub] in self._rounds and not self._mixed else hub
                found.setdefault((whose, self._sites[site].labels), []).append(site)
        alike = [whose for whose, _ in found]
        groups = {
            whose if alike.count(whose) == 1 else f"{whose} [{', '.join(sorted(labels))}]": tuple(sites)
            for (whose, labels), sites in found.items()
        }
        self._of = {site: group for group, sites in groups.items() for site in sites}
        return groups

    def _notes(self) -> Iterator[str]:
        if self._mixed:
            yield (
                f"{self._mixed[0]} has rounds of its own and sites of different residency: all hubs are simulated in"
                f" lock-step, {self.lock_step} steps to a round, which is slower than a run"
            )
            return
        below = (
            hub
            for hub, steps in self._steps.items()
            if steps > 1 and parent(hub) is not None and len(self._tree.members(hub)) > 1
        )
        if (hub := next(below, None)) is not None:
            yield (
                f"members of {hub} have rounds of their own inside a round of it: they are simulated in lock-step,"
                " which is slower than a run"
            )


def _steps(tree: Federation) -> dict[str, int]:
    """Count the steps of one round of each hub: as many as its member with the most rounds needs."""
    steps: dict[str, int] = {}
    for path in reversed(list(tree.hubs)):
        inner = (tree.hubs[member].rounds * steps[member] for member in tree.members(path) if member in tree.hubs)
        steps[path] = max(inner, default=1)
    return steps


def _tops(tree: Federation) -> dict[str, str]:
    """Name for each hub the one right under the root that it lies in; the root lies in itself."""
    tops: dict[str, str] = {}
    for path in tree.hubs:
        above = parent(path)
        tops[path] = path if above is None or parent(above) is None else tops[above]
    return tops


def rounds_per_round(tree: Federation, hub: str) -> int:
    """Count a hub's rounds per round of the root."""
    found = 1
    while (above := parent(hub)) is not None:
        found *= tree.hubs[hub].rounds
        hub = above
    return found


def asked(tree: Federation, sites: Mapping[str, SiteWork], rounds: int, seed: int) -> Asked:
    """List the rounds of all hubs in so many rounds of the root, each with the sites that are asked."""
    weights: dict[str, int] = {path: work.weight for path, work in sites.items()}
    for path in reversed(list(tree.hubs)):
        weights[path] = sum(weights.get(member, 0) for member in tree.members(path))
    found: Asked = []
    for root_round in range(rounds):
        stack = [(tree.root.name, root_round)]
        while stack:
            hub, number = stack.pop()
            free = {path.rpartition("/")[2]: weights[path] for path in tree.members(hub) if weights.get(path)}
            if not free:
                continue
            choice = tree.hubs[hub].participation.choose(Candidates(hub, number, seed, free))
            members = [f"{hub}/{name}" for name in choice.asked]
            found.append((hub, number, tuple(member for member in members if member in sites)))
            for member in reversed([member for member in members if member in tree.hubs]):
                each = tree.hubs[member].rounds
                stack.extend((member, number * each + step) for step in reversed(range(each)))
    return found


def tree_bounds(
    tree: Federation, sites: Mapping[str, SiteWork], took: Took, fleet: Fleet, transfer_s: Mapping[str, float]
) -> list[float]:
    """Bound what each round of the root takes, in order: no schedule on these devices is faster.

    A hub's round takes at least what the sites in it take on the devices that may have them, what its longest member's
    own rounds take, and what all work below it takes by prices (`scheduler.bounds`). `transfer_s` as of `Shape.pauses`.
    """
    least_s = min(transfer_s.values(), default=0.0)
    cache: dict[tuple[Task, ...], float] = {}
    open_rounds: dict[str, dict[int, _Round]] = {path: {} for path in tree.hubs}
    for (path, number), seconds in took.items():
        own = [Task(spent, sites[site].labels, sites[site].memory_bytes) for site, spent in seconds.items()]
        open_rounds[path].setdefault(number, _Round()).own.extend(own)
    bounds_s: dict[int, float] = {}
    for path in reversed(list(tree.hubs)):
        hub, above = tree.hubs[path], parent(path)
        is_top = above is not None and parent(above) is None
        pause_s = least_s if above is None else transfer_s.get(path, least_s) if is_top else 0.0
        for number, found in open_rounds[path].items():
            if above is None:
                bounds_s[number] = found.bound(fleet, cache, pause_s)
                continue
            upper = open_rounds[above].setdefault(number // hub.rounds, _Round())
            if hub.rounds == 1:  # its barrier lies inside its parent's
                upper.own.extend(found.own)
                upper.below.extend(found.below)
                upper.add(path, max(found.chains.values(), default=0.0))
            else:
                upper.below.extend((*found.own, *found.below))
                upper.add(path, found.bound(fleet, cache, pause_s))
    return [bound_s for _, bound_s in sorted(bounds_s.items())]


@dataclass
class _Round:
    """A round of a hub: sites that run side by side, the work of members with several rounds, and these one by one."""

    own: list[Task] = field(default_factory=list)
    below: list[Task] = field(default_factory=list)
    chains: dict[str, float] = field(default_factory=dict)

    def add(self, member: str, seconds: float) -> None:
        """Lengthen a member's chain."""
        self.chains[member] = self.chains.get(member, 0.0) + seconds

    def bound(self, fleet: Fleet, cache: dict[tuple[Task, ...], float], pause_s: float) -> float:
        """Bound the round: its sites and the pause after them, its longest chain, all work."""
        key = tuple(self.own)
        if key not in cache:
            cache[key] = round_bound(self.own, fleet)
        found = max(cache[key] + (pause_s if self.own else 0.0), *self.chains.values(), 0.0)
        return max(found, price_bound([*self.own, *self.below], fleet)) if self.below else found
