"""A node's part in hubs without a centre, put together: its way to the others, its place, and the door that hands out
what lies there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hierfl.config.schema import RunConfig
from hierfl.link.dialer import Dialer
from hierfl.link.door import Tell
from hierfl.link.identity import exchanging, peers_of
from hierfl.link.kit import Kit
from hierfl.link.objects import Objects
from hierfl.link.payload import Shape
from hierfl.link.peers import Neighbours, PeerDoor
from hierfl.link.place import Workplace
from hierfl.link.store import Store

__all__ = ["neighbours", "workplace"]

PLACE = "place"


def neighbours(config: RunConfig, kit: Kit, tell: Tell) -> Neighbours | None:
    """Give the way to those whose vectors a node takes; None where it takes none."""
    found = {peer: config.links[peer].peers or "" for peer in peers_of(config, kit.path)}
    if not found:
        return None
    deadlines = [config.links[node].deadline_s for node in (kit.path, *found) if node in config.links]
    return Neighbours(kit, found, max(deadlines), lambda level, said: tell(level, kit.path, said))


@contextlib.contextmanager
def workplace(
    config: RunConfig, kit: Kit, tell: Tell, store: Store, models: Path, dialer: Dialer, listen: str | None
) -> Iterator[Workplace | None]:
    """Give a member's place while its door is open; None where its hub has a centre. Errors: LinkError.

    `models`: where the models lie that people take; `listen`: None takes the port of `link.peers`, at all interfaces.
    """
    path, way = kit.path, neighbours(config, kit, tell)
    if way is None or not exchanging(config, path):
        yield None
        return

    def take(holder: str, shape: Shape, digest: bytes, to: Path, limit: int | None) -> None:
        if holder:
            way.take(holder, shape, digest, to, limit)
        else:
            dialer.fetch(shape, digest, to)

    place = Workplace(config, path, Objects(store.folder / PLACE), store, models, take)
    callers = [node for node in config.federation.nodes if path in peers_of(config, node)]
    at = listen or f"0.0.0.0:{(config.links[path].peers or '').rpartition(':')[2]}"
    door = PeerDoor(kit, at, callers, place.offered, tell)
    tell("info", path, f"listens at port {door.port} for {', '.join(callers)}")
    try:
        yield place
    finally:
        way.close()
        door.close()
