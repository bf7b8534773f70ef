"""Members that join or leave between rounds: a run is a row of epochs, each with a tree of its own.

`joins_at` and `leaves_at` at a node hold for all below it; a hub is there as long as a site below it is. Every epoch's
tree is checked before anything starts, as if the run had no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from hierfl.config.places import join
from hierfl.config.schema import RunConfig, SiteSettings
from hierfl.config.section import Report
from hierfl.config.tree import Node

__all__ = ["Epoch", "Roster", "Stay", "check_membership", "epoch_of", "epochs", "rosters", "still_known"]


T = TypeVar("T")

_STAY = ("joins_at", "leaves_at")


@dataclass(frozen=True, slots=True)
class Stay:
    """The rounds of the root, from 1, in which a node is a member: from `first` to before `end`; None: for ever."""

    first: int = 1
    end: int | None = None

    def within(self, settings: Mapping[str, Any]) -> Stay:
        """Give the stay of a member with such settings of its own."""
        ends = [end for end in (self.end, settings.get("leaves_at")) if end is not None]
        return Stay(max(self.first, settings.get("joins_at") or 1), min(ends, default=None))

    def has(self, round_number: int) -> bool:
        """Whether a round is in it."""
        return self.first <= round_number and (self.end is None or round_number < self.end)


@dataclass(frozen=True)
class Epoch:
    """One membership: `config` is the run's with the tree of its members, from round `first` of the root on.

    `joined`, `left`: sites by path, against the epoch before; `renewed`: leaves that have other members below, which
    are served elsewhere.
    """

    number: int
    first: int
    config: RunConfig
    joined: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()

    @property
    def sites(self) -> tuple[str, ...]:
        """List the members' paths."""
        return tuple(self.config.sites)


@dataclass(frozen=True, slots=True)
class Roster:
    """The members of a hub that train, or have a site below that does, by name, until there are others.

    `when`: what a mistake with them begins with, "from round 3 on, "; empty where they are the same in the whole run.
    """

    names: tuple[str, ...]
    when: str = ""


def epochs(config: RunConfig) -> list[Epoch]:
    """List the epochs of a run that has this configuration, up to its last round.

    A part of a federation has those of the whole, by the same numbers, but for epochs in which nobody of it is there.
    """
    tree, last = config.federation, config.federation.root.rounds
    stays = [(site.joins_at, site.leaves_at) for site in config.sites.values()]
    changes = sorted({1, *config.changes, *(at for stay in stays for at in stay if at is not None and at <= last)})
    found: list[Epoch] = []
    number, before = tree.epoch - 1, dict[str, SiteSettings]()
    for first in changes:
        there = {path: site for path, site in config.sites.items() if site.is_there(first)}
        if first > 1 and there.keys() == before.keys() and first not in config.changes:
            continue
        number += 1
        before, former = there, there if first == 1 else before
        if not there:
            continue
        federation = tree if len(there) == len(config.sites) and number == tree.epoch else tree.only(there, number)
        hubs = {path: hub for path, hub in config.hubs.items() if path in federation.hubs}
        joined = tuple(path for path in there if path not in former)
        left = tuple(path for path in former if path not in there)
        renewed = tuple(path for path in there if path in former and path in config.changes.get(first, ()))
        own = config if federation is tree else replace(config, federation=federation, hubs=hubs, sites=there)
        found.append(Epoch(number, first, own, joined, left, renewed))
    return found


def still_known(known: Mapping[str, T], config: RunConfig, one: Epoch, other: Epoch) -> dict[str, T]:
    """Give what is known of sites, by path, without those whose members below are others in another epoch."""
    low, high = sorted((one.first, other.first))
    renewed = {path for first, paths in config.changes.items() if low < first <= high for path in paths}
    return {path: value for path, value in known.items() if path not in renewed}


def epoch_of(found: list[Epoch], round_number: int) -> Epoch:
    """Give the epoch of a round of the root, counted from 1; the first one's for what is before."""
    return next((epoch for epoch in reversed(found) if epoch.first <= round_number), found[0])


