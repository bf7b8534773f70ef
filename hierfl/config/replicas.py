"""By how many processes hubs are served: what holds at each, and mistakes in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hierfl.config.places import join
from hierfl.config.schema import Redundancy, Replication, Runtime
from hierfl.config.section import Report, fields_of

if TYPE_CHECKING:
    from hierfl.config.tree import Node

__all__ = ["check_replicas", "replicated", "replication_of"]

KEYS = tuple(field.name for field in fields(Replication))


def replication_of(given: Any, place: str, report: Report) -> dict[str, Any]:
    """Check the keys that a hub gives."""
    if isinstance(given, Mapping) and "journal" in given:
        report(
            join(place, "journal"), "there is one journal for the whole run: write it under `redundancy:` at the top"
        )
    return fields_of(Replication, given, place, report, skip=("journal",))


def replicated(inherited: Replication, own: Mapping[str, Any]) -> Replication:
    """Put a hub's own keys over what it inherits; others are let alone."""
    named = {key: own[key] for key in KEYS if key in own}
    return replace(inherited, **named) if named else inherited


def check_replicas(top: Redundancy, root: Node, runtime: Runtime, report: Report) -> None:
    """Report hubs that cannot vote with as many replicas as they have, and replicas that have too few processes."""
    found = [("redundancy", replicated(Replication(), vars(top))), *_below(top, root)]
    for place, said in found:
        if said.mode == "vote" and (said.replicas < 3 or said.replicas % 2 == 0):
            report(
                join(place, "replicas"),
                f"must be an odd number from 3 on for mode: vote, not {said.replicas}: more than half of them must say"
                " the same (allowed: 3, 5, 7 ...; or mode: crash)",
            )
    voting = next((place for place, said in found if said.mode == "vote"), None)
    if voting is not None and find_spec("cryptography") is None:
        report(
            join(voting, "mode"),
            "vote signs what replicas answer and needs the package cryptography: pip install 'hierfl[link]'",
        )
    most = max(said.replicas for _, said in found)
    if runtime.kind == "ray" and runtime.num_aggregators is not None and runtime.num_aggregators < most:
        report(
            "runtime.num_aggregators",
            f"must be at least {most}, not {runtime.num_aggregators}: a hub has {most} replicas, each in a process of"
            " its own; or leave it out",
        )


def _below(top: Redundancy, root: Node) -> Iterator[tuple[str, Replication]]:
    """Yield what holds at each hub that says something itself, with its place."""
    stack = [(root, replicated(Replication(), vars(top)))]
    while stack:
        node, above = stack.pop()
        holds = replicated(above, node.own.redundancy)
        if node.own.redundancy:
            yield join(node.place, "redundancy"), holds
        stack.extend((member, holds) for member in reversed(node.members or ()))
