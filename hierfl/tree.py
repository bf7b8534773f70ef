"""A federation's tree before it runs: topology, participation, strategy, rounds, sites and samples of every node.

`survey` makes plain records for machines, `draw` lines for people; both need neither torch nor Ray.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from hierfl.budget import check_budget, costs, counted_on, planned
from hierfl.errors import HierflError
from hierfl.learning.strategies._below import Below
from hierfl.learning.task import CountsSamples, counted, offers
from hierfl.link.cohort import cohort
from hierfl.monitor.outline import Row, members_by_hub, outline
from hierfl.monitor.statistics import asked
from hierfl.monitor.words import count, few, plural
from scheduler.participations.all import All
from tiers.federation import Hub, parent

if TYPE_CHECKING:
    from rich.text import Text

    from hierfl.config.schema import Replication, RunConfig

__all__ = [
    "Node",
    "describe",
    "draw",
    "handed_out",
    "hidden_in_sums",
    "not_kept",
    "paid",
    "sent_small",
    "served_by",
    "survey",
]

SIBLINGS = 20
"""Members of one hub that are drawn at most; the rest is counted."""
ROWS = 200
"""Lines of a drawing at most; a larger tree shows fewer members of each hub."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the tree; counts of a hub are its subtree's, None reads "unknown"."""

    path: str
    is_hub: bool
    num_sites: int
    num_train: int | None
    num_test: int | None
    rounds: int | None = None
    topology: str | None = None
    participation: str | None = None
    """Whom a hub's rounds ask and wait for; None where they wait for all, as a hub does that says nothing."""
    strategy: str | None = None
    redundancy: str | None = None
    """By how many replicas a hub is served, where it is more than one."""
    key: str | None = None
    """A site's key into the task's data."""
    role: str | None = None
    """A site's role, where it does not train."""
    attack: str | None = None
    """What a site does that rehearses an attack."""
    joins_at: int | None = None
    """The first round in which a site is a member, if that is not the first one."""
    leaves_at: int | None = None
    """The first round in which a site is a member no more."""
    epsilon: float | None = None
    """What the whole run costs a site's records, where a privacy mechanism hides them."""
    note: str | None = None
    """Why a site's samples are unknown."""

    def record(self) -> dict[str, Any]:
        """Give the fields that say something, ready for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None and name != "path"}


def survey(config: RunConfig) -> dict[str, Node]:
    """Describe every node by its path, parents before children; samples where the task can count them."""
    federation = config.federation
    nodes: dict[str, Node] = {}
    for path, member in reversed(federation.nodes.items()):  # children before parents: hubs add up their members
        if not isinstance(member, Hub):
            nodes[path] = _site(config, path)
            continue
        num_sites, num_train, num_test = _totals(nodes[child] for child in federation.members(path))
        nodes[path] = Node(
            path,
            is_hub=True,
            num_sites=num_sites,
            num_train=num_train,
            num_test=num_test,
            rounds=member.rounds,
            topology=describe(member.topology),
            participation=None if member.participation == All() else describe(member.participation),
            strategy=describe(config.hubs[path].strategy),
            redundancy=_replicas(config.hubs[path].redundancy),
        )
    for path, cost in costs(config, counted_on(config, {path: node.num_train for path, node in nodes.items()})).items():
        nodes[path] = replace(nodes[path], epsilon=cost.epsilon)
    return {path: nodes[path] for path in federation.nodes}


def paid(config: RunConfig) -> dict[str, str]:
    """Say what privacy costs, by path, as far as the records can be counted here. Errors: ConfigError for too much."""
    private = [path for path, site in config.sites.items() if site.privacy is not None]
    counts = counted_on(config, {path: _site(config, path).num_train for path in private})
    check_budget(config, counts)
    return planned(config, counts)


def draw(nodes: Mapping[str, Node]) -> Text:
    """Draw the surveyed tree; of many siblings only the first are drawn, the rest is counted."""
    from rich.text import Text

    rows = outline(members_by_hub(nodes), next(iter(nodes)), rows=ROWS, siblings=SIBLINGS)
    return Text("\n").join(_line(row, nodes) for row in rows)


def sent_small(config: RunConfig) -> dict[str, str]:
    """Say what makes updates small, by the hub's path: adapters, at the root; how many of its sites compress and how,
    and its own.

    What is handed up beside that are exact sums, whole.
    """
    from hierfl.runtime.specs import passes_up

    tree, found = config.federation, {}
    adapters = config.lora
    for path in tree.hubs:
        kinds = Counter(
            describe(one)
            for member in tree.members(path)
            if member in config.sites and config.sites[member].trains
            if (one := config.sites[member].compression) is not None
        )
        said = [f"{plural(number, 'site')} by {kind}" for kind, number in kinds.items()]
        own = config.hubs[path].compression
        if own is not None and parent(path) is not None:
            sums = passes_up(config, path)
            said.append("hands up the exact sum of its members, whole" if sums else f"its own by {describe(own)}")
        if said:
            found[path] = f"compression: {', '.join(said)}"
    if adapters is not None:
        whole = f", and whole {', '.join(adapters.whole)}" if adapters.whole else ""
        travels = f"lora: adapters of rank {adapters.rank} on {', '.join(adapters.layers)}{whole} travel"
        root = tree.root.name
        found[root] = "; ".join([travels, *([found[root]] if root in found else [])])
    return found


def served_by(config: RunConfig) -> dict[str, str]:
    """Say by how many replicas hubs are served and what these hold out, where that is other than at the hub above."""
    found = {}
    for path in config.federation.hubs:
        said, above = config.hubs[path].redundancy, parent(path)
        if (above is None or config.hubs[above].redundancy != said) and (above is not None or said.replicas > 1):
            others = said.replicas - 1
            holds = f"any {others} may die or hang" if others else "it is replaced when it dies or hangs"
            if said.mode == "vote":
                holds = f"any {said.replicas // 2} may die, hang or lie"
            served = _replicas(said) or "1 replica"
            found[path] = f"redundancy: {served}, lease {said.lease_s:g} s: {holds}"
    return found


def _replicas(said: Replication) -> str | None:
    """Say how many replicas there are, and that they vote; None where there is one."""
    if said.replicas == 1:
        return None
    return f"{said.replicas} replicas" + (" that vote" if said.mode == "vote" else "")


def not_kept(config: RunConfig) -> dict[str, str]:
    """Say, at the root, what a run loses that is killed where it keeps no journal though nobody said so."""
    hubs, every = config.federation.without_centre, config.output.checkpoint_every
    if not hubs or config.redundancy.journal == "none":
        return {}
    often = "each round" if every == 1 else f"every {every} rounds"
    said = f"journal: none is kept, since the members of {few(hubs)} exchange among themselves"
    goes_on = (
        f"a run that is killed goes on from its newest checkpoint (one after {often}), and what came since is done"
    )
    return {config.federation.root.name: f"{said}: {goes_on} again, to the same bits"}


def records_told(config: RunConfig) -> dict[str, str]:
    """Say, at the root, what sites tell of their records, if anything, and that nothing is trained where nothing is."""
    if config.statistics is None:
        return {}
    said = f"statistics: each site tells of {asked(config.statistics)}"
    return {config.federation.root.name: f"{said}; nothing is trained" if config.only_tells else said}


def hidden_in_sums(config: RunConfig) -> dict[str, str]:
    """Say whose updates a hub sees in their sum alone, by the hub's path, and that a simulation does not mask."""
    found = {}
    for path in config.federation.hubs:
        names = [one.rpartition("/")[2] for one in cohort(config, path)]
        if names:
            told = few(names)
            found[path] = (
                f"secure_aggregation: over links the updates of {told} come masked, and only their sum is learned;"
                " `hierfl run` adds up plainly, to the same bits"
            )
    return found


