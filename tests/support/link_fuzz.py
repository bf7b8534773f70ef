"""Messages that a member might send, sound, broken and mad, for a hub that must take or refuse each by name."""

from __future__ import annotations

import queue
import random
import re
import resource
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from link_invented import invented, mutated, varied
from link_members import AGREED, FakeMember, job, lane, layout, model, payload_of, update

from hierfl.config.learning import Statistics
from hierfl.errors import LinkError
from hierfl.learning.clusters import Spread
from hierfl.learning.metrics import Tally
from hierfl.learning.ring import PartialSum
from hierfl.learning.standardise import Moments
from hierfl.learning.statistics import statistics_of
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.chunks import check_of, decode, encode, hash_of
from hierfl.link.codec import moments_out, parse, payload_out, statistics_out
from hierfl.link.desk import Desk
from hierfl.link.payload import Outgoing, Shape
from hierfl.link.service import VERSIONS, first_words, take
from hierfl.link.session import Stamps
from hierfl.link.spool import Spool
from hierfl.link.store import Store
from hierfl.link.tallies import tally_out
from hierfl.runtime.jobs import Inventory

__all__ = [
    "MORE_MIB",
    "Cases",
    "Hub",
    "Member",
    "corpus",
    "in_short",
    "peak_mib",
    "questions",
]

MORE_MIB = 200
"""What many messages may take, at most."""

SMALL = layout(50)
US = ["world/us"]
METHODS = ("train", "evaluate", "describe")


