"""Finds hubs whose members take turns, but whose strategy or participation takes for granted that they do not."""

from __future__ import annotations

from hierfl.config.places import join
from hierfl.config.section import Report
from hierfl.config.tree import Node
from hierfl.kinds import load, names
from hierfl.learning.local import Objective
from hierfl.learning.strategy import Strategy

__all__ = ["check_topologies"]


def check_topologies(root: Node, report: Report) -> None:
    """Report sequential hubs with a strategy, own or from above, that does not fit, or a policy that closes early."""
    stack: list[tuple[Node, Node]] = [(root, root)]
    while stack:
        node, above = stack.pop()
        if node.members is None:
            continue
        named = node if node.own.strategy is not None else above
        if node.own.topology is not None and node.own.topology.sequential:
            _check_strategy(node, named, report)
            _check_participation(node, report)
        stack.extend((member, named) for member in reversed(node.members))


def _check_strategy(node: Node, named: Node, report: Report) -> None:
    """Check the strategy of a sequential hub. `named`: the hub that names it; the hubs below average, and their sites
    do what belongs to its step.
    """
    strategy: Strategy | None = named.own.strategy
    if strategy is None or strategy.linear or (named is not node and strategy.objective() == Objective()):
        return
    kind = named.own.written["strategy"]["kind"]
    key, of = ("strategy", "") if named is node else ("topology", f" of {named.name!r}")
    fit = ", ".join(name for name in names("strategy") if getattr(load("strategy", name), "linear", False))
    why = "its members take turns, and each one's model replaces the hub's: there is no mean to step along"
    said = f"{kind}{of} does not go with topology {_topology(node)}: {why} (allowed: {fit})"
    report(join(node.place, key), said)


def _check_participation(node: Node, report: Report) -> None:
    """Check the participation policy of a sequential hub."""
    policy = node.own.participation
    if policy is not None and policy.may_close_early:
        kind = node.own.written["participation"]["kind"]
        why = "each member starts from what the one before it left, so all are waited for"
        said = f"{kind} does not go with topology {_topology(node)}: {why} (allowed: all, sample)"
        report(join(node.place, "participation"), said)


def _topology(node: Node) -> str:
    return str(node.own.written["topology"]["kind"])
