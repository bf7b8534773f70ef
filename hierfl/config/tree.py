"""Checks the federation's tree, node by node, and writes it back in canonical form.

A node's own settings are checked once per mapping in the YAML (a template's once for all its members), without
recursion: depth is unlimited. What a node inherits is `build`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hierfl.config.generate import fill, fill_data, is_template
from hierfl.config.interpolate import escape
from hierfl.config.keys import HUB_KEYS, SITE_KEYS, TEMPLATE_KEYS, TOP_KEYS, HubKeys, SiteKeys, TemplateKeys
from hierfl.config.optimizer import OPTION_NAMES, option_values
from hierfl.config.places import join
from hierfl.config.rehearse import flaw_of
from hierfl.config.replicas import replication_of
from hierfl.config.rules import MOST_NODES, broken
from hierfl.config.schedule import check_schedule
from hierfl.config.schema import LinkSettings, Training
from hierfl.config.section import Report, canonical_kind, fields_of, kind
from hierfl.config.values import Wrong, convert, plain, shown
from hierfl.kinds import close

__all__ = ["Node", "Own", "check_training", "check_tree", "named_optimizer"]

_NESTED = (
    *("members", "topology", "strategy", "participation", "compression", "training", "data", "link", "attack"),
    *("redundancy", "privacy"),
)
"""Keys with a check of their own."""


_NAMELESS = "is missing: every node needs a name"

_HOLDERS = {
    **dict.fromkeys(TOP_KEYS, "the top of the file"),
    **dict.fromkeys(SITE_KEYS, "a site (a node without `members`)"),
    **dict.fromkeys(HUB_KEYS, "a hub (a node with `members`)"),
}
"""Who has a key that others do not have."""


@dataclass(slots=True)
class Own:
    """A node's own settings, typed; shared by the members of a template."""

    settings: dict[str, Any]
    training: dict[str, Any]
    data: Any
    topology: Any = None
    strategy: Any = None
    participation: Any = None
    link: LinkSettings | None = None
    compression: Any = None
    attack: Any = None
    privacy: Any = None
    redundancy: dict[str, Any] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)
    optimizer: str | None = None
    """The optimizer that the node names, sound or not."""


@dataclass(slots=True)
class Node:
    """A checked node: its name, where it stands in the YAML, its own settings, and its members (None at a site)."""

    name: str
    place: str
    own: Own
    data: Mapping[str, Any]
    members: list[Node] | None

    def walk(self) -> Iterator[Node]:
        """Give this node and all below it, in the order of the YAML, without recursion."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.members or ()))


@dataclass(slots=True)
class _Entry:
    """A node still to be checked; `index` and `parent` fill the holes of a template's members."""

    mapping: Mapping[str, Any]
    place: str
    hub: Node | None
    name: str | None = None
    index: int = 0
    parent: str = ""


