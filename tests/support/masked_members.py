"""A cohort that masks its updates, without a network and without training: lanes of a hub, and members with kits of one
authority whose updates are drawn.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from link_members import FakeMember, Pki, layout, model
from small_runs import config_of, hub, site

from hierfl.learning.local import Objective
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.chunks import decode
from hierfl.link.codec import payload_out
from hierfl.link.identity import MEMBER
from hierfl.link.kit import Kit
from hierfl.link.lane import Lane
from hierfl.link.masked import MaskedSums
from hierfl.link.masker import Masker
from hierfl.link.shelf import Shelf
from hierfl.link.spool import Spool
from hierfl.link.store import Store
from hierfl.runtime.driver import Done
from hierfl.runtime.jobs import TrainJob
from tiers.messages import Opening, Update

__all__ = ["LINK", "MEMBERS", "SMALL", "Cohort", "kits", "small_config"]

LINK = {"address": "hub.example.org:8443"}
NAMES = ("a", "b", "c")
MEMBERS = tuple(f"world/{name}" for name in NAMES)
SMALL = layout(300)


def small_config(folder: Path, names: tuple[str, ...] = NAMES, **settings: Any) -> Any:
    wards = [{**site(name), "link": LINK} for name in names]
    return config_of(folder / "runs", hub("world", *wards, secure_aggregation="masks", **settings))


@functools.cache
def pki(folder: Path, federation: str, paths: tuple[str, ...]) -> Pki:
    return Pki(folder, federation, dict.fromkeys(paths, (MEMBER,)))


def kits(folder: Path, config: Any) -> dict[str, Kit]:
    paths = tuple(config.links)
    found = pki(folder / "pki", config.name, paths)
    return {path: found.kit(path) for path in paths}


@dataclass
class Playing:
    """One member: what it has drawn, and what it has sent."""

    path: str
    kit: Kit
    store: Store
    masker: Masker
    fake: FakeMember
    update: tuple[Any, Any]
    num_done: int = 0
    sent: list[bytes] = field(default_factory=list)


class Cohort:
    """Plays messages between lanes and members until nothing more is said; `done`: what became of calls."""

    def __init__(self, folder: Path, seed: int = 0, names: tuple[str, ...] = NAMES, **settings: Any) -> None:
        self.folder = folder
        self.config = small_config(folder, names, **settings)
        self.paths = tuple(self.config.links)
        self.done: list[Done] = []
        self.num_woken = 0
        self.clock = 0.0
        self.sums = MaskedSums(self.config, self._woken)
        chance = np.random.default_rng(seed)
        spool, shelf, found = Spool(folder / "spool"), Shelf(), kits(folder, self.config)
        self.lanes, self.members = {}, {}
        for path in self.paths:
            place = (path, "run-1", 60.0, 1, spool, shelf, self.done.append, lambda value: value)
            self.lanes[path] = Lane(*place, now=lambda: self.clock, masked=self.sums)
            floats = chance.integers(-(2**20), 2**20, SMALL.num_floats).astype(np.int32)
            self.members[path] = self._member(path, found[path], (floats, np.array([7], np.int64)))
            self.lanes[path].call(0, "prepare", (SMALL, None))
            self.lanes[path].joined(self.members[path].fake.session)
        self.play()
        self.done.clear()

    def _woken(self) -> None:
        self.num_woken += 1

    def _member(self, path: str, kit: Kit, update: tuple[Any, Any], instance: str = "1") -> Playing:
        store = Store(self.folder / path.replace("/", "__"))
        return Playing(path, kit, store, Masker(self.config, kit, store), FakeMember(instance), update)

    def order(
        self,
        number: int = 0,
        order: str = "first",
        paths: tuple[str, ...] = (),
        seeds: tuple[int, ...] = (0, 0, 0, 0),
        among: tuple[str, ...] = (),
    ) -> None:
        """Ask members to train, each from the model of a seed, and for their updates. `among`: all that are asked."""
        for path in paths or among or self.paths:
            opening = Opening("world", number, 32, 8.0, 10 * len(self.paths), "float32")
            job = TrainJob("world", number, ((path, 10),), opening, Objective(), order, among or self.paths)
            self.lanes[path].call(1, "train", (job, model(SMALL, seeds[self.paths.index(path)])))
            self.lanes[path].call(2, "collect", ("world", number))

    def leave_out(self, *paths: str, order: str = "first") -> None:
        """The run's supervisor goes on without these members."""
        for path in paths:
            self.lanes[path].call(9, "leave_out", ("world", order, f"{path} is out"))

    def fail(self, path: str) -> None:
        """A member answers that its training has failed, and the supervisor goes on without it."""
        member = self.members[path]
        self.lanes[path].answered(wire.Answer(id=member.fake.last.ask.id, trained=wire.Trained(error="no data")))
        member.num_done = len(member.fake.said)
        self.leave_out(path)

    def new_hub(self) -> None:
        """The hub's process dies, and another one takes its place: it knows nothing of sums that were under way."""
        self.sums = MaskedSums(self.config, self._woken, Spool(self.folder / "spool").folder)
        for path, before in self.members.items():
            place = (
                path,
                "run-1",
                60.0,
                1,
                Spool(self.folder / "spool"),
                Shelf(),
                self.done.append,
                lambda value: value,
            )
            self.lanes[path] = Lane(*place, now=lambda: self.clock, masked=self.sums)
            fake = FakeMember(before.fake.instance)
            self.members[path] = Playing(path, before.kit, before.store, before.masker, fake, before.update)
            self.lanes[path].call(0, "prepare", (SMALL, None))
            self.lanes[path].joined(fake.session)
        self.play()
        self.done.clear()

    def restart(self, path: str) -> None:
        """A member's process dies, and another one joins."""
        before = self.members[path]
        self.lanes[path].left(before.fake.session)
        self.members[path] = self._member(path, before.kit, before.update, before.fake.instance + "1")
        self.lanes[path].joined(self.members[path].fake.session)

    def play(self, *until: str, without: tuple[str, ...] = ()) -> None:
        """Let all but some members do what they are asked, but for what is in `until`."""
        is_quiet = False
        while not is_quiet:
            is_quiet = True
            for path, member in self.members.items():
                self.lanes[path].look()
                while path not in without and member.num_done < len(member.fake.said):
                    said = member.fake.said[member.num_done]
                    kind = said.ask.WhichOneof("what") if said.WhichOneof("what") == "ask" else said.WhichOneof("what")
                    if kind in until:
                        break
                    member.num_done += 1
                    is_quiet = False
                    self._do(member, said, kind or "")

    def _do(self, member: Playing, said: wire.HubSays, kind: str) -> None:
        lane, ask = self.lanes[member.path], said.ask
        answer = wire.Answer(id=ask.id)
        match kind:
            case "prepare":
                answer.prepared.SetInParent()
            case "train":
                if member.store.answer(ask.id) is None:
                    payload = member.store.put(*member.update)
                    trained = wire.Trained(weight=10, update=payload_out(payload.shape, payload.digest))
                    member.store.keep(wire.Answer(id=ask.id, trained=trained))
                answer.trained.weight = 10
            case "key":
                answer.keyed.CopyFrom(member.masker.key("run-1", ask))
            case "mask":
                answer.masked.CopyFrom(member.masker.mask(ask.mask))
            case "take":
                payload = member.masker.offered(said.take.digest)
                if payload is None:
                    return
                for chunk in payload.chunks(said.take.transfer, said.take.offset):
                    member.sent.append(bytes(decode(chunk).data))
                    if any(offer.transfer == said.take.transfer for offer in lane._offers.values()):
                        lane.receive(decode(chunk))  # else the attempt is another one by now
                return
            case _:
                return
        lane.answered(answer)

    @property
    def handed_sums(self) -> list[Done]:
        """The sums that were handed up."""
        return [one for one in self.handed if isinstance(one.value, Update)]

    @property
    def handed(self) -> list[Done]:
        """What was handed up."""
        return [one for one in self.done if one.ticket == 2 and one.value is not None]

    @property
    def total(self) -> tuple[Any, Any]:
        """What the members have drawn, added up."""
        return self.total_of(*self.paths)

    def total_of(self, *paths: str) -> tuple[Any, Any]:
        """What some of the members have drawn, added up."""
        floats, ints = zip(*(self.members[path].update for path in paths), strict=True)
        return np.sum(floats, axis=0, dtype=np.int32), np.sum(ints, axis=0)
