"""What is said before the first round: what is simulation, what goes to whom, and what sites tell of their records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hierfl.budget import counted_on, planned
from hierfl.config.membership import Epoch
from hierfl.config.places import join
from hierfl.config.schema import DeviceGroup, RunConfig, Runtime
from hierfl.config.values import plain
from hierfl.doubles import doubles
from hierfl.errors import DataError
from hierfl.kinds import name_of, nearest
from hierfl.learning.local import adds_up
from hierfl.learning.state import Layout
from hierfl.learning.statistics import TableStatistics
from hierfl.learning.strategy import Strategy
from hierfl.monitor.records import NodesChanged, Notice, Record
from hierfl.monitor.statistics import FILE, Told, write_statistics
from hierfl.monitor.words import few, plural
from hierfl.runtime.jobs import Inventory
from hierfl.runtime.specs import passes_up
from hierfl.runtime.survey import patients_of
from hierfl.summary import idle_nodes, simulated, unmixed, wide_adapters
from hierfl.tree import handed_out, not_kept
from hierfl.untested import untested
from scheduler.participations.all import All
from tiers.federation import Hub, parent

__all__ = ["begun", "doubts", "for_ray", "foretold", "keep_statistics", "not_plain", "out_of_step", "rolled_up"]

OF_RAY = {
    Runtime: (
        *("address", "share", "cpus_per_worker", "gpus_per_worker", "resources_per_worker"),
        *("num_cpus", "num_gpus", "num_aggregators"),
    ),
    DeviceGroup: ("cpus", "gpus", "resources"),
}
"""Keys of `runtime`, and of a group of its devices, that are for Ray. One YAML serves a laptop and a cluster: they may
stand there on the local runtime, too; but for limits of time, which are refused where they would not be kept."""

OUT_OF_STEP = (
    "a strategy under which sites and hub keep corrections (scaffold, feddyn) needs every update of {hub} to count"
    " here, since {hub} {does}: of one that comes late, or is lost, its sites take back their part of the newest round,"
    " but not all that earlier ones left in it, and the model may end beside the optimum; let rounds here wait for all"
    " members (participation: all, on_failure: stop), give {hub} {instead}, or take fedprox"
)

PARTLY = (
    "feddyn needs all members of {hub} in each of its rounds, since the mean that it hands up is taken for that of all:"
    " where some are not asked or lost, sites and hub keep corrections that do not agree, and the model ends beside the"
    " optimum; take participation: all here, or scaffold"
)

NOT_PLAIN = (
    "{kind} counts on plain steps at the sites (optimizer: sgd, without momentum), after which a site's change over its"
    " steps is a mean gradient; with {how} at {sites} it may do worse than fedavg: take sgd, or fedprox"
)

MANY = 1_000_000
"""A member's weight; a policy that counts late updates counts something of this one."""


def foretold(config: RunConfig, num_samples: Mapping[str, int | None]) -> Iterator[tuple[str, str, str]]:
    """Say what a person should know of a run before it trains: path, level of the notice, and what."""
    yield from simulated(config)
    for path, what in (*doubts(config).items(), *doubles(config).items()):
        yield path, "warning", what
    privacy = planned(config, num_samples)
    told = for_ray(config), handed_out(config), not_kept(config), privacy
    for path, what in (pair for one in told for pair in one.items()):
        yield path, "info", what


def begun(
    config: RunConfig,
    epoch: Epoch,
    inventories: Mapping[str, Inventory],
    num_samples: Mapping[str, int],
    layout: Layout,
    time_s: float,
    first_round: int,
) -> Iterator[Record]:
    """Say what a person should know of a run as its first round begins, and who has nothing to train or to test on."""
    for path, level, what in foretold(config, counted_on(config, num_samples, patients_of(inventories))):
        yield Notice(time_s, level, path, what)
    for path, level, why in idle_nodes(config, epoch, inventories, num_samples):
        yield NodesChanged(time_s, (path,), "skipped", first_round)
        yield Notice(time_s, level, path, why)
    for path, level, what in untested(config, epoch, inventories):
        yield Notice(time_s, level, path, what)
    for warning in filter(None, (wide_adapters(layout), unmixed(config, inventories))):
        yield Notice(time_s, "warning", "", warning)


def for_ray(config: RunConfig) -> dict[str, str]:
    """Name, at the root, the keys that are set for Ray on a runtime that has none; those of the YAML, as the process of
    a node changes its own.
    """
    if config.runtime.kind != "local":
        return {}
    given = config.resolved.get("runtime", {})
    groups = [(join("runtime.devices", index), group) for index, group in enumerate(given.get("devices", ()))]
    keys = _changed("runtime", given, Runtime())
    keys += [key for place, group in groups for key in _changed(place, group, DeviceGroup(group["name"]))]
    said = "set for runtime.kind: ray, and without effect on local, as here"
    return {config.federation.root.name: f"{said}: {few(keys)}"} if keys else {}


def _changed(place: str, given: Mapping[str, Any], usual: Runtime | DeviceGroup) -> list[str]:
    """List the keys for Ray that are not as they usually are."""
    values = {**plain(usual), **given}
    return [join(place, name) for name in OF_RAY[type(usual)] if values[name] != plain(getattr(usual, name))]