class _Checker:
    """Checks nodes; `owns` caches their settings by the identity of their mapping, which the configuration keeps."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.owns: dict[int, Own] = {}

    def own(self, mapping: Mapping[str, Any], place: str) -> Own:
        """Check a node's own settings, at most once."""
        found = self.owns.get(id(mapping))
        if found is None:
            found = self.owns[id(mapping)] = self._own(mapping, place)
        return found

    def _own(self, mapping: Mapping[str, Any], place: str) -> Own:
        is_hub, template = "members" in mapping, is_template(mapping)
        cls, allowed = (HubKeys, HUB_KEYS) if is_hub else (SiteKeys, (*SITE_KEYS, "members"))
        own = Own({}, {}, self._data(mapping.get("data"), join(place, "data"), is_hub))
        if template:
            counts = {key: mapping[key] for key in ("count", "start") if key in mapping}
            own.written.update(fields_of(TemplateKeys, counts, place, self.report))
        misplaced = [key for key in mapping if key not in allowed and key in _HOLDERS]
        for key in misplaced:
            self.report(join(place, str(key)), f"only {_HOLDERS[key]} has {key}")
        members = [
            key for key in mapping if key not in (*allowed, *misplaced) and key in _names(mapping.get("members"))
        ]
        for key in members:
            at = join(place, "members", str(key))
            keys = mapping[key] if isinstance(mapping[key], Mapping) else {}
            meant = ", ".join(join(at, str(inner)) for inner in keys) or at
            self.report(join(place, str(key)), f"unknown key; {key} is a member: {meant}")
        skip = (*_NESTED, *misplaced, *members, *(("count", "start") if template else ()))
        given = {key: value for key, value in mapping.items() if value is not None or key == "name"}
        if given.get("name") is None:
            is_null = "name" in given and given.pop("name") is None
            said = "is null: every node needs a name; quote one that reads null or ~" if is_null else _NAMELESS
            self.report(join(place, "name"), said)
        own.settings = fields_of(cls, given, place, self.report, skip=skip, allowed=allowed)
        own.training = check_training(mapping.get("training"), join(place, "training"), self.report)
        own.optimizer = named_optimizer(mapping.get("training"))
        own.link = self._link(mapping.get("link"), join(place, "link"))
        if is_hub:
            own.settings.setdefault("rounds", 1)
            self._kinds(mapping, place, own)
            own.redundancy = replication_of(mapping.get("redundancy"), join(place, "redundancy"), self.report)
        else:
            own.attack = self._kind("attack", mapping.get("attack"), place, own)
        own.compression = self._kind("compression", mapping.get("compression"), place, own)
        own.privacy = self._kind("privacy", mapping.get("privacy"), place, own)
        own.written.update({key: plain(own.settings[key]) for key in cls.__annotations__ if key in own.settings})
        if own.training:
            own.written["training"] = plain(own.training)
        if own.link is not None:
            own.written["link"] = plain(own.link)
        if own.redundancy:
            own.written["redundancy"] = plain(own.redundancy)
        if own.data:
            own.written["data"] = plain(own.data)
        own.written = {key: escape(own.written[key]) for key in TEMPLATE_KEYS if key in own.written}
        return own

    def _link(self, given: Any, place: str) -> LinkSettings | None:
        """Check a `link:` section, whose address has no default."""
        good = fields_of(LinkSettings, given, place, self.report)
        if isinstance(given, Mapping) and given.get("address") is None:
            self.report(join(place, "address"), "is missing: host:port at which the member reaches its hub")
        return LinkSettings(**good) if "address" in good else None

    def _kinds(self, mapping: Mapping[str, Any], place: str, own: Own) -> None:
        for seam, default in (("topology", "star"), ("participation", "all")):
            setattr(own, seam, self._kind(seam, mapping.get(seam) or default, place, own))
        own.strategy = self._kind("strategy", mapping.get("strategy"), place, own)

    def _kind(self, seam: str, named: Any, place: str, own: Own) -> Any:
        """Make a kind of the node's own and write it down; None where none is named."""
        if named is None:
            return None
        made = kind(seam, named, join(place, seam), self.report)
        if made is not None:
            own.written[seam] = canonical_kind(named, made)
            if said := flaw_of(seam, made):
                self.report(join(place, seam), f"{own.written[seam]['kind']}: {said}")
                return None
        return made

    def _data(self, data: Any, place: str, is_hub: bool) -> Any:
        """Check a `data:` section: a mapping with string keys, `key` at sites only."""
        if data is None:
            return {}
        if not isinstance(data, Mapping):
            self.report(place, f"must be a mapping ({{key: value}}), not {shown(data)}")
            return {}
        good = {}
        for name, value in data.items():
            at = join(place, str(name))
            if not isinstance(name, str):
                self.report(at, f"must have a string as its key, not {shown(name)}")
            elif name == "key" and is_hub:
                self.report(at, "stands at a site only: it names one site's data")
            elif name == "key":
                try:
                    good[name] = convert(value, str)
                except Wrong as wrong:
                    self.report(at, str(wrong))
            else:
                good[name] = value
        return good

    def node(self, entry: _Entry) -> Node:
        """Make one node, without its members."""
        own = self.own(entry.mapping, entry.place)
        name = entry.name if entry.name is not None else own.settings.get("name", "")
        data = own.data
        if data and entry.name is not None:
            data = fill_data(data, entry.index, entry.parent, name)
        return Node(name, entry.place, own, data, [] if "members" in entry.mapping else None)

    def entries(self, members: Any, hub: Node) -> Iterator[_Entry]:
        """Yield the nodes of a `members:` value, templates written out; a faulty one is reported and left out."""
        place = join(hub.place, "members")
        if is_template(members):
            yield from self._template(members, place, hub)
            return
        if not isinstance(members, list):
            kinds_of = "a list of nodes, or a template {count: ..., name: ...}"
            if isinstance(members, Mapping):
                unknown = [key for key in members if key not in TEMPLATE_KEYS]
                meant = next((key for key in unknown if close(str(key), TEMPLATE_KEYS) == "count"), None)
                kinds_of += f" (did you mean 'count' by {meant!r}?)" if meant is not None else " with a count"
            empty = "is empty; list the hub's members, or drop it to make a site"
            self.report(place, empty if members is None else f"must be {kinds_of}, not {shown(members)}")
            return
        if not members:
            self.report(place, "is empty; list the hub's members, or drop it to make a site")
        for index, member in enumerate(members):
            if not isinstance(member, Mapping):
                self.report(join(place, index), f"must be a node ({{name: ...}}), not {shown(member)}")
            elif is_template(member):
                yield from self._template(member, join(place, index), hub)
            else:
                name = member.get("name")
                known = name if isinstance(name, str) and name and name.isprintable() else index
                yield _Entry(member, join(place, known), hub)

    def _template(self, template: Mapping[str, Any], place: str, hub: Node) -> Iterator[_Entry]:
        own = self.own(template, place)
        name, count, start = own.settings.get("name"), own.written.get("count"), own.written.get("start", 0)
        if name is None or count is None:
            return
        try:
            names = [fill(name, index, hub.name) for index in range(start, start + count)]
        except ValueError as error:
            self.report(join(place, "name"), str(error))
            return
        if count > 1 and names[0] == names[1]:
            self.report(join(place, "name"), f"names all {count} members {names[0]!r}: write {{i}} into it")
            return
        try:
            fill_data(own.data, start, hub.name, names[0])
        except ValueError as error:
            self.report(join(place, "data"), str(error))
            return
        for index, own_name in enumerate(names, start):
            yield _Entry(template, place, hub, own_name, index, hub.name)


