"""A hub's service on loopback with mutual TLS, members that dial it, and lanes without a network."""

from __future__ import annotations

import contextlib
import queue
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from hierfl.learning.local import Objective
from hierfl.learning.state import Layout, ModelState
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.authority import Authority, new_key, private_pem
from hierfl.link.chunks import Chunk, check_of, decode, hash_of
from hierfl.link.codec import payload_out
from hierfl.link.identity import HUB, MEMBER, PEER
from hierfl.link.kit import Kit
from hierfl.link.lane import Lane
from hierfl.link.payload import Outgoing
from hierfl.link.service import Agreed, Service
from hierfl.link.session import Session
from hierfl.link.shelf import Shelf
from hierfl.link.spool import Spool
from hierfl.link.turns import Turns
from hierfl.runtime.driver import Done
from hierfl.runtime.jobs import TrainJob
from tiers.messages import Opening

__all__ = ["AGREED", "FakeMember", "Pki", "forged", "hub_on_loopback", "job", "lane", "layout", "model", "update"]

AGREED = Agreed("heart", "config", "task", "run-1")


class Pki:
    """An authority and kits for world (hub), world/us and world/them (members), ring/a, ring/b and ring/c (peers), or
    for `nodes` with their roles.
    """

    def __init__(
        self, folder: Path, federation: str = "heart", nodes: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        self.folder = folder
        self.federation = federation
        self.authority = Authority.create(folder / "ca", federation, datetime.now(UTC))
        if nodes is not None:
            self.authority.know(nodes)
            return
        self.authority.know({"world": (HUB,), "world/us": (MEMBER,), "world/them": (MEMBER,)})
        self.authority.know(dict.fromkeys(("ring/a", "ring/b", "ring/c"), (MEMBER, PEER)))

    def kit(self, path: str, *, days: float = 1, name: str = "") -> Kit:
        """Make a kit; called again it has another certificate."""
        key = new_key()
        place = self.folder / (name or path.replace("/", "__"))
        kit = Kit.write(place, self.federation, path, self.authority.nodes[path], key=private_pem(key))
        kit.put(
            certificate=self.authority.issue(path, key.public_key(), datetime.now(UTC), days),
            authority=self.authority.pem,
        )
        kit.deny((self.authority.folder / "denied.json").read_bytes())
        return kit


def layout(size: int = 300_000) -> Layout:
    return Layout.of({"weight": ((size,), "float32"), "steps": ((), "int64")})


def model(of: Layout, seed: int = 0) -> ModelState:
    chance = np.random.default_rng(seed)
    return ModelState(chance.normal(size=of.num_floats).astype(np.float32), np.arange(of.num_ints, dtype=np.int64))


def job(number: int = 0, weight: int = 10, total: int = 40, path: str = "world/us") -> TrainJob:
    opening = Opening("world", number, 32, 8.0, total, "float32")
    return TrainJob("world", number, ((path, weight),), opening, Objective())


def update(of: Layout, seed: int = 1, largest: int = 2**20) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    chance = np.random.default_rng(seed)
    return chance.integers(-largest, largest, of.num_floats).astype(np.int32), np.zeros(of.num_ints, np.int64)


@dataclass
class FakeMember:
    """The member's end of a lane without a network: keeps what was said to it."""

    instance: str = "a"
    number: int = 0
    line: str = ""
    said: list[wire.HubSays] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.session = Session(self.instance, self.said.append, self.ended.append, self.number, self.line)

    @property
    def last(self) -> wire.HubSays:
        return self.said[-1]


def lane(
    folder: Path, now: Any = None, deadline_s: float = 60.0, path: str = "world/us", turns: Turns | None = None
) -> tuple[Lane, list[Done]]:
    """A member's lane, and the list of what became of its calls."""
    done: list[Done] = []
    beside: dict[str, Any] = {"turns": turns} if now is None else {"turns": turns, "now": now}
    return Lane(path, "run-1", deadline_s, 2, Spool(folder), Shelf(), done.append, lambda value: value, **beside), done


@contextlib.contextmanager
def hub_on_loopback(
    pki: Pki, deadline_s: float = 20.0, agreed: Agreed = AGREED, compression: str = "none", listen: str = "127.0.0.1:0"
) -> Iterator[tuple[Service, dict[str, Lane], queue.SimpleQueue[Done], list[str]]]:
    """Serve world/us and world/them on a free port."""
    done: queue.SimpleQueue[Done] = queue.SimpleQueue()
    shelf, turns, heard = Shelf(), Turns(), []
    spool = Spool(pki.folder / f"spool-{secrets.token_hex(4)}")
    lanes = {
        path: Lane(path, agreed.run, deadline_s, 2, spool, shelf, done.put, lambda value: value, turns=turns)
        for path in ("world/us", "world/them")
    }
    tell = lambda level, node, said: heard.append(f"{node}: {said}")  # noqa: E731
    service = Service(pki.kit("world"), listen, agreed, lanes, tell, compression)
    try:
        yield service, lanes, done, heard
    finally:
        service.close("the test is over", final=True)


def payload_of(of: Layout, seed: int = 1) -> Outgoing:
    return Outgoing(*update(of, seed))


def forged(digest: bytes, other: Outgoing, transfer: int) -> list[Chunk]:
    """Chunks of one payload as if they were of another's digest."""
    chunks = (decode(chunk) for chunk in other.chunks(transfer, 0))
    return [replace(one, check=check_of(digest, one.offset, hash_of(one.data))) for one in chunks]


def prepared(place: Lane, member: FakeMember) -> None:
    """Bring a member to where it can be asked to train."""
    place.call(0, "prepare", (None, None))
    place.joined(member.session)
    place.call(1, "prepare", (layout(), None))
    place.answered(wire.Answer(id=member.last.ask.id, prepared=wire.Prepared()))


def trained(ask: wire.Ask, payload: Outgoing, weight: int = 10) -> wire.Answer:
    """Answer that an update is ready."""
    said = wire.Trained(weight=weight, duration_s=1.0, update=payload_out(payload.shape, payload.digest))
    return wire.Answer(id=ask.id, trained=said)
