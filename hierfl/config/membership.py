"""Members that join or leave between rounds: a run is a row of epochs, each with a tree of its own.

`joins_at` and `leaves_at` at a node hold for all below it; a hub is there as long as a site below it is. Every epoch's
tree is checked before anything starts, as if the run had no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from hierfl.config.places import join
from hierfl.config.schema import RunConfig, SiteSettings
from hierfl.config.section import Report
from hierfl.config.tree import Node
from hierfl.learning.strategy import Reducer

__all__ = ["Epoch", "Stay", "check_membership", "epoch_of", "epochs", "still_known"]


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


def check_membership(baseline: str | None, root: Node, report: Report) -> None:
    """Report stays that are none, hubs that would be empty, and rules with too few members in some epoch."""
    for key in _STAY:
        if root.own.settings.get(key) is not None:
            report(join(root.place, key), "the root is the federation itself; give it to its members")
    rounds = root.own.settings.get("rounds", 1)
    stays = {id(root): Stay()}
    changes = {1}
    for hub, member in _members(root):
        settings = member.own.settings
        stay = stays[id(member)] = stays[id(hub)].within(settings)
        if stay.end is not None and stay.end <= stay.first:
            said = f"is {stay.end}, and it joins at round {stay.first}: it would never be a member"
            report(join(member.place, "leaves_at" if settings.get("leaves_at") else "joins_at"), said)
            return
        if settings.get("joins_at", 1) > rounds:
            said = f"is {settings['joins_at']}, and the run has {rounds} rounds: it would never be a member"
            report(join(member.place, "joins_at"), said)
            return
        changes.update(at for at in (stay.first, stay.end) if at is not None and at <= rounds)
    if len(changes) == 1 and all(stay == Stay() for stay in stays.values()):
        return
    if baseline == "pooled":
        place = next(join(member.place, key) for _, member in _members(root) for key in _STAY if key in _given(member))
        said = "pooled trains on all data from the start, and here members change; leave out joins_at and leaves_at"
        report("baseline", f"{said}, on the command line by {place}=null")
    for first in sorted(changes):
        if _check_epoch(root, stays, first, report):
            return


def _check_epoch(root: Node, stays: Mapping[int, Stay], first: int, report: Report) -> bool:
    """Check the tree as it is from a round on; say whether something was reported."""
    trained: set[int] = set()
    order = [root, *(member for _, member in _members(root))]
    for node in reversed(order):  # members before their hub
        if not stays[id(node)].has(first):
            continue
        if node.members is None:
            if node.own.settings.get("role", "training") == "training":
                trained.add(id(node))
        elif any(id(member) in trained for member in node.members):
            trained.add(id(node))
    when = f"from round {first} on"
    if id(root) not in trained:
        report("federation", f"has no site that trains {when}: let one stay, or join before")
        return True
    for node in order:
        if node.members is None or not stays[id(node)].has(first):
            continue
        there = [member for member in node.members if stays[id(member)].has(first)]
        if not there:
            said = f"has no members {when}: give {node.name!r} joins_at or leaves_at as well, or let a member stay"
            report(join(node.place, "members"), said)
            return True
        strategy = node.own.strategy
        short = strategy.shortage(sum(id(one) in trained for one in there)) if isinstance(strategy, Reducer) else ""
        if short and (first > 1 or len(there) < len(node.members)):
            report(join(node.place, "strategy"), f"{when}, {short}")
            return True
    return False


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
