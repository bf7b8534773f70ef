"""Finds hubs whose topology does not go with their members, strategy or participation, and says what would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hierfl.config.membership import Roster
from hierfl.config.places import join
from hierfl.config.rehearse import plan_flaw, policy_flaw
from hierfl.config.section import Report
from hierfl.config.tree import Node
from hierfl.held import told
from hierfl.kinds import load, names
from hierfl.learning.local import Objective
from hierfl.learning.strategy import Reducer, Strategy
from tiers.plan import Mix, Partners, Plan

__all__ = ["check_journal", "check_topologies"]


def check_topologies(root: Node, rosters: Mapping[int, Sequence[Roster]], seed: int, report: Report) -> None:
    """Report hubs whose members, strategy (own or from above) or participation policy their topology has no place for.

    `rosters`: who trains at each hub; `seed`: the run's, from which a topology draws.
    """
    stack: list[tuple[Node, Node, str]] = [(root, root, root.name)]
    while stack:
        node, above, path = stack.pop()
        if node.members is None:
            continue
        named = node if node.own.strategy is not None else above
        topology = node.own.topology
        is_sound = node.own.participation is None or _check_policy(node, path, seed, report)
        if topology is not None and (topology.sequential or topology.keeps_models):
            _check_strategy(node, named, report)
        if topology is not None and is_sound and (topology.sequential or not topology.has_centre):
            _check_participation(node, report)
        if topology is not None:
            _check_plans(node, path, rosters[id(node)], seed, report)
        stack.extend((member, named, f"{path}/{member.name}") for member in reversed(node.members))


def check_journal(journal: str | None, root: Node, report: Report) -> None:
    """Report a journal that is asked for by name where a hub is without a centre: such runs keep none."""
    if journal in (None, "none"):
        return
    for node in root.walk():
        if node.members is not None and node.own.topology is not None and not node.own.topology.has_centre:
            report(
                "redundancy.journal",
                f"no journal is kept where members exchange among themselves ({node.name}: {_topology(node)}); leave it"
                f" out, or give {node.name} a topology with a centre (star, cyclic)",
            )
            return


def _check_plans(node: Node, path: str, rosters: Sequence[Roster], seed: int, report: Report) -> None:
    """Check that a topology takes those who train, whenever they are others, and that the strategy goes with what they
    hand each other.
    """
    assert node.members is not None
    if not node.members:  # that there are none is told already
        return
    everyone = tuple(member.name for member in node.members)
    for roster in rosters:
        if not roster.names:
            continue
        partners = Partners(path, 0, seed, dict.fromkeys(roster.names, 1))
        if said := _misfit(node, replace(partners, members=everyone)) or plan_flaw(node.own.topology, partners):
            report(join(node.place, "topology"), f"{_topology(node)}: {roster.when}{said}")
            return
        plan: Plan = node.own.topology.plan(partners)
        slices = any(isinstance(step, Mix) and step.part is not None for step in plan.exchange)
        if slices and isinstance(node.own.strategy, Reducer):
            kind = node.own.written["strategy"]["kind"]
            fit = ", ".join(name for name in names("strategy") if not hasattr(load("strategy", name), "reduce"))
            why = "it looks at whole updates, and members hand each other slices"
            said = f"{kind} does not go with topology {_topology(node)}: {why} (allowed: {fit}; or topology: swarm)"
            report(join(node.place, "strategy"), said)
            return


def _misfit(node: Node, partners: Partners) -> str:
    try:
        found: str = node.own.topology.misfit(partners)
    except Exception as error:  # a user's topology may raise anything
        return f"its misfit() failed: {told(error)}"
    return found


def _check_policy(node: Node, path: str, seed: int, report: Report) -> bool:
    """Try a policy of the user's own on these members; hierfl's keep their folder's laws. Say whether it is sound."""
    kind = node.own.written["participation"]["kind"]
    members = {member.name: 1 for member in node.members or ()}
    said = policy_flaw(node.own.participation, path, seed, members) if ":" in kind and members else ""
    if said:
        report(join(node.place, "participation"), f"{kind}: {said}")
    return not said


def _check_strategy(node: Node, named: Node, report: Report) -> None:
    """Check the strategy of a hub that does not step along a mean. `named`: the hub that names it.

    The hubs below average, and their sites do what belongs to its step.
    """
    strategy: Strategy | None = named.own.strategy
    if strategy is None or strategy.linear or (named is not node and strategy.objective() == Objective()):
        return
    kind = named.own.written["strategy"]["kind"]
    key, of = ("strategy", "") if named is node else ("topology", f" of {named.name!r}")
    fit = ", ".join(name for name in names("strategy") if getattr(load("strategy", name), "linear", False))
    why = (
        "its members take turns, and each one's model replaces the hub's: there is no mean to step along"
        if node.own.topology.sequential
        else "each member keeps a model of its own: there is no common one to step"
    )
    said = f"{kind}{of} does not go with topology {_topology(node)}: {why} (allowed: {fit})"
    report(join(node.place, key), said)


def _check_participation(node: Node, report: Report) -> None:
    """Check the participation policy of a hub that needs all whom it asks, or at least no update once it is late."""
    policy, is_cycle = node.own.participation, node.own.topology.sequential
    if policy is None or not policy.may_close_early:
        return
    if not is_cycle and not policy.rolling and not policy.admit(weight=1, staleness=1).weight:
        return
    kind = node.own.written["participation"]["kind"]
    why, fit = (
        ("each member starts from what the one before it left, so all are waited for", "all, sample")
        if is_cycle
        else (
            "its members exchange what has come, and no place is left in that for what comes late",
            "all, sample, deadline with late: refuse",
        )
    )
    said = f"{kind} does not go with topology {_topology(node)}: {why} (allowed: {fit})"
    report(join(node.place, "participation"), said)


def _topology(node: Node) -> str:
    return str(node.own.written["topology"]["kind"])
