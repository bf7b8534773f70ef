"""Checks `faults:`: each entry's place in the tree, its step, and its kind's own keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from typing import Any

from hierfl.config.places import join
from hierfl.config.schema import Runtime
from hierfl.config.section import Report, canonical_kind, fields_of, make_kind
from hierfl.config.tree import Node
from hierfl.config.values import plain, shown
from hierfl.fault import HUB_STEPS, RUN, RUN_STEPS, SITE_STEPS, Fault, Where
from hierfl.kinds import nearest

__all__ = ["check_faults"]

STEPS: Mapping[str, Mapping[str, str]] = {"hub": HUB_STEPS, "site": SITE_STEPS, RUN: RUN_STEPS}
OF_WHERE = tuple(field.name for field in fields(Where))
UPDATES = ("before_accept", "after_accept")


def check_faults(
    given: Any, root: Node | None, runtime: Runtime, baseline: str | None, report: Report
) -> tuple[tuple[Fault, ...], list[dict[str, Any]]]:
    """Check every entry; give the sound ones, and all of them in canonical form."""
    if given is None:
        return (), []
    if not isinstance(given, list):
        report("faults", f"must be a list of faults ({{kind: kill, node: ..., round: ...}}), not {shown(given)}")
        return (), []
    if given and baseline is not None:
        report("faults", f"strike a federation, and baseline: {baseline} has none; leave out one of them")
    nodes = dict(_nodes(root)) if root is not None else {}
    found: list[Fault] = []
    written = []
    for index, entry in enumerate(given):
        made = _Entry(entry, join("faults", index), nodes, runtime, report).make()
        if made is not None:
            fault, said = made
            found.append(fault)
            written.append(said)
    return _numbered(found), written


def _numbered(found: list[Fault]) -> tuple[Fault, ...]:
    """Tell equal faults of one list apart."""
    seen: Counter[str] = Counter()
    numbered = []
    for fault in found:
        numbered.append(replace(fault, number=seen[fault.key]))
        seen[fault.key] += 1
    return tuple(numbered)


def _nodes(root: Node) -> Iterator[tuple[str, tuple[str, int]]]:
    """Give every node's path with what it is, and its rounds in all: a site's are its hub's."""
    stack = [(root, root.name, 1)]
    while stack:
        node, path, above = stack.pop()
        is_hub = node.members is not None or node.own.settings.get("split", 1) > 1
        rounds = above * node.own.settings.get("rounds", 1)
        yield path, ("hub" if is_hub else "site", rounds)
        stack.extend((member, f"{path}/{member.name}", rounds) for member in reversed(node.members or ()))


class _Entry:
    """One entry of the list."""

    def __init__(
        self, given: Any, place: str, nodes: Mapping[str, tuple[str, int]], runtime: Runtime, report: Report
    ) -> None:
        self.given, self.place, self.nodes, self.runtime = given, place, nodes, runtime
        self._report = report
        self.faults = 0

    def tell(self, at: str, message: str) -> None:
        """Report a mistake, and count it."""
        self.faults += 1
        self._report(at, message)

    def make(self) -> tuple[Fault, dict[str, Any]] | None:
        """Make the fault and its canonical form; None if something is wrong with it."""
        if not isinstance(self.given, Mapping):
            self.tell(self.place, f"must be a mapping ({{kind: kill, node: ...}}), not {shown(self.given)}")
            return None
        own = {key: value for key, value in self.given.items() if key in OF_WHERE}
        rest = {key: value for key, value in self.given.items() if key not in OF_WHERE}
        settings = fields_of(Where, own, self.place, self.tell)
        made = make_kind("fault", rest, self.place, self.tell)
        if "node" not in own:
            self.tell(join(self.place, "node"), f"is missing: the path of a hub or a site, or {RUN}{self._near('')}")
        if self.faults or not made.sound or "node" not in settings:
            return None
        where = self._placed(Where(**settings), rest["kind"], made.instance)
        if where is None:
            return None
        said = {"kind": rest["kind"], **plain(where), **canonical_kind(rest, made.instance)}
        return Fault(rest["kind"], where, made.instance), said

    def _placed(self, where: Where, kind: str, what: Any) -> Where | None:
        """Check that a fault can happen where it is to; give where, with its step."""
        what_is, rounds = self._struck(where.node)
        if not what_is:
            self.tell(join(self.place, "node"), f"is {where.node!r}, which is no node{self._near(where.node)}")
            return None
        if what_is not in what.usual:
            said = f"does not happen to a {what_is} (allowed: {', '.join(what.usual)})"
            self.tell(join(self.place, "kind"), f"{kind} {said}")
            return None
        step = where.step or what.usual[what_is]
        steps = STEPS[what_is] if not hasattr(what, "steps") else what.steps
        if step not in steps:
            self.tell(join(self.place, "step"), f"{step!r} is no step of a {what_is}{nearest(step, steps)}")
        if where.nth > 1 and step not in UPDATES:
            self.tell(join(self.place, "nth"), f"counts updates: give it with step: {' or '.join(UPDATES)}")
        if where.round is not None and where.round > rounds:
            self.tell(join(self.place, "round"), f"is {where.round}, and {where.node} has {rounds} in all")
        if self.runtime.kind == "local" and what.own_process and what_is != RUN:
            way = "its process is the run's own on runtime.kind: local; use ray, or node: run"
            self.tell(join(self.place, "kind"), f"{kind} of {where.node} needs a process to itself: {way}")
        return None if self.faults else replace(where, step=step)

    def _struck(self, node: str) -> tuple[str, int]:
        """Say what a node is, and its rounds in all; of a pattern, what all are that it names. Empty if nothing."""
        if node == RUN:
            top = next(iter(self.nodes.values()), ("hub", 1))
            return RUN, top[1]
        named = [found for path, found in self.nodes.items() if fnmatchcase(path, node)]
        if node in self.nodes:
            named = [self.nodes[node]]
        kinds = {what for what, _ in named}
        if len(kinds) > 1:
            named = [found for found in named if found[0] == "hub"]
        return (named[0][0], max(rounds for _, rounds in named)) if named else ("", 0)

    def _near(self, node: str) -> str:
        return nearest(node, [*self.nodes, RUN]) if self.nodes else ""
