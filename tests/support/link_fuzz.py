"""Messages that a member might send, sound, broken and mad, for a hub that must take or refuse each by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from link_members import FakeMember, job, lane, layout, model, payload_of

from hierfl.errors import LinkError
from hierfl.learning.metrics import Tally
from hierfl.learning.standardise import Moments
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.chunks import check_of, decode, encode
from hierfl.link.codec import moments_out, payload_out, tally_out
from hierfl.link.service import take
from hierfl.link.session import Stamps

__all__ = ["Hub", "corpus", "invented", "mutated"]

SMALL = layout(50)


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

    def ask(self, method: str) -> int:
        """Ask for something; give the id of the question."""
        self.lane.reset()
        arguments: tuple[Any, ...] = {
            "train": (job(), self.start),
            "evaluate": ("world", ("world/us",), self.start),
            "describe": (("world/us",),),
        }[method]
        self.lane.call(2, method, arguments)
        if method == "train":
            self.lane.call(3, "collect", ("world", 0))
        return self.member.last.ask.id

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
    tally = Tally.of(chance.random(40), chance.integers(0, 2, 40), loss_sum=12.5, bins=16)
    several = Tally.of(chance.dirichlet(np.ones(3), 40), chance.integers(0, 3, 40), loss_sum=12.5, bins=16)
    moments = Moments.of(chance.normal(size=(20, 3)).astype(np.float32))
    payload = payload_of(SMALL)
    answers = {
        "train": wire.Answer(
            trained=wire.Trained(weight=10, update=payload_out(payload.shape, payload.digest), loss=0.5, duration_s=1.0)
        ),
        "evaluate": wire.Answer(evaluated=wire.Evaluated(tally=tally_out(tally), duration_s=0.1)),
        "evaluate several": wire.Answer(evaluated=wire.Evaluated(tally=tally_out(several), duration_s=0.1)),
        "describe": wire.Answer(described=wire.Described(num_train=9, num_test=3, moments=moments_out(moments))),
    }
    found = {}
    for name, answer in answers.items():
        answer.id = ask_id
        found[name] = wire.MemberSays(sequence=1, answer=answer).SerializeToString(deterministic=True)
    data = bytes(range(200))
    return {**found, "chunk": encode(5, 0, check_of(data), memoryview(data))}


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Damage a message somewhere: flip, drop, double, insert, cut, or put a length that lies."""
    found = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        at = chance.randrange(len(found) + 1)
        match chance.randrange(7):
            case 0 if at < len(found):
                found[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(found):
                found[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del found[at : at + chance.randrange(1, 9)]
            case 3:
                found[at:at] = found[at : at + chance.randrange(1, 40)]
            case 4:
                found[at:at] = chance.randbytes(chance.randrange(1, 9))
            case 5:
                del found[at:]
            case _:
                found[at : at + 1] = b"\xff\xff\xff\xff\x0f"
    return bytes(found)


def invented(kind: Any, chance: random.Random, depth: int = 0) -> Any:
    """Fill a message of a kind with values that its types allow and its meaning may not."""
    message = kind()
    for field in message.DESCRIPTOR.fields:
        if chance.random() < 0.35:
            continue
        many = field.is_repeated if hasattr(field, "is_repeated") else field.label == FieldDescriptor.LABEL_REPEATED
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            inner = getattr(wire, field.message_type.name)
            for _ in range(chance.randrange(4) if many else 1):
                made = invented(inner, chance, depth + 1)
                (getattr(message, field.name).add() if many else getattr(message, field.name)).CopyFrom(made)
            continue
        draw = _DRAWS[field.type]
        if many:
            getattr(message, field.name).extend(draw(chance) for _ in range(chance.choice((0, 1, 2, 4, 9, 10, 11))))
        else:
            setattr(message, field.name, draw(chance))
    return message


def _whole(bits: int) -> Callable[[random.Random], int]:
    edges = (0, 1, 2, 10, 40, 2 ** (bits - 1) - 1, 2 ** (bits - 1), 2**bits - 1)
    return lambda chance: chance.choice(edges) if chance.random() < 0.7 else chance.randrange(2**bits)


_DRAWS: dict[int, Callable[[random.Random], Any]] = {
    FieldDescriptor.TYPE_UINT64: _whole(64),
    FieldDescriptor.TYPE_FIXED64: _whole(64),
    FieldDescriptor.TYPE_UINT32: _whole(32),
    FieldDescriptor.TYPE_BOOL: lambda chance: chance.random() < 0.5,
    FieldDescriptor.TYPE_DOUBLE: lambda chance: chance.choice(
        (0.0, 0.5, 1.0, -1.0, 1e308, float("inf"), float("-inf"), float("nan"))
    ),
    FieldDescriptor.TYPE_STRING: lambda chance: chance.choice(("", "world", "x" * 3000, "int32", "\x00", "ü" * 9)),
    FieldDescriptor.TYPE_BYTES: lambda chance: chance.randbytes(chance.choice((0, 1, 31, 32, 33, 97, 200))),
}