def rosters(root: Node) -> dict[int, list[Roster]]:
    """List the rosters of each hub, by its identity, in order: with each the hub must do as if it had no other."""
    stays, order = _stays(root), _ordered(root)
    found: dict[int, dict[int, tuple[str, ...]]] = {id(node): {} for node in order if node.members is not None}
    for first in _changes(stays.values(), root):
        trained = _trained(order, stays, first)
        for node in order:
            if node.members is None:
                continue
            names = tuple(member.name for member in node.members if id(member) in trained)
            known = found[id(node)]
            if not known or names != next(reversed(known.values())):
                known[first] = names
    return {
        hub: [Roster(names, f"from round {first} on, " if len(known) > 1 else "") for first, names in known.items()]
        for hub, known in found.items()
    }


def check_membership(baseline: str | None, root: Node, report: Report) -> None:
    """Report stays that are none, hubs that would be empty, and rounds in which nobody would train."""
    for key in _STAY:
        if root.own.settings.get(key) is not None:
            report(join(root.place, key), "the root is the federation itself; give it to its members")
    rounds = root.own.settings.get("rounds", 1)
    stays = _stays(root)
    for _, member in _members(root):
        settings, stay = member.own.settings, stays[id(member)]
        if stay.end is not None and stay.end <= stay.first:
            said = f"is {stay.end}, and it joins at round {stay.first}: it would never be a member"
            report(join(member.place, "leaves_at" if settings.get("leaves_at") else "joins_at"), said)
            return
        if settings.get("joins_at", 1) > rounds:
            said = f"is {settings['joins_at']}, and the run has {rounds} rounds: it would never be a member"
            report(join(member.place, "joins_at"), said)
            return
    if all(stay == Stay() for stay in stays.values()):
        return
    if baseline == "pooled":
        place = next(join(member.place, key) for _, member in _members(root) for key in _STAY if key in _given(member))
        said = "pooled trains on all data from the start, and here members change; leave out joins_at and leaves_at"
        report("baseline", f"{said}, on the command line by {place}=null")
    order = _ordered(root)
    for first in _changes(stays.values(), root):
        if _check_epoch(order, stays, first, report):
            return


def _check_epoch(order: Sequence[Node], stays: Mapping[int, Stay], first: int, report: Report) -> bool:
    """Check the tree as it is from a round on; say whether something was reported."""
    when = f"from round {first} on"
    if id(order[0]) not in _trained(order, stays, first):
        report("federation", f"has no site that trains {when}: let one stay, or join before")
        return True
    for node in order:
        if node.members is None or not stays[id(node)].has(first):
            continue
        if not any(stays[id(member)].has(first) for member in node.members):
            said = f"has no members {when}: give {node.name!r} joins_at or leaves_at as well, or let a member stay"
            report(join(node.place, "members"), said)
            return True
    return False


def _stays(root: Node) -> dict[int, Stay]:
    """Give the stay of each node, by identity; the root's own is the whole run."""
    stays = {id(root): Stay()}
    for hub, member in _members(root):
        stay = stays[id(hub)]
        stays[id(member)] = stay.within(member.own.settings) if _given(member) else stay
    return stays


def _changes(stays: Iterable[Stay], root: Node) -> list[int]:
    """List the rounds of the run with which members change, the first one included."""
    rounds = root.own.settings.get("rounds", 1)
    return sorted({1, *(at for stay in stays for at in (stay.first, stay.end) if at is not None and at <= rounds)})


def _trained(order: Sequence[Node], stays: Mapping[int, Stay], first: int) -> set[int]:
    """Name the nodes that train in a round, or have a site below that does, by identity. `order`: hubs before members.

    A hub that lists no members is taken to: what is wrong with it is told elsewhere.
    """
    found: set[int] = set()
    for node in reversed(order):
        if not stays[id(node)].has(first):
            continue
        if node.members is None:
            trains = node.own.settings.get("role", "training") == "training"
        else:
            trains = not node.members or any(id(member) in found for member in node.members)
        if trains:
            found.add(id(node))
    return found


def _ordered(root: Node) -> list[Node]:
    """List all nodes, hubs before their members."""
    return [root, *(member for _, member in _members(root))]


def _given(node: Node) -> list[str]:
    """Name the keys of a node's own stay that are given."""
    return [key for key in _STAY if node.own.settings.get(key) is not None]


def _members(root: Node) -> Iterator[tuple[Node, Node]]:
    """Yield every node but the root with its hub, parents before children, without recursion."""
    stack = [root]
    while stack:
        hub = stack.pop()
        for member in hub.members or ():
            yield hub, member
            stack.append(member)
