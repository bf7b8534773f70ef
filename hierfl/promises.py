"""What the strategies of hubs hold out against, and what of it is left where rounds have fewer members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hierfl.config.membership import epochs
from hierfl.config.rehearse import fewest
from hierfl.learning.strategy import Reducer
from hierfl.monitor.words import plural
from hierfl.tree import describe
from tiers.federation import parent

if TYPE_CHECKING:
    from hierfl.config.schema import RunConfig
    from tiers.federation import Federation

__all__ = ["promises"]


def promises(config: RunConfig) -> dict[str, str]:
    """Say what the strategies of hubs hold out against, by path, and where a hub below has no defence of its own.

    A rule protects the hub at which it stands: a member that is a hub counts as one, with whatever its own sites can
    make it send. Rules at several tiers do not add up to one over all sites; how many bad sites are held off wherever
    they are is said where there are hubs below.
    """
    tree, found, trained = config.federation, {}, _trained(config)
    there = [(epoch.config.federation, _trained(epoch.config)) for epoch in epochs(config)]
    takes = _takes(config, trained)
    for path in tree.hubs:
        strategy = config.hubs[path].strategy
        if not isinstance(strategy, Reducer):
            continue
        num, of = _fewest(config, path, there)
        said = f"{describe(strategy)}: {strategy.promise(num)}"
        said += f"; a round may have no more than {num} of its {of}" if num < of else ""
        below = [child for child in tree.members(path) if child in tree.hubs]
        open_ones = [child for child in below if not isinstance(config.hubs[child].strategy, Reducer)]
        if below and takes[path] > 1:
            said += f"; held off, wherever below it they are: {plural(takes[path] - 1, 'bad site')}"
        if open_ones:
            names = ", ".join(child.rpartition("/")[2] for child in open_ones[:3]) + (" ..." if open_ones[3:] else "")
            said += f"; a hub counts as one member, and in {names} a single bad site makes its hub a bad one"
        found[path] = said
    return found


def _fewest(config: RunConfig, hub: str, there: Sequence[tuple[Federation, set[str]]]) -> tuple[int, int]:
    """Count the members that train in a round of a hub where they are fewest, and those that do at all then. `there`:
    the tree of each epoch and who trains in it.
    """
    counts = []
    for tree, trained in there:
        if hub in trained:
            names = [path.rpartition("/")[2] for path in tree.members(hub) if path in trained]
            counts.append((fewest(tree.hubs[hub].participation, hub, config.seed, names), len(names)))
    return min(counts, default=(0, 0))


def _takes(config: RunConfig, trained: set[str]) -> dict[str, int]:
    """Count by path the fewest bad sites that can make a node send anything at all: 1 at a site, and at a hub those
    that turn the cheapest of its members, one more than its rule tolerates.
    """
    tree, found = config.federation, {}
    for path in reversed(tree.nodes):  # children before parents
        if path not in tree.hubs:
            found[path] = 1
            continue
        members = [member for member in tree.members(path) if member in trained]
        if any(member in config.sites and config.sites[member].part is not None for member in members):
            found[path] = 1  # the parts of one site
            continue
        turned = getattr(config.hubs[path].strategy, "tolerates", 0) + 1
        found[path] = sum(sorted(found[member] for member in members)[:turned])
    return found


def _trained(config: RunConfig) -> set[str]:
    """Name the sites that train and the hubs above them."""
    found: set[str] = set()
    for site, settings in config.sites.items():
        path: str | None = site if settings.trains else None
        while path is not None and path not in found:
            found.add(path)
            path = parent(path)
    return found
