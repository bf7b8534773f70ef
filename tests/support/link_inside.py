"""A federation over links in one process and without a network: every byte that would cross is kept."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from link_members import Pki
from ward_tasks import patients

from hierfl.config.terms import Terms
from hierfl.errors import PeerUnreached
from hierfl.lifecycle import go_on, run
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.branch import Branch
from hierfl.link.chunks import decode
from hierfl.link.codec import parse
from hierfl.link.cohort import masks
from hierfl.link.commits import restored
from hierfl.link.desk import Desk
from hierfl.link.driver import WOKEN, LinkedDriver
from hierfl.link.identity import MEMBER, exchanging, members_of, peers_of
from hierfl.link.lane import Lane
from hierfl.link.ledger import Ledger
from hierfl.link.masked import MaskedSums
from hierfl.link.masker import Masker
from hierfl.link.objects import Objects
from hierfl.link.payload import Incoming, Shape
from hierfl.link.place import Workplace
from hierfl.link.served import as_served, membership, num_sites
from hierfl.link.session import Session
from hierfl.link.shelf import Shelf
from hierfl.link.spool import Spool
from hierfl.link.store import Store
from hierfl.link.taking import Taker
from hierfl.reopen import reopened
from hierfl.runtime.local import LocalDriver

__all__ = ["Inside", "let_several_run", "records_in", "several_runs"]


@pytest.fixture
def several_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one process hold several local runs."""
    let_several_run(monkeypatch)


def let_several_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one process hold several local runs: they share one keeper of the global random numbers."""
    from hierfl.runtime import chance, local

    class Free:
        def acquire(self, blocking: bool = True) -> bool:
            return True

        def release(self) -> None:
            pass

    shared = chance.SharedChance()
    monkeypatch.setattr(local, "ONE_RUN", Free())
    monkeypatch.setattr(chance, "Chance", lambda: shared)
    monkeypatch.setattr(chance, "surroundings", lambda: lambda: None)  # one that ends must not touch those of others


def records_in(crossed: bytes, wards: Mapping[str, int]) -> list[str]:
    """Find records of wards, with so many patients each, as numbers of either width and as text; name the wards."""
    found = []
    for name, count in wards.items():
        cells = patients(name, count)[0].numpy().ravel()
        forms = [*(cells.astype(dtype) for dtype in (np.float32, np.float64))]
        there = any(cell.tobytes() in crossed for form in forms for cell in form)
        if there or any(f"{cell:.5f}".encode() in crossed for cell in cells):
            found.append(name)
    return found


class Beside:
    """A member's way to the others, whose places it may take vectors from."""

    def __init__(self, inside: Inside, path: str) -> None:
        self.inside = inside
        self.path = path

    def take(self, holder: str, shape: Shape, digest: bytes, to: Path, limit: int | None = None) -> None:
        assert holder in peers_of(self.inside.config, self.path)
        payload = self.inside.places[holder].offered(digest)
        if payload is None or holder in self.inside.away:
            raise PeerUnreached(holder, f"{self.path} has not reached {holder}")
        incoming = Incoming(to, shape, digest, limit)
        crossed = self.inside.across.setdefault((holder, self.path), [])
        for chunk in payload.chunks(0, incoming.received) if not incoming.is_whole else ():
            crossed.append(chunk)
            incoming.take(decode(chunk))

    def close(self) -> None:
        pass


