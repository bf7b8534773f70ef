"""Vectors that lie at other places: the coordinator of a hub without a centre knows them by who has them and by digest.

What is said of one crosses in messages, the vector itself goes from who has it to who needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import LinkError
from hierfl.learning.ring import PartialSum
from hierfl.learning.state import ModelState
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.codec import MAX_WEIGHT, bounded, payload_in, payload_out, text
from hierfl.link.payload import DTYPES, Outgoing, Shape

__all__ = ["Given", "Offers", "Remote", "RemoteState", "Vector", "is_remote", "thing_in", "thing_out"]

MAX_VECTORS = 64
"""Of a strategy's state."""


@dataclass(frozen=True, eq=False)
class Remote:
    """A model, or a sum of this `weight`, at the place of `holder` (empty: at the hub's), which calls it `name`.

    `limit`: the largest magnitude that the numbers of a sum may have. One that nobody refers to any more is let go of
    there.
    """

    holder: str
    name: str
    shape: Shape
    digest: bytes
    weight: int = 0
    limit: int | None = None

    @property
    def num_bytes(self) -> int:
        """Count the bytes of the vector."""
        return self.shape.num_bytes

    def of(self, floats: NDArray[Any], ints: NDArray[np.int64]) -> ModelState | PartialSum:
        """Make it of its vectors."""
        return PartialSum(floats, ints, self.weight) if self.weight else ModelState(floats, ints)


@dataclass(frozen=True)
class Vector:
    """A vector of a strategy's state, and how many numbers it has along its axes."""

    axes: tuple[int, ...]
    held: Remote


@dataclass(frozen=True, eq=False)
class RemoteState:
    """What a hub's strategy keeps, by name."""

    vectors: Mapping[str, Vector]

    @property
    def parts(self) -> list[Remote]:
        """List the vectors."""
        return [vector.held for vector in self.vectors.values()]


Given: TypeAlias = Remote | RemoteState | None
"""What a place is handed, or hands back, as the coordinator knows it."""


def is_remote(value: Any) -> bool:
    """Say whether something lies elsewhere."""
    return isinstance(value, Remote | RemoteState)


@dataclass
class Offers:
    """Writes what a place is handed; what lies in this process is kept here for it, by digest.

    `payload`: gives a model's payload, which others may have asked for, too.
    """

    payload: Callable[[ModelState], Outgoing]
    kept: dict[bytes, Outgoing] = field(default_factory=dict)

    def thing(self, value: Any) -> wire.Thing:
        """Write a model, a sum, a state or nothing."""
        match value:
            case None | Remote() | RemoteState():
                return thing_out(value)
            case ModelState():
                return thing_out(self._offered(self.payload(value), 0))
            case PartialSum():
                return thing_out(self._offered(Outgoing(value.floats, value.ints), value.weight))
        vectors = {
            name: Vector(array.shape, self._offered(Outgoing(array.reshape(-1), np.empty(0, np.int64)), 0))
            for name, array in value.items()
        }
        return thing_out(RemoteState(vectors))

    def _offered(self, payload: Outgoing, weight: int) -> Remote:
        self.kept[payload.digest] = payload
        return Remote("", "", payload.shape, payload.digest, weight)


def thing_out(given: Given) -> wire.Thing:
    """Write where a thing is, and what."""
    if given is None:
        return wire.Thing()
    if isinstance(given, RemoteState):
        vectors = ((name, one.axes, _held_out(one.held)) for name, one in given.vectors.items())
        return wire.Thing(
            state=wire.State(vectors=[wire.Kept(name=name, axes=axes, held=held) for name, axes, held in vectors])
        )
    return wire.Thing(sum=_held_out(given)) if given.weight else wire.Thing(model=_held_out(given))


def thing_in(message: wire.Thing, expected: Shape | int, what: str, holder: str | None = None) -> Given:
    """Read what is said of a thing: a model or a sum of exactly this shape, or a state of vectors of so many numbers
    at most.

    `holder`: who must have it, where that is known. Errors: LinkError.
    """
    kind = message.WhichOneof("what")
    if kind is None:
        return None
    if isinstance(expected, int):
        if kind != "state":
            raise LinkError(f"{what} is a {kind}, and must be a state")
        return _state_in(message.state, expected, what, holder)
    if kind == "state":
        raise LinkError(f"{what} is a state, and must be none")
    held = getattr(message, kind)
    weight = bounded(held.weight, f"the weight of {what}", int(kind == "sum"), MAX_WEIGHT if kind == "sum" else 0)
    if np.dtype(expected.dtype).kind != ("i" if kind == "sum" else "f"):
        raise LinkError(f"{what} is a {kind}, and must be {expected.dtype}")
    return _held_in(held, expected, weight, what, holder)


def _held_out(held: Remote) -> wire.Held:
    payload = payload_out(held.shape, held.digest)
    return wire.Held(holder=held.holder, name=held.name, payload=payload, weight=held.weight)


def _held_in(message: wire.Held, expected: Shape, weight: int, what: str, holder: str | None) -> Remote:
    at, name = text(message.holder, f"the holder of {what}"), text(message.name, f"the name of {what}")
    if holder is not None and at != holder:
        raise LinkError(f"{what} is said to be at {at!r}, and must be at {holder}")
    return Remote(at, name, expected, payload_in(message.payload, expected, what), weight)


def _state_in(message: wire.State, most: int, what: str, holder: str | None) -> RemoteState:
    if len(message.vectors) > MAX_VECTORS:
        raise LinkError(f"{what} has {len(message.vectors)} vectors; at most {MAX_VECTORS}")
    found: dict[str, Vector] = {}
    for kept in message.vectors:
        name, payload = text(kept.name, "a vector's name"), kept.held.payload
        axes = tuple(kept.axes)
        if len(axes) > 32 or payload.dtype not in DTYPES:
            raise LinkError(f"{name} of {what} is of {text(payload.dtype, 'a type')!r}; allowed: {', '.join(DTYPES)}")
        size = bounded(math.prod(axes), f"the size of {name} of {what}", 0, most)
        found[name] = Vector(axes, _held_in(kept.held, Shape(size, 0, payload.dtype), 0, f"{name} of {what}", holder))
    return RemoteState(found)