def handed_out(config: RunConfig) -> dict[str, str]:
    """Say which public data hubs hand to whom, by the hub's path, and on what basis; nothing else leaves its holder."""
    found: dict[str, str] = {}
    names: dict[str, list[str]] = {}
    for path, site in config.sites.items():
        for handed in site.handed:
            names.setdefault(handed.hub, []).append(path)
            part = "all" if handed.fraction == 1 else f"{100 * handed.fraction:g}%, drawn for each site,"
            found[handed.hub] = f"shared data: {part} of the training samples of {handed.key!r} go to "
    for hub, paths in names.items():
        told = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
        basis = next(one.basis for one in config.sites[paths[0]].handed if one.hub == hub)
        found[hub] += f"{plural(len(paths), 'site')} that train on them ({told}); basis: {basis}"
    return found


def describe(kind: object) -> str:
    """Name a kind as the YAML does, with the fields that differ from their defaults: `fedavgm (momentum=0.8)`.

    What averages below a strategy is named after it, and no fields that are the strategy's hub's.
    """
    if isinstance(kind, Below):
        return f"averages below {describe(kind.of)}"
    module = type(kind).__module__
    ours = module.startswith(("hierfl.", "tiers.", "scheduler."))
    name = module.rpartition(".")[2].lstrip("_") if ours else f"{module}:{type(kind).__qualname__}"
    if not is_dataclass(kind):
        return name
    changed = []
    for field in fields(kind):
        value = getattr(kind, field.name)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if value != default:
            changed.append(f"{field.name}={value}")
    return f"{name} ({', '.join(changed)})" if changed else name


