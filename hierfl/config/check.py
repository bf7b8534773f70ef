"""Checks a whole configuration and collects every mistake, each with its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from types import MethodType
from typing import Any

from hierfl.config.attacks import check_attacks
from hierfl.config.baseline import check_baseline
from hierfl.config.data import check_data
from hierfl.config.faults import check_faults
from hierfl.config.interpolate import escape
from hierfl.config.keys import HUB_KEYS, SECTIONS, TOP_KEYS, TopKeys
from hierfl.config.membership import check_membership, rosters
from hierfl.config.optimizer import check_option_names
from hierfl.config.places import join
from hierfl.config.privacy import check_privacy
from hierfl.config.rehearse import flaw_of
from hierfl.config.replicas import check_replicas
from hierfl.config.residency import check_residency
from hierfl.config.schema import DeviceGroup, Runtime
from hierfl.config.section import Made, Report, canonical_kind, fields_of, kind, make_kind, section
from hierfl.config.secure import check_secure
from hierfl.config.shared import check_shared
from hierfl.config.stopping import check_intervals, check_operating, check_stopping, measured_by
from hierfl.config.strategies import check_strategies
from hierfl.config.topologies import check_journal, check_topologies
from hierfl.config.tree import Node, check_training, check_tree, named_optimizer
from hierfl.config.values import plain, shown
from hierfl.errors import Problem
from hierfl.kinds import nearest
from hierfl.learning.own_metrics import BUILT_IN
from hierfl.learning.standardise import STANDARDISE
from hierfl.learning.task import KnowsSites, offers

__all__ = ["DEFAULT_POLICY", "Checked", "check_config"]

DEFAULT_POLICY = "chain_first"

NO_TIMEOUT = "needs runtime.kind: ray; work in a thread cannot be ended"

_BESIDE = {"seed": 0, "baseline": None, "lora": None, "statistics": None}
"""What stands at the top beside the name and the sections, as it is where it is left out."""

_MOST_UNKNOWN_SITES = 20
"""Unknown sites that are named one by one; the rest is counted."""


@dataclass(slots=True)
class Checked:
    """A checked configuration; sound if no problem was reported. `written` is its canonical form.

    `better`: which way metrics of the task's own get better, as it says.
    """

    top: dict[str, Any]
    task: Any
    root: Node | None
    training: dict[str, Any]
    sections: dict[str, Any]
    written: dict[str, Any]
    better: dict[str, str] = field(default_factory=dict)


def check_config(config: Mapping[Any, Any], name: str) -> tuple[Checked, list[Problem]]:
    """Check a plain, resolved configuration; `name` is the run's where it gives none."""
    problems: list[Problem] = []

    def report(place: str, message: str) -> None:
        problems.append(Problem(place, message))

    top = {"name": name, **_BESIDE, **_top(config, report)}
    task, written_task = _task(config, report)
    training = check_training(config.get("training"), "training", report)
    sections = {key: section(cls, config.get(key), key, report) for key, cls in SECTIONS.items() if key != "runtime"}
    sections["runtime"], written_runtime = _runtime(config.get("runtime"), report)
    measured = measured_by(task, report)
    check_stopping(config.get("stopping"), sections["stopping"], sections["evaluation"], measured, report)
    check_operating(sections["evaluation"], measured, report)
    if sections["evaluation"].fine_tune is not None and sections["evaluation"].every == 0:
        report("evaluation.fine_tune", "is never measured: evaluation.every is 0")
    tree = None
    if config.get("federation") is None:
        report("federation", "is missing: give the root hub, {name: ..., members: [...]}")
    else:
        tree = check_tree(config["federation"], report)
    root = tree[0] if tree is not None else None
    if root is not None and task.cls is not None:
        check_data(task.cls, root, report)
        _known_sites(task, root, report)
    named = named_optimizer(config.get("training"))
    check_option_names(named, training.get("optimizer_options", {}), root, report)
    if tree is not None and tree[0] is not None:
        who = rosters(tree[0])
        check_strategies(tree[0], who, top["seed"], report)
        check_topologies(tree[0], who, top["seed"], report)
        check_journal(sections["redundancy"].journal, tree[0], report)
        check_replicas(sections["redundancy"], tree[0], sections["runtime"], report)
        check_secure(tree[0], report)
        check_baseline(top["baseline"], tree[0], report)
        check_attacks(top["baseline"], tree[0], report)
        check_membership(top["baseline"], tree[0], report)
        check_privacy(training, sections["evaluation"], task.instance, tree[0], report)
        check_intervals(sections["evaluation"], task.instance, tree[0], report)
        _residency(config, tree[0], sections["runtime"], report)
        _timeouts(tree[0], sections["runtime"], report)
    found, faults = check_faults(config.get("faults"), root, sections, top["baseline"], report)
    written = escape(
        {
            **plain(top),
            "task": written_task,
            "training": plain(training),
            **{key: plain(made) for key, made in sections.items()},
            "runtime": written_runtime,
        }
    )
    written["federation"] = tree[1] if tree else {}
    written["faults"] = escape({"faults": faults})["faults"]
    ordered = {field.name: written[field.name] for field in sorted(fields(TopKeys), key=_order)}
    root = tree[0] if tree else None
    own = {name: way for name, way in (measured or {}).items() if name not in BUILT_IN}
    return Checked(top, task.instance, root, training, {**sections, "faults": found}, ordered, own), problems


def _order(field: Any) -> int:
    """Write the canonical form in the order in which people write it: the tree after the training."""
    order = ("name", "seed", "baseline", "task", "training", "federation")
    return order.index(field.name) if field.name in order else len(order)


