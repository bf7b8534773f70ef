"""What hubs need for their next rounds beside a model: states of strategies, who keeps being lost, what is held."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from hierfl.checkpoint import Checkpoint
from hierfl.config.schema import RunConfig
from hierfl.learning.compression import RESIDUAL, as_sum
from hierfl.learning.local import adds_up
from hierfl.learning.ring import PartialSum
from hierfl.runtime.driver import Driver, Handle
from hierfl.runtime.hub import grid_of
from hierfl.runtime.hubs import Kept
from hierfl.runtime.jobs import Memory
from hierfl.runtime.sums import Part
from tiers.federation import Federation, parent, rounds_per_round

__all__ = ["Keys", "Remembered", "still_true"]


T = TypeVar("T")


class Fetched(TypedDict):
    """The fields of a checkpoint that hold what was remembered."""

    states: Mapping[str, Any]
    hubs: Mapping[str, tuple[Memory, tuple[PartialSum, ...]]]
    sites: Mapping[str, Any]


@dataclass(frozen=True)
class Keys:
    """Whose vectors follow, in their order: states of hubs, updates that hubs hold, what sites keep."""

    states: tuple[str, ...]
    memories: Mapping[str, Memory]
    sites: tuple[str, ...]

    def joined(self, vectors: Sequence[Any]) -> Fetched:
        """Give each its vectors, as a checkpoint holds them."""
        left = iter(vectors)
        states = {hub: next(left) for hub in self.states}
        hubs = {
            hub: (memory, tuple(_summed(memory, [next(left) for _ in memory.standing.held])))
            for hub, memory in self.memories.items()
        }
        return {"states": states, "hubs": hubs, "sites": {site: next(left)[site] for site in self.sites}}


@dataclass(frozen=True)
class Remembered:
    """By hub; the vectors lie with the driver. `sites`: mappings that hold what a site keeps; `members`: models that
    the root's members keep of their own, by their paths; `distances`: how far apart members' own models were last.
    """

    states: Mapping[str, Handle] = field(default_factory=dict)
    hubs: Mapping[str, Kept] = field(default_factory=dict)
    sites: Mapping[str, Handle] = field(default_factory=dict)
    members: Mapping[str, Handle | Path] = field(default_factory=dict)
    distances: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, saved: Checkpoint, config: RunConfig, driver: Driver) -> Remembered:
        """Take what a checkpoint has, as far as it is true of the federation as it is now."""
        federation, hubs = config.federation, {}
        for path, (memory, payloads) in saved.hubs.items():
            kept = still_true(memory, payloads, path, saved.rounds_done, federation)
            if kept is not None:
                hubs[path] = Kept(kept[0], tuple(driver.put(part) for part in kept[1]))
        sites = {path: driver.put({path: dict(kept)}) for path, kept in saved.sites.items() if path in federation.sites}
        own = {hub: state for hub, state in saved.states.items() if hub in federation.hubs}
        states = {hub: driver.put(dict(one) if isinstance(one, Mapping) else one) for hub, one in own.items()}
        members = {path: file for path, file in saved.members.items() if path in federation.nodes}
        distances = {path: apart for path, apart in saved.distances.items() if path in federation.hubs}
        found = cls(states, hubs, sites, members, distances)
        return found if saved.epoch == federation.epoch else found._uncorrected(config, driver)

    def within(self, config: RunConfig, rounds_done: int, driver: Driver) -> Remembered:
        """Take what is true of another epoch's tree: who has left is forgotten, and nobody is at work."""
        federation, hubs = config.federation, {}
        for path, kept in self.hubs.items():
            true = still_true(kept.memory, kept.payloads, path, rounds_done, federation)
            if true is not None:
                hubs[path] = Kept(*true)
        return Remembered(
            {hub: state for hub, state in self.states.items() if hub in federation.hubs},
            hubs,
            {site: kept for site, kept in self.sites.items() if site in federation.sites},
            {path: model for path, model in self.members.items() if path in federation.nodes},
            {path: apart for path, apart in self.distances.items() if path in federation.hubs},
        )._uncorrected(config, driver)

    def _uncorrected(self, config: RunConfig, driver: Driver) -> Remembered:
        """Let corrections begin anew that hubs and sites keep, with the late updates that have changes of them: with
        other members a hub's is no mean of the sites' any more, and would not become it. What a compression has left
        out goes on.
        """
        anew = {path for path, hub in config.hubs.items() if adds_up(hub.strategy.objective())}
        if not anew:
            return self
        states, sites = dict(self.states), dict(self.sites)
        for hub, state in self.states.items():
            if hub in anew:
                del states[hub]
                if config.hubs[hub].compression is not None and (left := _left_out(driver.get(state))):
                    states[hub] = driver.put(left)
        for site, handle in self.sites.items():
            if parent(site) in anew:
                del sites[site]
                if config.sites[site].compression is not None and (left := _left_out(driver.get(handle)[site])):
                    sites[site] = driver.put({site: left})
        hubs = {hub: _without_late(kept) if hub in anew else kept for hub, kept in self.hubs.items()}
        return replace(self, states=states, hubs=hubs, sites=sites)

    def apart(self) -> tuple[Keys, list[Handle]]:
        """Give whose vectors there are, and the vectors; members' own models aside."""
        memories = {hub: kept.memory for hub, kept in self.hubs.items()}
        held = [part for kept in self.hubs.values() for part in kept.payloads]
        return Keys(tuple(self.states), memories, tuple(self.sites)), [
            *self.states.values(),
            *held,
            *self.sites.values(),
        ]

    def fetched(self, driver: Driver) -> Fetched:
        """Fetch the vectors, as a checkpoint holds them."""
        keys, handles = self.apart()
        return keys.joined([driver.get(handle) for handle in handles])


def _left_out(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a compression has left out so far, of all that is kept."""
    return {name: vector for name, vector in kept.items() if name == RESIDUAL}


def _without_late(kept: Kept) -> Kept:
    """Forget the updates that a hub holds, and which did not count whole."""
    return Kept(Memory(replace(kept.memory.standing, held=(), shortfalls={})), ())


def _summed(memory: Memory, payloads: Sequence[Part]) -> Iterator[PartialSum]:
    """Put held updates on their rounds' grids."""
    for update, part in zip(memory.standing.held, payloads, strict=True):
        yield as_sum(part, grid_of(memory.openings[update.round_number]))


def still_true(
    memory: Memory, payloads: tuple[T, ...], hub: str, rounds_done: int, federation: Federation
) -> tuple[Memory, tuple[T, ...]] | None:
    """Give what is left of a memory in another process: nobody is at work, and members may have gone.

    None if there is nothing, or if the hub's rounds are counted otherwise now. `rounds_done`: of the root.
    """
    if hub not in federation.hubs:
        return None
    if memory.standing.round_number >= rounds_done * rounds_per_round(federation, hub):
        return None
    names = {member.name for member in federation.hubs[hub].members}
    held = [
        (update, part)
        for update, part in zip(memory.standing.held, payloads, strict=True)
        if update.shares[0].member in names
    ]
    losses = {name: lost for name, lost in memory.standing.losses.items() if name in names}
    standing = memory.standing.without_errands()
    short = {name: found for name, found in standing.shortfalls.items() if name in names}
    standing = replace(standing, losses=losses, held=tuple(update for update, _ in held), shortfalls=short)
    if not standing.matters:
        return None
    rounds = {update.round_number for update, _ in held}
    openings = {number: opening for number, opening in memory.openings.items() if number in rounds}
    return Memory(standing, openings), tuple(part for _, part in held)
