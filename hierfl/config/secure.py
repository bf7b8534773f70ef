"""Finds hubs whose members cannot mask their updates, and says what would do: of a masked sum's members the hub learns
nothing but the sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from hierfl.config.places import join
from hierfl.config.rules import FEWEST
from hierfl.config.section import Report
from hierfl.config.tree import Node
from hierfl.learning.strategy import Reducer
from tiers.topologies.star import Star

__all__ = ["MOST", "check_secure"]

MOST = 300
"""Members of a masked sum: each has a key with each other, and makes as many masks of the model's size."""


def check_secure(root: Node, report: Report) -> None:
    """Report hubs with `secure_aggregation: masks` that do not go with it."""
    for node in root.walk():
        if node.members is not None and node.own.settings.get("secure_aggregation", "none") != "none":
            for said in _misfits(node):
                report(join(node.place, "secure_aggregation"), said)


def _misfits(node: Node) -> Iterator[str]:
    assert node.members is not None
    trained = [member for member in node.members if _trains(member)]
    if len(trained) < FEWEST:
        yield (
            f"masks hides each of {FEWEST} members or more in their sum, and {node.name!r} has {len(trained)} that"
            " train: of two each one would know the other's update; add members, or leave it out"
        )
    if len(trained) > MOST:
        yield (
            f"masks go from each member to each other, and {node.name!r} has {len(trained):,} that train, more than"
            f" {MOST}; put hubs between, each with masks of its own, or leave it out"
        )
    alone = [member.name for member in node.members if member.own.link is None]
    if alone:
        yield (
            f"masks is for members that other institutions serve, and {_few(alone)} of {node.name!r} has no link: its"
            " update is made where the sum is; give each member a link (see docs/links.md), or leave it out"
        )
    if not isinstance(node.own.topology, Star):
        kind = node.own.written.get("topology", {}).get("kind", "its topology")
        yield f"masks needs a hub in the middle that adds up, and {kind} is none; topology: star, or leave it out"
    strategy = node.own.strategy
    if isinstance(strategy, Reducer):
        kind = node.own.written["strategy"]["kind"]
        yield (
            f"masks leaves the hub a sum, and {kind} looks at each member's update by itself: it can be protected from"
            " bad members, or its members from it; take a strategy that averages (fedavg, fedadam, scaffold ...), or"
            " leave it out"
        )
    policy = node.own.written.get("participation", {}).get("kind", "all")
    if policy != "all":
        yield (
            f"masks cancel only in the sum of all who have an update, and participation: {policy} may close a round"
            " before; participation: all (on_failure: continue goes on without members that fail), or leave it out"
        )
    staying = [one.name for one in node.members if {"joins_at", "leaves_at"} & one.own.settings.keys()]
    if staying:
        yield (
            f"masks is agreed on by all members for the whole run, and {_few(staying)} joins or leaves in the midst of"
            " it; leave out joins_at and leaves_at there, or leave it out"
        )
    if find_spec("cryptography") is None:
        yield "masks needs the package cryptography: pip install 'hierfl[link]'"


def _trains(member: Node) -> bool:
    """Say whether a node, or a site below it, trains."""
    stack = [member]
    while stack:
        node = stack.pop()
        if node.members is None and node.own.settings.get("role", "training") == "training":
            return True
        stack.extend(node.members or ())
    return False


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