def _top(config: Mapping[Any, Any], report: Report) -> dict[str, Any]:
    own = {key: config[key] for key in ("name", *_BESIDE) if config.get(key) is not None}
    for key in config:
        if key in HUB_KEYS and key not in TOP_KEYS:
            report(str(key), f"{key} belongs to a hub: write it under `federation:`")
        elif key not in TOP_KEYS:
            report(join("", str(key)), f"unknown key{nearest(str(key), TOP_KEYS)}")
    return fields_of(TopKeys, own, "", report)


def _task(config: Mapping[Any, Any], report: Report) -> tuple[Made, dict[str, Any]]:
    if config.get("task") is None:
        report("task", f"is missing: say what is learned, task: {{kind: ...}}{nearest('', _task_kinds())}")
        return Made(), {}
    made = make_kind("task", config["task"], "task", report)
    scaled = getattr(made.instance, "standardise", STANDARDISE[0])
    if not callable(scaled) and scaled not in STANDARDISE and "standardise" not in made.wrong:
        report("task.standardise", f"is {shown(scaled)}{nearest(str(scaled), STANDARDISE)}")
    return made, canonical_kind(config["task"], made.instance) if made.sound else {}


def _task_kinds() -> Sequence[str]:
    from hierfl.kinds import names

    return names("task")


def _runtime(given: Any, report: Report) -> tuple[Runtime, dict[str, Any]]:
    """Check `runtime:`, where `policy` is a kind."""
    named: Any = DEFAULT_POLICY
    devices: list[DeviceGroup] = []
    if isinstance(given, Mapping):
        named = given.get("policy") or DEFAULT_POLICY
        devices = _devices(given.get("devices"), report)
        given = {key: value for key, value in given.items() if key not in ("policy", "devices")}
    runtime: Runtime = replace(section(Runtime, given, "runtime", report), devices=devices)
    policy = kind("policy", named, "runtime.policy", report)
    written_policy = canonical_kind(named, policy) if policy is not None else None
    if written_policy is not None and (said := flaw_of("policy", policy)):
        report("runtime.policy", f"{written_policy['kind']}: {said}")
    if runtime.kind == "local" and runtime.site_timeout_s is not None:
        report("runtime.site_timeout_s", NO_TIMEOUT)
    written = {**plain(runtime), "policy": written_policy}
    return replace(runtime, policy=policy), written


def _devices(given: Any, report: Report) -> list[DeviceGroup]:
    """Check `runtime.devices`, every entry; wrong ones are left out."""
    if given is None:
        return []
    if not isinstance(given, list):
        report("runtime.devices", f"must be a list of groups ({{name: ..., count: ...}}), not {shown(given)}")
        return []
    found: dict[str, DeviceGroup] = {}
    for index, entry in enumerate(given):
        place = join("runtime.devices", index)
        fields_here = fields_of(DeviceGroup, entry, place, report)
        if isinstance(entry, Mapping) and "name" not in entry:
            report(join(place, "name"), "is missing: devices are called {name}-0, {name}-1 ...")
        elif "name" in fields_here and fields_here["name"] in found:
            report(join(place, "name"), f"is {fields_here['name']!r}, the name of another group; give each its own")
        elif "name" in fields_here:
            found[fields_here["name"]] = DeviceGroup(**fields_here)
    return list(found.values())


def _residency(config: Mapping[Any, Any], root: Node, runtime: Runtime, report: Report) -> None:
    """Look for sites without a device, unless what was declared was wrong anyway."""
    given = config.get("runtime")
    declared = given.get("devices") if isinstance(given, Mapping) else None
    if len(declared if isinstance(declared, list) else ()) == len(runtime.devices):
        check_residency(root, runtime, report)


class _Doubtful(Exception):
    """A field was asked for that is wrong in the YAML."""


class _Sound:
    """A task in whose place its methods may be called; its wrong fields are `_Doubtful`."""

    def __init__(self, made: Made) -> None:
        self._made = made

    def __getattr__(self, name: str) -> Any:
        if name in self._made.wrong:
            raise _Doubtful(name)
        found = getattr(self._made.instance, name)
        return MethodType(found.__func__, self) if isinstance(found, MethodType) else found


def _known_sites(task: Made, root: Node, report: Report) -> None:
    """Report the sites that the task has no data for, where the task can tell; its wrong fields must not matter."""
    if not offers(task.instance, KnowsSites):
        check_shared(root, None, report)
        return
    try:
        listed = task.instance.sites() if task.sound else _Sound(task).sites()
        known = None if listed is None else [str(site) for site in listed]
    except Exception as error:  # the user's task may raise anything
        if not task.sound:
            return
        report("task", f"cannot list its sites: {type(error).__name__}: {error}")
        return
    check_shared(root, known, report)
    if known is None:
        return
    keys = set(known)
    unknown = ((node, key) for node, key in _sites(root) if key and key not in keys)
    for node, key in islice(unknown, _MOST_UNKNOWN_SITES):
        at, how = join(node.place, "name"), "is not a site"
        if "key" in node.data:
            at, how = join(node.place, "data", "key"), f"of site {node.name!r} is not a site"
        report(at, f"{shown(key)} {how} that the task knows{nearest(key, known)}, or give the site data: {{key: ...}}")
    rest = sum(1 for _ in unknown)
    if rest:
        report("federation", f"and {rest} more sites that the task does not know")


def _sites(root: Node) -> list[tuple[Node, str]]:
    """List the sites with their keys, in the order of the YAML."""
    return [(node, str(node.data.get("key", node.name))) for node in root.walk() if node.members is None]


def _timeouts(root: Node, runtime: Runtime, report: Report) -> None:
    """Report limits of nodes on a runtime that cannot keep them."""
    if runtime.kind != "local":
        return
    for node in root.walk():
        if node.own.settings.get("site_timeout_s") is not None:
            report(join(node.place, "site_timeout_s"), NO_TIMEOUT)