def check_tree(mapping: Any, report: Report) -> tuple[Node, dict[str, Any]] | None:
    """Check the tree under `federation:`; give its root, and the tree in canonical form. None if there is no root."""
    if not isinstance(mapping, Mapping):
        report("federation", f"must be a hub ({{name: ..., members: [...]}}), not {shown(mapping)}")
        return None
    if is_template(mapping):
        report("federation.count", "the root is one hub, not a template of several")
        return None
    if "members" not in mapping:
        report("federation.members", "is missing: the root is a hub, list its members")
    checker = _Checker(report)
    root = checker.node(_Entry({"members": [], **mapping} if "members" not in mapping else mapping, "federation", None))
    if re.fullmatch(r"worker-\d+", root.name):
        report("federation.name", f"{root.name!r} is what a worker is called; choose another name for the root")
    if mapping.get("link") is not None:
        report("federation.link", "the root has no hub above it that it could reach; give its members a link")
    if "members" in mapping:
        _descend(checker, root, mapping, report)
    if root.own.strategy is None and mapping.get("strategy") is None:
        root.own.strategy = kind("strategy", "fedavg", "federation.strategy", report)
        written = {**root.own.written, "strategy": canonical_kind("fedavg", root.own.strategy)}
        root.own.written = {key: written[key] for key in TEMPLATE_KEYS if key in written}
    return root, _written(mapping, checker.owns)


def _names(members: object) -> set[object]:
    """Give the names of the members that are listed one by one."""
    listed = members if isinstance(members, list) else ()
    return {one["name"] for one in listed if isinstance(one, Mapping) and isinstance(one.get("name"), str)}


def check_training(given: Any, place: str, report: Report) -> dict[str, Any]:
    """Check the keys of Training that one node gives; not both of local_steps and local_epochs."""
    beside = [key for key in given if key in OPTION_NAMES] if isinstance(given, Mapping) else []
    for key in beside:
        report(join(place, key), f"is an option of the optimizer: optimizer_options: {{{key}: {shown(given[key])}}}")
    if isinstance(given, Mapping) and "learning_rate" in given:
        beside.append("learning_rate")
        report(join(place, "learning_rate"), "unknown key (did you mean 'lr'?)")
    good = fields_of(Training, given, place, report, skip=(*beside, "lr_schedule"))
    if isinstance(given, Mapping) and "lr_schedule" in given:
        schedule = given["lr_schedule"]
        at = join(place, "lr_schedule")
        good["lr_schedule"] = None if schedule is None else check_schedule(schedule, at, report)
    if "optimizer_options" in good:
        good["optimizer_options"] = option_values(good["optimizer_options"], join(place, "optimizer_options"), report)
    if good.get("local_steps") is not None and good.get("local_epochs") is not None:
        report(place, "has both local_steps and local_epochs; keep one, and set the other to null in an override")
    return good


def named_optimizer(training: Any) -> str | None:
    """Read the optimizer that a `training:` section names, sound or not; None where it names none."""
    named = training.get("optimizer") if isinstance(training, Mapping) else None
    return None if named is None else str(named)


def _descend(checker: _Checker, root: Node, mapping: Mapping[str, Any], report: Report) -> None:
    stack: list[tuple[Node, Any]] = [(root, mapping["members"])]
    left = MOST_NODES
    while stack:
        hub, members = stack.pop()
        assert hub.members is not None
        taken: dict[str, str] = {}
        for entry in checker.entries(members, hub):
            left -= 1
            if left == 0:
                report(entry.place, f"makes the tree larger than {MOST_NODES:,} nodes")
                return
            node = checker.node(entry)
            fault = broken(SiteKeys, "name", node.name) if entry.name is not None else None
            if fault:
                report(join(node.place, "name"), fault)
            elif node.name and node.name in taken:
                report(join(hub.place, "members", node.name), f"two members of {hub.name!r} have this name; rename one")
            taken[node.name] = node.place
            hub.members.append(node)
            if node.members is not None:
                stack.append((node, entry.mapping["members"]))


def _written(root: Mapping[str, Any], owns: Mapping[int, Own]) -> dict[str, Any]:
    """Write the tree in canonical form, templates as templates, without recursion."""
    top: dict[str, Any] = {}
    stack: list[tuple[Any, Any, dict[str, Any] | list[Any]]] = [(root, "federation", top)]
    while stack:
        mapping, key, holder = stack.pop()
        own = owns.get(id(mapping))
        written: dict[str, Any] = dict(own.written) if own is not None else {}
        holder[key] = written
        members = mapping.get("members") if isinstance(mapping, Mapping) else None
        if isinstance(members, Mapping):
            written["members"] = {}
            stack.append((members, "members", written))
        elif isinstance(members, list):
            written["members"] = [None] * len(members)
            stack.extend((member, index, written["members"]) for index, member in enumerate(members))
    federation: dict[str, Any] = top["federation"]
    return federation
