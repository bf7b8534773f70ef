"""What is rehearsed on a federation: which fault, where, and what is expected of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hierfl.config.schema import RunConfig
from hierfl.fault import EXCHANGE, HUB_STEPS, MEMBER_STEPS, RUN, RUN_STEPS, SITE_STEPS
from hierfl.faults.lie import WHAT as LIES
from tiers.federation import parent, rounds_per_round
from tiers.plan import Partners

__all__ = ["Case", "cases", "in_round"]

HANGS_S = 2.0
LATE_S = 1.0


@dataclass(frozen=True)
class Case:
    """One row of the drill: these faults in one round of the root.

    `hub`: whose next answer says that all goes on; `may_retrain`: sites' work was lost with the process; `cause`:
    for which a process must have been replaced; `resumes`: the run ends, and is taken up again; `unless`: why there is
    nothing to rehearse.
    """

    kind: str
    node: str
    step: str
    expects: str
    hub: str
    faults: tuple[dict[str, Any], ...] = ()
    may_retrain: bool = False
    cause: str = ""
    resumes: bool = False
    unless: str = ""


def cases(config: RunConfig) -> list[Case]:
    """List the rows that go with a federation, those that end the run last."""
    return [*_hubs(config), *_messages(config), *_lies(config), *_sites(config), *_exchanges(config), *_run(config)]


def _hubs(config: RunConfig) -> Iterator[Case]:
    """Faults of aggregators: the root's at each step, the largest inner hub's at some."""
    root, inner = config.federation.root.name, _largest(config)
    replaced = "replaced; told the same again; nobody trains again"
    for step in HUB_STEPS:
        yield Case("kill", root, step, replaced, root, (_fault("kill", root, step),))
    if inner:
        for step in ("after_accept", "mid_aggregate", "after_publish"):
            yield Case("kill", inner, step, replaced, inner, (_fault("kill", inner, step),))
        both = tuple(_fault("kill", hub, "after_accept") for hub in (root, inner))
        yield Case("kill", f"{root} and {inner}", "after_accept", replaced, root, both)
    yield _hang(config, root, "after_accept", "goes on where it stood")


def _messages(config: RunConfig) -> Iterator[Case]:
    """Faults of what is said to the root."""
    root, step = config.federation.root.name, "before_accept"
    if not config.federation.root.topology.has_centre:
        return
    twice = _fault("duplicate", root, step, copies=10)
    yield Case("duplicate", root, step, "counted once", root, (twice,))
    damaged = _fault("corrupt", root, step, bit=5)
    yield Case("corrupt", root, step, "refused, and sent again", root, (damaged,), cause="damaged")
    cut = _fault("partition", root, step, after_s=HANGS_S)
    yield Case("partition", root, step, "held up, in order, or taken for dead", root, (cut,))


def _lies(config: RunConfig) -> Iterator[Case]:
    """Aggregators that lie, where replicas vote."""
    votes = [path for path, hub in config.hubs.items() if hub.redundancy.mode == "vote"]
    votes = [path for path in votes if config.federation.hubs[path].topology.has_centre]
    hub, expects = (votes or [config.federation.root.name])[0], "outvoted, named and replaced"
    for what, step in LIES.items():
        if not votes:
            yield Case("lie", hub, what, expects, hub, unless="not tolerated without redundancy.mode: vote")
        else:
            lie = _fault("lie", hub, step, what=what)
            yield Case("lie", hub, what, expects, hub, (lie,), cause="outvoted")


def _sites(config: RunConfig) -> Iterator[Case]:
    """Faults of workers, and of what they send."""
    site = next(path for path, settings in config.sites.items() if settings.trains)
    hub = parent(site) or ""
    again = "replaced; trains again what it had not handed up"
    for step in SITE_STEPS:
        yield Case("kill", site, step, again, hub, (_fault("kill", site, step),), may_retrain=True)
    yield _hang(config, site, "training", "waited for")
    late = _fault("delay", site, "trained", after_s=LATE_S)
    closes = config.federation.hubs[hub].participation.may_close_early
    yield Case("delay", site, "trained", "carried over or left out, by name" if closes else "waited for", hub, (late,))


def _exchanges(config: RunConfig) -> Iterator[Case]:
    """Faults of a member's place, where all have a part in each exchange: in a swarm the leader's alone has one."""
    for hub in [path for path, hub in config.federation.hubs.items() if not hub.topology.has_centre]:
        trains = [path for path in config.sites if path.startswith(f"{hub}/") and config.sites[path].trains]
        members = tuple(dict.fromkeys(path[len(hub) + 1 :].partition("/")[0] for path in trains))
        partners = Partners(hub, 0, config.seed, dict.fromkeys(members, 1))
        plan = config.federation.hubs[hub].topology.plan(partners)
        if {step.at for step in plan.exchange} != set(members):
            continue
        member = f"{hub}/{members[0]}"
        for step in MEMBER_STEPS:
            yield Case("kill", member, step, "asked again, to the same bits", hub, (_fault("kill", member, step),))
        return


def _run(config: RunConfig) -> Iterator[Case]:
    """The run itself is killed at each step, and resumed."""
    expects = "resumed; who was journalled does not train again"
    root = config.federation.root.name
    for step in RUN_STEPS:
        yield Case("kill", RUN, step, expects, root, (_fault("kill", RUN, step),), may_retrain=True, resumes=True)


def _hang(config: RunConfig, node: str, step: str, expects: str) -> Case:
    if config.runtime.kind == "local":
        return Case("hang", node, step, expects, node, unless="needs a process of its own: --runtime ray")
    hub = node if node in config.federation.hubs else parent(node) or ""
    return Case("hang", node, step, expects, hub, (_fault("hang", node, step, after_s=HANGS_S),))


def _fault(kind: str, node: str, step: str, **own: Any) -> dict[str, Any]:
    return {"kind": kind, "node": node, "step": step, **own}


def in_round(case: Case, config: RunConfig, number: int) -> list[dict[str, Any]]:
    """Give a case's faults as they happen in a round of the root, from 1; a hub publishes in the last of its own."""
    found = []
    for fault in case.faults:
        node, tree = fault["node"], config.federation
        hub = node if node in tree.hubs and fault["step"] != EXCHANGE else parent(node)
        each = 1 if hub is None else rounds_per_round(tree, hub)
        own = each if fault["step"].endswith("_publish") else 1
        found.append({**fault, "round": (number - 1) * each + own})
    return found


def _largest(config: RunConfig) -> str:
    """Name the hub below the root with most members; empty where there is none."""
    inner = {path: len(hub.members) for path, hub in config.federation.hubs.items() if parent(path) is not None}
    return max(inner, key=lambda path: inner[path], default="")
