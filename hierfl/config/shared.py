"""Finds public data sets that are no such: a site's own data, or nothing that the task knows."""

from __future__ import annotations

from collections.abc import Sequence

from hierfl.config.places import join
from hierfl.config.section import Report
from hierfl.config.tree import Node
from hierfl.config.values import shown
from hierfl.kinds import nearest

__all__ = ["check_shared"]


def check_shared(root: Node, known: Sequence[str] | None, report: Report) -> None:
    """Report hubs that share what is a site's, or what is not there. `known`: the task's keys, if it can tell."""
    sites: dict[str, Node] = {}
    hubs = []
    for node in root.walk():
        if node.members is None:
            sites[str(node.data.get("key", node.name))] = node
        elif node.own.settings.get("shared") is not None:
            hubs.append(node)
    for hub in hubs:
        key, place = hub.own.settings["shared"].key, join(hub.place, "shared", "key")
        if key in sites:
            whose = f"{shown(key)} is the data of the site {sites[key].name!r}, which stay there"
            report(place, f"{whose}; share a set that no site holds, or drop the site")
        elif known is not None and key not in known:
            report(place, f"{shown(key)} is nothing that the task has data for{nearest(key, known)}")
