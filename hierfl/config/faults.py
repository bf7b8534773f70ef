"""Checks `faults:`: each entry's place in the tree, its step, and its kind's own keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from hierfl.config.places import join
from hierfl.config.replicas import replicated
from hierfl.config.schema import Replication, Runtime
from hierfl.config.section import Report, canonical_kind, fields_of, make_kind
from hierfl.config.tree import Node
from hierfl.config.values import plain, shown
from hierfl.fault import MEMBER_STEPS, PROCESS, RUN, STEPS, Fault, Where
from hierfl.kinds import nearest

__all__ = ["check_faults"]

OF_WHERE = tuple(field.name for field in fields(Where))
UPDATES = ("before_accept", "after_accept")


def check_faults(
    given: Any, root: Node | None, sections: Mapping[str, Any], baseline: str | None, report: Report
) -> tuple[tuple[Fault, ...], list[dict[str, Any]]]:
    """Check every entry; give the sound ones, and all of them in canonical form."""
    if given is None:
        return (), []
    if not isinstance(given, list):
        report("faults", f"must be a list of faults ({{kind: kill, node: ..., round: ...}}), not {shown(given)}")
        return (), []
    if given and baseline is not None:
        report("faults", f"strike a federation, and baseline: {baseline} has none; leave out one of them")
    nodes = dict(_nodes(root, replicated(Replication(), vars(sections["redundancy"])))) if root is not None else {}
    found: list[Fault] = []
    written = []
    for index, entry in enumerate(given):
        made = _Entry(entry, join("faults", index), nodes, sections["runtime"], report).make()
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


@dataclass(frozen=True, slots=True)
class _Known:
    """What a node is, its rounds in all (a site's are its hub's), its replicas, and whether updates come to it.

    `exchanges`: the rounds in all after which it exchanges with its siblings; 0 where they have a centre.
    """

    what: str
    rounds: int
    replicas: int = 1
    has_centre: bool = True
    exchanges: int = 0


def _nodes(root: Node, top: Replication) -> Iterator[tuple[str, _Known]]:
    """Give every node's path with what is known of it."""
    stack = [(root, root.name, 1, top, 0)]
    while stack:
        node, path, above, inherited, exchanges = stack.pop()
        is_hub = node.members is not None or node.own.settings.get("split", 1) > 1
        rounds = above * node.own.settings.get("rounds", 1)
        served = replicated(inherited, node.own.redundancy)
        has_centre = node.own.topology is None or node.own.topology.has_centre
        yield path, _Known("hub" if is_hub else "site", rounds, served.replicas if is_hub else 1, has_centre, exchanges)
        below = rounds, served, 0 if has_centre else rounds
        stack.extend((member, f"{path}/{member.name}", *below) for member in reversed(node.members or ()))


class _Entry:
    """One entry of the list."""

    def __init__(self, given: Any, place: str, nodes: Mapping[str, _Known], runtime: Runtime, report: Report) -> None:
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
        made = make_kind("fault", rest, self.place, self.tell, beside=OF_WHERE)
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
        known = self._struck(where.node)
        if known is None:
            self.tell(join(self.place, "node"), f"is {where.node!r}, which is no node{self._near(where.node)}")
            return None
        what_is = known.what
        if what_is not in what.at:
            said = f"does not happen to a {what_is} (allowed: {', '.join(what.at)})"
            self.tell(join(self.place, "kind"), f"{kind} {said}")
            return None
        steps = what.at[what_is]
        step = where.step or steps[0]
        if step not in steps:
            of = f"of a {what_is}" if step not in STEPS[what_is] else f"for a {kind}"
            self.tell(join(self.place, "step"), f"{step!r} is no step {of}{nearest(step, steps)}")
        if where.nth > 1 and step not in UPDATES:
            self.tell(join(self.place, "nth"), f"counts updates: give it with step: {' or '.join(UPDATES)}")
        rounds = known.exchanges if step in MEMBER_STEPS else known.rounds
        if not rounds:
            told = f"is {step!r}, and {where.node} exchanges with nobody: the hub above it has a centre"
            self.tell(join(self.place, "step"), f"{told} (topology: swarm, allreduce or peer have none)")
        elif where.round is not None and where.round > rounds:
            self.tell(join(self.place, "round"), f"is {where.round}, and {where.node} has {rounds} in all")
        if where.replica is not None and where.replica > known.replicas:
            told = (
                f"is {where.replica}, and {where.node} has {known.replicas}: set redundancy.replicas, or leave it out"
            )
            self.tell(join(self.place, "replica"), told)
        if what.strikes != PROCESS and not known.has_centre:
            told = (
                f"{kind} strikes updates that come to a hub, and the members of {where.node} exchange among themselves"
            )
            self.tell(join(self.place, "kind"), told)
        if self.runtime.kind == "local" and what.own_process and what_is != RUN:
            way = "its process is the run's own on runtime.kind: local; use ray, or node: run"
            self.tell(join(self.place, "kind"), f"{kind} of {where.node} needs a process to itself: {way}")
        return None if self.faults else replace(where, step=step)

    def _struck(self, node: str) -> _Known | None:
        """Say what a node is; of a pattern, what the hubs are that it names, else the sites. None if nothing."""
        if node == RUN:
            return _Known(RUN, next(iter(self.nodes.values()), _Known("hub", 1)).rounds)
        named = [self.nodes[node]] if node in self.nodes else []
        named = named or [known for path, known in self.nodes.items() if fnmatchcase(path, node)]
        hubs = [known for known in named if known.what == "hub"]
        if not named:
            return None
        rounds, replicas = max(known.rounds for known in hubs or named), max(known.replicas for known in hubs or named)
        exchanges = max(known.exchanges for known in named)
        return _Known("hub" if hubs else "site", rounds, replicas, all(known.has_centre for known in hubs), exchanges)

    def _near(self, node: str) -> str:
        return nearest(node, [*self.nodes, RUN]) if self.nodes else ""