class Hub:
    """A lane that has asked for something; `hear` gives "taken", or the reason for a refusal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lane, self.done = lane(folder)
        self.member = FakeMember()
        self.lane.call(0, "prepare", (None, None))
        self.lane.joined(self.member.session)
        self.lane.call(1, "prepare", (SMALL, None))
        self.lane.answered(wire.Answer(id=self.member.last.ask.id, prepared=wire.Prepared()))
        self.start = model(SMALL)
        self.update = payload_of(SMALL)
        self.asked = ""

    def ask(self, method: str) -> int:
        """Ask for something; give the id of the question."""
        self.lane.reset()
        self.done.clear()
        del self.member.said[:-1]
        self.asked = method
        arguments: tuple[Any, ...] = {
            "train": (job(), self.start),
            "evaluate": ("world", ("world/us",), self.start, 1),
            "describe": (("world/us",),),
        }[method]
        self.lane.call(2, method, arguments)
        if method == "train":
            self.lane.call(3, "collect", ("world", 0))
        return self.member.last.ask.id

    def open(self) -> int:
        """Let an update be on its way; give its transfer."""
        ask_id = self.ask("train")
        said = payload_out(self.update.shape, self.update.digest)
        self.lane.answered(wire.Answer(id=ask_id, trained=wire.Trained(weight=10, update=said)))
        self.asked = "chunks"
        return self.member.last.take.transfer

    def greet(self, content: bytes) -> str:
        """Take a message as the first of a stream."""
        try:
            first_words(content, AGREED, "world/us")
        except LinkError as refusal:
            return str(refusal) or "refused without a word"
        return "taken"

    def hear(self, content: bytes, nonce: bytes = b"") -> str:
        """Take a message as the first of a session with this nonce."""
        try:
            take(content, Stamps(nonce), self.lane)
        except LinkError as refusal:
            return str(refusal) or "refused without a word"
        return "taken"

    def receive(self, content: bytes) -> str:
        """Take a chunk."""
        try:
            self.lane.receive(decode(content))
        except LinkError as refusal:
            return str(refusal) or "refused without a word"
        return "taken"


def corpus(ask_id: int) -> dict[str, bytes]:
    """Sound messages by what they answer, with the id of a question."""
    chance = np.random.default_rng(3)
    scores, labels, spread = chance.random(40), chance.integers(0, 2, 40), Spread(9)
    tally = Tally.of(scores, labels, loss_sum=12.5, bins=16)
    spread.add(np.arange(40) % 9, scores, labels)
    several = Tally.of(chance.dirichlet(np.ones(3), 40), chance.integers(0, 3, 40), loss_sum=12.5, bins=16)
    by_patient = replace(tally, clusters=spread.clusters())
    own = Tally.measured({"mae": chance.random(40), "mse": chance.random(40)}, loss_sum=12.5)
    table = pa.table({"age": chance.normal(60, 9, 40), "ward": chance.choice(["a", "b", "c"], 40)})
    told = statistics_of(table, Statistics(ranges={"age": [20, 100]}))
    moments = Moments.of(chance.normal(size=(20, 3)).astype(np.float32))
    payload = payload_of(SMALL)
    answers = {
        "train": wire.Answer(
            trained=wire.Trained(weight=10, update=payload_out(payload.shape, payload.digest), loss=0.5, duration_s=1.0)
        ),
        "evaluate": wire.Answer(evaluated=wire.Evaluated(tally=tally_out(tally), duration_s=0.1)),
        "evaluate patients": wire.Answer(evaluated=wire.Evaluated(tally=tally_out(by_patient), duration_s=0.1)),
        "evaluate several": wire.Answer(evaluated=wire.Evaluated(tally=tally_out(several), duration_s=0.1)),
        "evaluate own": wire.Answer(evaluated=wire.Evaluated(tally=tally_out(own), duration_s=0.1)),
        "describe": wire.Answer(
            described=wire.Described(
                num_train=20, num_test=3, moments=moments_out(moments), statistics=statistics_out(told)
            )
        ),
    }
    found = {}
    for name, answer in answers.items():
        answer.id = ask_id
        found[name] = wire.MemberSays(sequence=1, answer=answer).SerializeToString(deterministic=True)
    hello = wire.Hello(
        versions=VERSIONS, federation="heart", node="world/us", config_digest="config", task_digest="task", instance="a"
    )
    found["hello"] = wire.MemberSays(sequence=1, hello=hello).SerializeToString(deterministic=True)
    data = bytes(range(200))
    return {**found, "chunk": encode(5, 0, check_of(payload.digest, 0, hash_of(data)), memoryview(data))}


class Cases:
    """Draws messages, from noise to nearly sound ones, for a hub that waits for one of them."""

    def __init__(self, hub: Hub, chance: random.Random) -> None:
        self._hub = hub
        self._chance = chance
        self._sound = corpus(1)
        self._messages = {
            name: wire.MemberSays.FromString(self._sound[name]) for name in self._sound if name != "chunk"
        }
        self._waits_for = METHODS[0]
        self._id = 0
        self._transfer = 0

    def one(self) -> tuple[str, str]:
        """Send one message; give its kind and what became of it."""
        if self._chance.random() < 0.05:  # a hub waits for one thing for a while: to ask costs more than to hear
            self._waits_for = self._chance.choice((*METHODS, "chunk"))
        kinds = ("noise", "invented", "hello", "chunk" if self._waits_for == "chunk" else "varied")
        [kind] = self._chance.choices(kinds, (15, 20, 5, 60))
        return kind, getattr(self, f"_{kind}")()

    def _noise(self) -> str:
        chance = self._chance
        if chance.random() < 0.2:
            content = chance.randbytes(chance.randrange(200))
        else:
            content = mutated(chance.choice(list(self._sound.values())), chance)
        return chance.choice((self._hub.hear, self._hub.hear, self._hub.receive, self._hub.greet))(content)

    def _invented(self) -> str:
        return self._answer(invented(wire.MemberSays, self._chance))

    def _varied(self) -> str:
        names = [name for name in self._messages if name.startswith(self._waits_for)]
        return self._answer(varied(self._messages[self._chance.choice(names)], self._chance))

    def _answer(self, message: Any) -> str:
        """Send it to a hub that waits for it, or for something else."""
        hub, chance = self._hub, self._chance
        if self._waits_for != "chunk" and (hub.asked != self._waits_for or hub.done):
            self._id = hub.ask(self._waits_for)
        message.nonce, message.sequence = b"", chance.choice((1, 1, 1, 1, 1, 1, 1, 0, 7))
        if message.WhichOneof("what") == "answer" and chance.random() < 0.95:
            message.answer.id = self._id
        return hub.hear(message.SerializeToString())

    def _chunk(self) -> str:
        """Send a part of an update that is on its way, as it should be but for something."""
        hub, chance = self._hub, self._chance
        if hub.asked != "chunks" or len(hub.done) > 1:
            self._transfer = hub.open()
        floats, ints = (part.copy() for part in update(SMALL))
        if chance.random() < 0.5:
            floats[chance.randrange(floats.size)] = chance.choice((2**31 - 1, -(2**31), 2**30, -1, 0))
        data = floats.tobytes() + ints.tobytes()
        match chance.randrange(6):
            case 0:
                data = data[: chance.randrange(1, len(data))]
            case 1:
                data += chance.randbytes(chance.choice((1, 4, 8, 4000)))
            case 2:
                data = mutated(data, chance) or b"x"
        transfer = self._transfer if chance.random() < 0.95 else chance.choice((0, 1, 2**64 - 1))
        offset = 0 if chance.random() < 0.9 else chance.choice((1, 4, 208, 1 << 20, 2**63, 2**64 - 1))
        good = check_of(hub.update.digest, offset, hash_of(data))
        check = good if chance.random() < 0.9 else chance.randbytes(32)
        content = encode(transfer, offset, check, memoryview(data))
        return hub.receive(content if chance.random() < 0.8 else mutated(content, chance))

    def _hello(self) -> str:
        message = varied(self._messages["hello"], self._chance)
        return self._hub.greet(message.SerializeToString())


class Member:
    """A member that hears what a hub says; `hear` gives "taken", or the reason for a refusal. `refusal`: why its
    institution's terms are not kept.
    """

    def __init__(self, folder: Path, tally: Tally | None = None) -> None:
        floats, ints = update(SMALL)
        self.refusal = ""
        member = self

        class Branch:
            config: Any = type("Config", (), {"hubs": {}})()
            path, layout = "world/us", SMALL

            def heed(self) -> None:
                if member.refusal:
                    raise LinkError(member.refusal)

            def enter(self, number: int) -> None:
                if number:
                    raise LinkError(f"epoch {number}, in which this is no member")

            def prepare(self, run: str, scale: Any) -> None:
                pass

            def describe(self) -> Any:
                return Inventory("world/a", 9, 3)

            def train(self, asked: Any, start: Any) -> tuple[int, PartialSum]:
                return 10, PartialSum(floats, ints, 10)

            def tally(self, round_number: int, digest: bytes, start: Any, *, tunes: bool) -> Tally:
                return tally or Tally(0, 0, 0)

        self._branch: Any = Branch()
        self._folder = folder
        self.last: Any = None
        self._heard: queue.SimpleQueue[wire.Answer | BaseException | None] = queue.SimpleQueue()
        self._start = model(SMALL)
        self.restart()

    def restart(self) -> None:
        """Begin another process."""
        self._desk = self._new()

    def hear(self, content: bytes) -> str:
        """Take a question, and wait for what comes of it: another desk takes the next one if this one has failed."""
        try:
            said: wire.HubSays = parse(wire.HubSays, content)
        except LinkError as refusal:
            return str(refusal) or "refused without a word"
        said.ask.id = said.ask.id or 1
        self._desk.asked("run", said.ask)
        self.last = self._heard.get(timeout=60)
        failed = self._desk.failed
        if failed is None:
            return "taken"
        self._desk = self._new()
        if not isinstance(failed, LinkError):
            raise failed
        return str(failed) or "refused without a word"

    def close(self) -> None:
        self._desk.close(10.0)

    def _new(self) -> Desk:
        ended = lambda: self._heard.put(None)  # noqa: E731
        tell = lambda level, said: None  # noqa: E731
        return Desk(lambda: self._branch, Store(self._folder), self._heard.put, self._fetch, tell, ended)

    def _fetch(self, shape: Shape, digest: bytes, path: Path, spool: Spool) -> None:
        with path.open("wb") as file:
            file.write(self._start.floats.tobytes() + self._start.ints.tobytes())


def questions() -> dict[str, wire.HubSays]:
    """Sound questions of a hub, by what they ask."""
    start = Outgoing(*((found := model(SMALL)).floats, found.ints))
    said = payload_out(start.shape, start.digest)
    order = {"hub": "world", "weight": 10, "opened_by": "world", "total_weight": 40}
    prepare = wire.Prepare(layout_digest=SMALL.digest, num_floats=50, num_ints=1, mean=[0.5, 1.0], std=[1.0, 2.0])
    asks = {
        "prepare": wire.Ask(id=1, prepare=prepare),
        "describe": wire.Ask(id=2, describe=wire.Describe()),
        "train": wire.Ask(id=3, train=wire.Train(**order, model=said)),
        "evaluate": wire.Ask(id=4, evaluate=wire.Evaluate(model=said, round_number=1)),
        "key": wire.Ask(
            id=5, key=wire.AskKey(train=wire.Train(**order, model=said), attempt=bytes(16), members=["world/us"])
        ),
        "mask": wire.Ask(id=6, mask=wire.AskMasked(train=wire.Train(**order, model=said), keys=[wire.MemberKey()])),
    }
    return {name: wire.HubSays(nonce=b"n" * 16, sequence=1, ask=ask) for name, ask in asks.items()}


def in_short(refusal: object) -> str:
    """Give the words of a reason that do not depend on what was sent."""
    return re.sub(r"[^a-z ]+.*", "", str(refusal))[:40]


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)
