"""The immutable tree of a federation: sites are leaves, hubs are inner nodes, and to its parent a hub is a member
like any other (Rieke et al. 2020, Fig. 2: topologies a-d).

A path joins names by "/": `world/us/cleveland`. A change of the tree gives a new tree with the next epoch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from scheduler.participations.all import All
from tiers.topologies.star import Star

if TYPE_CHECKING:
    from scheduler.participation import Participation
    from tiers.topology import Topology

__all__ = ["Federation", "Hub", "Member", "Site", "is_within", "parent", "rounds_per_round"]


@dataclass(frozen=True, slots=True)
class Site:
    """A leaf: holds private data and trains locally."""

    name: str

    def __post_init__(self) -> None:
        _check_name(self.name)


@dataclass(frozen=True, slots=True)
class Hub:
    """An inner node: a sub-federation of sites and hubs, in the order of the configuration.

    `rounds`: at the root the rounds of the run, at an inner hub its rounds per round of its parent (HierFAVG's kappa,
    Liu et al. 2020). `quorum`: the fraction of members that a round must not lose to go on, when `keep_going`.
    `participation`: whom a round asks, and until when it waits.
    """

    name: str
    members: tuple[Member, ...]
    rounds: int = 1
    topology: Topology = field(default_factory=Star)
    keep_going: bool = False
    quorum: float = 1.0
    participation: Participation = field(default_factory=All)

    def __post_init__(self) -> None:
        _check_name(self.name)
        names = [member.name for member in self.members]
        doubles = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if doubles:
            raise ValueError(f"hub {self.name!r} has two members of one name: {doubles}")
        if not self.members:
            raise ValueError(f"hub {self.name!r} has no members")
        if self.rounds < 1:
            raise ValueError(f"hub {self.name!r} has rounds {self.rounds}; at least 1")
        if not 0.0 < self.quorum <= 1.0:
            raise ValueError(f"hub {self.name!r} has quorum {self.quorum}; a fraction above 0, at most 1")

    @property
    def may_leave_out(self) -> bool:
        """Whether what a member sends may not count, or not whole: it comes too late, or it is lost."""
        return self.keep_going or self.participation.may_close_early


Member: TypeAlias = Site | Hub


@dataclass(frozen=True)
class Federation:
    """The tree under one root hub, with the epoch of its membership."""

    root: Hub
    epoch: int = 0

    @cached_property
    def nodes(self) -> dict[str, Member]:
        """Every node by its path, parents before children, in the order of the configuration."""
        return dict(_walk(self.root, self.root.name))

    @cached_property
    def hubs(self) -> dict[str, Hub]:
        """Every hub by its path, the root first."""
        return {path: node for path, node in self.nodes.items() if isinstance(node, Hub)}

    @cached_property
    def sites(self) -> dict[str, Site]:
        """Every site by its path."""
        return {path: node for path, node in self.nodes.items() if isinstance(node, Site)}

    @property
    def without_centre(self) -> tuple[str, ...]:
        """List the hubs whose members exchange vectors among themselves, by path."""
        return tuple(path for path, hub in self.hubs.items() if not hub.topology.has_centre)

    @property
    def num_tiers(self) -> int:
        """Count the levels of the tree, the root's and the deepest sites' included."""
        return 1 + max(path.count("/") for path in self.nodes)

    def only(self, sites: Collection[str], epoch: int) -> Federation:
        """Give the tree of these sites and the hubs above them, as another epoch; the order stays.

        Errors: ValueError if no site is left.
        """
        kept: dict[str, Member] = {}
        for path, node in reversed(self.nodes.items()):  # members before their hub
            if isinstance(node, Site):
                if path in sites:
                    kept[path] = node
                continue
            members = tuple(kept[member] for member in self.members(path) if member in kept)
            if members:
                kept[path] = replace(node, members=members)
        root = kept.get(self.root.name)
        if not isinstance(root, Hub):
            raise ValueError(f"{self.root.name} has no site left")
        return Federation(root, epoch)

    def members(self, path: str) -> tuple[str, ...]:
        """List the paths of a hub's members; KeyError if there is no such hub."""
        return tuple(f"{path}/{member.name}" for member in self.hubs[path].members)


def parent(path: str) -> str | None:
    """Name the hub that a path belongs to; None at the root."""
    return path.rpartition("/")[0] or None


def is_within(path: str, top: str) -> bool:
    """Say whether a node is the one at `top`, or below it."""
    return f"{path}/".startswith(f"{top}/")


def rounds_per_round(tree: Federation, hub: str) -> int:
    """Count a hub's rounds per round of the root."""
    found = 1
    while (above := parent(hub)) is not None:
        found *= tree.hubs[hub].rounds
        hub = above
    return found


def _walk(node: Member, path: str) -> Iterator[tuple[str, Member]]:
    """Walk a tree without recursion: depth is unlimited."""
    stack: list[tuple[str, Member]] = [(path, node)]
    while stack:
        here, current = stack.pop()
        yield here, current
        if isinstance(current, Hub):
            stack.extend((f"{here}/{member.name}", member) for member in reversed(current.members))


def _check_name(name: str) -> None:
    """A name is a path's part: not empty, no slash."""
    if not name or "/" in name:
        raise ValueError(f"a node's name must not be empty or hold '/': {name!r}")
