"""Finds attacks that cannot be rehearsed where they stand, before anything starts."""

from __future__ import annotations

from typing import Any

from hierfl.config.places import join
from hierfl.config.section import Report
from hierfl.config.tree import Node
from hierfl.learning.strategy import Strategy

__all__ = ["check_attacks"]


def check_attacks(baseline: str | None, root: Node, report: Report) -> None:
    """Report attackers that do not train, or that would have to know what they cannot be given."""
    stack: list[tuple[Node, Strategy | None, bool, Any]] = [(root, root.own.strategy, False, None)]
    while stack:
        hub, strategy, is_linked, privacy = stack.pop()
        is_linked, privacy = is_linked or hub.own.link is not None, hub.own.privacy or privacy
        for member in hub.members or ():
            if member.members is not None:
                inherited = strategy.inherited() if strategy is not None else None
                stack.append((member, member.own.strategy or inherited, is_linked, privacy))
            elif member.own.attack is not None:
                said = _misplaced(baseline, member) or _blind(hub, member, strategy)
                said = said or (_pays_twice(hub, member, privacy) if is_linked else "")
                if said:
                    report(join(member.place, "attack"), f"{_kind(member)} {said}")


def _misplaced(baseline: str | None, site: Node) -> str:
    """Say why a site cannot attack at all; empty if it can."""
    if baseline is not None:
        return f"has nothing to attack under baseline: {baseline}; leave out one of them"
    settings = site.own.settings
    if settings.get("role", "training") != "training":
        return f"takes a site that trains, and this one's role is {settings['role']}"
    if settings.get("split", 1) > 1:
        return "takes a whole site; leave out split"
    return ""


def _blind(hub: Node, site: Node, strategy: Strategy | None) -> str:
    """Say why a site cannot be given what the honest sites of its hub send; empty if it can, or need not."""
    if not site.own.attack.knows_honest:
        return ""
    honest = [
        member
        for member in hub.members or ()
        if member.members is None
        and member.own.attack is None
        and member.own.settings.get("role", "training") == "training"
        and member.own.settings.get("split", 1) == 1
    ]
    if not honest:
        return f"knows what honest sites send, and {hub.name!r} has none that trains"
    if strategy is not None and strategy.objective().keeps:
        kind = type(strategy).__module__.rpartition(".")[2]
        return f"repeats the honest sites' training, and under {kind} they keep vectors that no other site is given"
    if hub.own.topology is not None and hub.own.topology.sequential:
        return "repeats the honest sites' training, and here each starts from another model"
    mine = set(site.own.settings.get("residency", ()))
    for member in honest:
        if not mine.issuperset(member.own.settings.get("residency", ())):
            return f"needs the data of {member.name!r} in simulation, and its residency forbids it"
    linked = next((member for member in (site, *honest) if member.own.link is not None), None)
    if linked is not None:
        return f"needs the data of all sites in one place, and {linked.name!r} is served by another institution"
    return ""


def _pays_twice(hub: Node, site: Node, privacy: Any) -> str:
    """Say that an honest site's noise is drawn again: behind a link each of its trainings has noise of its own."""
    honest = (one for one in hub.members or () if one.members is None and one.own.attack is None)
    private = next((one for one in honest if one.own.privacy or privacy), None)
    if private is None or not site.own.attack.knows_honest:
        return ""
    return f"repeats the training of {private.name!r}, whose privacy counts one; rehearse it without links"


def _kind(site: Node) -> str:
    """Name a site's attack as the YAML does."""
    return str(site.own.written["attack"]["kind"])
