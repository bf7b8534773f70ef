"""Finds the sites whose data no device may process, before anything starts."""

from __future__ import annotations

from hierfl.config.places import join
from hierfl.config.schema import Runtime
from hierfl.config.section import Report
from hierfl.config.tree import Node
from hierfl.kinds import nearest
from scheduler import Device, Job, infeasible

__all__ = ["check_residency"]


def check_residency(root: Node, runtime: Runtime, report: Report) -> None:
    """Report each set of labels that no device carries, at the first site that has it."""
    devices = [
        Device(f"{group.name}-{number}", group.kind, frozenset(group.labels))
        for group in runtime.devices
        for number in range(group.count)
    ] or [Device("worker-0")]
    wanted: dict[frozenset[str], list[Node]] = {}
    stack: list[tuple[Node, frozenset[str]]] = [(root, frozenset())]
    while stack:
        node, above = stack.pop()
        labels = above.union(node.own.settings.get("residency", ()))
        if node.members is None:
            wanted.setdefault(labels, []).append(node)
        stack.extend((member, labels) for member in reversed(node.members or ()))
    known = sorted({label for group in runtime.devices for label in group.labels})
    for labels, sites in wanted.items():
        job = Job("", sites[0].name, 0, None, 0, labels=labels)
        for reason in infeasible([job], devices).values():
            more = f" (and {len(sites) - 1} more sites)" if len(sites) > 1 else ""
            said = f"site {sites[0].name!r}{more} {reason}; "
            if not known:
                said += "declare devices with their labels under runtime.devices"
            else:
                unknown = sorted(labels.difference(known))
                said += (
                    f"label {unknown[0]!r}{nearest(unknown[0], known)}" if unknown else "add a device with all of them"
                )
            report(join(sites[0].place, "residency"), said)