def _site(config: RunConfig, path: str) -> Node:
    """Describe one site; a site whose data cannot be counted here says why instead."""
    settings = config.sites[path]
    num_train, num_test, note = None, None, None
    if offers(config.task, CountsSamples):
        try:
            num_train, num_test = counted(config.task, settings)
        except HierflError as error:
            note = str(error)
        except Exception as error:  # the user's task may raise anything
            note = f"{type(error).__name__}: {error}"
    role = None if settings.trains else settings.role
    num_test = 0 if settings.pools else num_test  # they are counted where they are measured
    attack = describe(settings.attack) if settings.attack is not None else None
    joins_at = settings.joins_at if settings.joins_at > 1 else None
    return Node(
        path,
        is_hub=False,
        num_sites=1,
        num_train=0 if role else num_train,
        num_test=num_test,
        key=settings.key,
        role=role,
        attack=attack,
        joins_at=joins_at,
        leaves_at=settings.leaves_at,
        note=note,
    )


def _totals(nodes: Iterable[Node]) -> tuple[int, int | None, int | None]:
    """Add up sites, training and test samples; samples are unknown as soon as one node's are."""
    sites, train, test = 0, 0, 0
    known = True
    for node in nodes:
        sites += node.num_sites
        train += node.num_train or 0
        test += node.num_test or 0
        known = known and node.num_train is not None and node.num_test is not None
    return (sites, train, test) if known else (sites, None, None)


def _line(row: Row, nodes: Mapping[str, Node]) -> Text:
    """Write one row of the drawing."""
    from rich.text import Text

    line = Text(row.guide, style="dim")
    if row.hidden:
        return line.append(_rest([nodes[path] for path in row.hidden]), style="dim italic")
    node = nodes[row.path]
    line.append(row.name, style="bold cyan" if node.is_hub else "green")
    if node.is_hub:
        hub = parent(node.path)
        often = plural(node.rounds or 0, "round") + (f" per round of {hub.rpartition('/')[2]}" if hub else "")
        kinds = [kind for kind in (node.topology, node.participation, node.strategy, node.redundancy) if kind]
        line.append(f"  {', '.join([*kinds, often])}", style="not dim")
        return line.append(f"  {plural(node.num_sites, 'site')}{_samples(node.num_train, node.num_test)}")
    if node.key not in (None, row.name):
        line.append(f"  data of {node.key}", style="not dim")
    if node.joins_at or node.leaves_at:
        words = [f"joins at round {node.joins_at}"] if node.joins_at else []
        words += [f"leaves at round {node.leaves_at}"] if node.leaves_at else []
        line.append(f"  {', '.join(words)}", style="not dim")
    if node.epsilon is not None:
        line.append(f"  epsilon {node.epsilon:.3g}", style="not dim")
    if node.attack:
        line.append(f"  attacks: {node.attack}", style="red not dim")
    if node.note:
        return line.append(f"  samples unknown: {node.note}", style="yellow not dim")
    if node.role:
        line.append(f"  {node.role} only", style="not dim")
    return line.append(_samples(node.num_train, node.num_test))


def _rest(nodes: Sequence[Node]) -> str:
    """Count the members that are not drawn."""
    num_sites, num_train, num_test = _totals(nodes)
    num_hubs = sum(node.is_hub for node in nodes)
    hubs = f"{plural(num_hubs, 'more hub')}, " if num_hubs else ""
    return f"{hubs}{plural(num_sites, 'site' if num_hubs else 'more site')}{_samples(num_train, num_test)}"


def _samples(num_train: int | None, num_test: int | None) -> str:
    return "" if num_train is None or num_test is None else f"  train {count(num_train)}, test {count(num_test)}"