class Inside:
    """Runs a configuration's root, with a desk for each member that has a link; `terms`: a member's own, by path."""

    def __init__(self, config: Any, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.up: list[bytes] = []
        self.down: list[bytes] = []
        self.across: dict[tuple[str, str], list[bytes]] = {}
        self.places: dict[str, Workplace] = {}
        self.away: set[str] = set()
        self.lanes: dict[str, Lane] = {}
        self.parted: dict[str, str] = {}
        self.terms: dict[str, Callable[[], Terms]] = {}
        self.pki: Pki | None = None
        if any(masks(config, path) for path in config.links):
            self.pki = Pki(folder / "pki", config.name, dict.fromkeys(config.links, (MEMBER,)))
        self._ends: list[Callable[[], None]] = []

    def go(self, *monitors: Any, resumed: Path | None = None) -> Mapping[str, Any]:
        root = self.config.federation.root.name

        def opened(config: Any, run_dir: Path, lead: Any) -> Any:
            return self._driver(config, root)

        try:
            if resumed is None:
                return run(as_served(self.config, root), monitors, opened)
            with reopened(resumed, to_train=True, elsewhere=True) as left:
                saved, seen = restored(left.config, left.saved), as_served(left.config, root)
                return go_on(replace(left, config=seen, saved=saved), monitors, opened)
        finally:
            for end in reversed(self._ends):
                end()

    def _driver(self, config: Any, path: str) -> Any:
        """Open the runtime of a node's process."""
        base, members = LocalDriver(config.runtime), members_of(self.config, path)
        if not members:
            return base
        return LinkedDriver(
            *(base, members, lambda done, base: self._open(members, done, base)),
            Taker(self.folder / "taken", Beside(self, path) if peers_of(self.config, path) else None),  # type: ignore[arg-type]
            *(lambda path: num_sites(self.config, path), lambda level, node, said: None),
        )

    def _open(self, members: tuple[str, ...], done: Any, base: Any) -> Any:
        spool, shelf, sums = Spool(self.folder / "spool"), Shelf(), MaskedSums(self.config, lambda: done(WOKEN))
        lanes = {
            path: Lane(
                *(path, "run-1", 60.0, num_sites(self.config, path), spool, shelf, done, base.put),
                stays=exchanging(self.config, path),
                epochs=membership(self.config, path),
                masked=sums if masks(self.config, path) else None,
            )
            for path in members
        }
        self.lanes.update(lanes)
        for path, lane in lanes.items():
            self._join(path, lane)
        return type("Service", (), {"close": lambda self, reason, final: None})(), lanes

    def _join(self, path: str, lane: Lane) -> None:
        """Begin a member, and connect it with its lane by bytes."""
        seen, place = as_served(self.config, path), self.folder / path.replace("/", "__")
        driver = self._driver(seen, path)

        def say(answer: wire.Answer) -> None:
            self.up.append(wire.MemberSays(answer=answer).SerializeToString())
            lane.answered(parse(wire.MemberSays, self.up[-1]).answer)

        def fetch(shape: Shape, digest: bytes, to: Path, spool: Spool | None = None) -> None:
            incoming = Incoming(to, shape, digest, spool=spool)
            if not incoming.is_whole:
                for chunk in lane.payload(digest).chunks(0, incoming.received):
                    self.down.append(chunk)
                    incoming.take(decode(chunk))

        def take(holder: str, shape: Shape, digest: bytes, to: Path, limit: int | None) -> None:
            if holder:
                Beside(self, path).take(holder, shape, digest, to, limit)
            else:
                fetch(shape, digest, to)

        store = Store(place)
        if exchanging(self.config, path):
            self.places[path] = Workplace(self.config, path, Objects(place / "place"), store, place, take)
        desk = Desk(
            lambda: Branch(
                *(seen, path, driver, place / "states", lambda record: None, Ledger(place / "privacy.jsonl")),
                self.terms.get(path, Terms),
            ),
            *(store, say, fetch, lambda level, said: None, lambda: None, lambda: None, self.places.get(path)),
            Masker(self.config, self.pki.kit(path), store)
            if self.pki is not None and masks(self.config, path)
            else None,
        )
        says: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

        def listen() -> None:
            while (content := says.get()) is not None:
                said = parse(wire.HubSays, content)
                if said.WhichOneof("what") == "ask":
                    desk.asked("run-1", said.ask)
                elif said.WhichOneof("what") == "take":
                    payload = desk.offered(said.take.digest)
                    assert payload is not None
                    for chunk in payload.chunks(said.take.transfer, said.take.offset):
                        self.up.append(chunk)
                        lane.receive(decode(chunk))

        def end() -> None:
            says.put(None)
            desk.close(10.0)
            driver.close()
            assert desk.failed is None, desk.failed

        def over(reason: str) -> None:
            self.parted[path] = reason

        self._ends.append(end)
        threading.Thread(target=listen, daemon=True).start()
        lane.joined(Session(path, lambda message: says.put(message.SerializeToString()), over))