def out_of_step(config: RunConfig) -> dict[str, str]:
    """Name hubs where sites below and a hub above may add up different things, where the strategy needs both to agree
    (Karimireddy et al. 2020, Algorithm 1: c is the mean of the c_k; Acar et al. 2021 likewise).

    Of an update that does not count, its own or its hub's, a site takes back what it kept at its last training. An
    update of a hub that has several rounds for it, or takes late ones of earlier rounds, has more of a site than that.
    A hub that decodes its sum tells with the change of c how many took part; for h there is no change.
    """
    tree, found = config.federation, dict[str, str]()
    for path in dict.fromkeys(map(parent, config.sites)):
        node, several = path or "", ""
        while (above := parent(node)) is not None and adds_up(rule := config.hubs[above].strategy.objective()):
            hub = tree.hubs[node]
            several = several or _has_several(node, hub)
            if several and tree.hubs[above].may_leave_out:
                found.setdefault(above, several)
            is_whole = isinstance(hub.participation, All) and not hub.keep_going
            if not rule.channels(1) and not is_whole and not passes_up(config, node):
                found.setdefault(node, PARTLY.format(hub=node))
            node = above
    return found


def not_plain(config: RunConfig) -> dict[str, str]:
    """Name hubs whose strategy counts on plain SGD at the sites, where some of these train otherwise."""
    off: dict[str, dict[str, str]] = {}
    for path, site in config.sites.items():
        training, hub = site.training, parent(path) or ""
        how = training.optimizer.lower()
        if how == "sgd":
            how = "momentum" if training.optimizer_options.get("momentum") else ""
        if how and site.trains and getattr(_above(config, hub), "plain_steps", False):
            off.setdefault(hub, {})[path] = how
    return {
        hub: NOT_PLAIN.format(
            kind=name_of(type(_above(config, hub))),
            how=" or ".join(dict.fromkeys(sites.values())),
            sites=few(list(sites)),
        )
        for hub, sites in off.items()
    }


def doubts(config: RunConfig) -> dict[str, str]:
    """Name hubs of whose strategy more is asked than it can do, and why."""
    found = out_of_step(config)
    for hub, why in not_plain(config).items():
        found[hub] = f"{found[hub]}; and {why}" if hub in found else why
    return found


def _above(config: RunConfig, hub: str) -> Strategy:
    """Give a hub's strategy, or the one above by which it and its sites go."""
    strategy = config.hubs[hub].strategy
    return getattr(strategy, "of", None) or strategy


def _has_several(path: str, hub: Hub) -> str:
    """Say that one update of a hub may have several of a site, and why; empty if it has not."""
    if hub.rounds > 1:
        return OUT_OF_STEP.format(hub=path, does=f"has {hub.rounds} rounds for each", instead="rounds: 1")
    if hub.participation.admit(MANY, 1).weight:
        return OUT_OF_STEP.format(
            hub=path, does="counts late updates of its members", instead="late: refuse, or another participation"
        )
    return ""


def rolled_up(config: RunConfig, inventories: Mapping[str, Inventory]) -> dict[str, TableStatistics]:
    """Give what sites have told of their records, hubs rolled up; by path, the root first. Empty where nobody is asked.

    Errors: DataError where somebody tells what was not agreed to.
    """
    tree, wanted = config.federation, config.statistics
    if wanted is None:
        return {}
    found = {path: item.statistics for path, item in inventories.items() if item.statistics is not None}
    for path in reversed(list(tree.hubs)):
        told = {member: found[member] for member in tree.members(path) if member in found}
        for member, statistics in told.items():
            try:
                statistics.check(wanted)
            except DataError as error:
                raise DataError(f"what {member} tells of its records: {error}") from error
        if told:
            found[path] = TableStatistics.total(list(told.values()))
    return {path: found[path] for path in tree.nodes if path in found}


def keep_statistics(
    config: RunConfig, inventories: Mapping[str, Inventory], run_dir: Path, facts: dict[str, Any]
) -> str:
    """Keep in the run's folder what sites have told of their records, and say so; empty where nobody was asked.

    `facts`: of the run's summary. Errors: OutputError; DataError for a column that no site has, or where none has any:
    among the run's first members, as those who leave may take one with them.
    """
    wanted, found = config.statistics, rolled_up(config, inventories)
    is_first = config.federation.epoch == 0
    if wanted is None or not (found or is_first):
        return ""
    if not found:
        raise DataError("no site has told anything of its records; what is wrong with each stands above")
    total = found[config.federation.root.name]
    for name in (*(wanted.columns or ()), *wanted.ranges):
        if is_first and name not in total.columns:
            raise DataError(f"statistics: no site has a column {name!r}{nearest(name, total.columns)}")
    told = Told(wanted.min_count, {path: one.as_json(wanted.ranges) for path, one in found.items()})
    write_statistics(run_dir, told)
    facts["statistics"] = {"file": FILE, "num_rows": total.num_rows, "num_columns": len(total.columns)}
    records, columns = plural(total.num_rows, "record"), plural(len(total.columns), "column")
    return f"sites have told of {records} in {columns}: {run_dir / FILE}"
