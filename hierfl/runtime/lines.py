"""Lines of a run's journal: a record, and the vectors that are written beside it once it is its turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.compression import Compression, Packed
from hierfl.learning.ring import PartialSum
from hierfl.learning.state import ModelState
from hierfl.runtime.driver import Handle
from tiers.journal import Entry, Record, Told
from tiers.messages import Arrived, Begin

__all__ = ["Line", "part_of", "vectors_of", "whole"]


@dataclass(frozen=True, slots=True)
class Line:
    """Something to be written: a record as it is, or an event with what is beside it.

    `kept`: what the sites of an update keep now, as of `Keeper.of`.
    """

    record: Record
    arguments: tuple[Any, ...] = ()
    kept: tuple[Mapping[str, int], Sequence[Handle]] = ({}, ())
    payload: memoryview | None = None


def whole(line: Line, get: Callable[[Handle], Any]) -> tuple[Record, Sequence[memoryview]]:
    """Fetch what belongs to an update, or the model of a beginning; give its record, which says what that is, and its
    payload.
    """
    assert isinstance(line.record, Told) and isinstance(line.record.event, Arrived | Begin)
    beside = get(line.arguments[1])
    if isinstance(beside, ModelState):
        named = [("floats", beside.floats), ("ints", beside.ints)]
    else:
        named = [(f".{name}", vector) for name, vector in _parts(beside).items()]
    places, handles = line.kept
    fetched = [get(handle) for handle in handles]
    for site, place in places.items():
        named += [(f"{site}:{key}", vector) for key, vector in fetched[place][site].items()]
    vectors = tuple((name, str(vector.dtype), vector.shape) for name, vector in named)
    return replace(line.record, vectors=vectors), [
        np.ascontiguousarray(vector).reshape(-1).data for _, vector in named if vector.size
    ]


def part_of(vectors: Mapping[str, NDArray[Any]], weight: int, compression: Compression | None) -> PartialSum | Packed:
    """Make an update of its vectors."""
    if "floats" in vectors:
        return PartialSum(vectors["floats"], vectors["ints"], weight)
    assert compression is not None, "its member's change was compressed"
    code = {name.removeprefix("code."): vector for name, vector in vectors.items() if name.startswith("code.")}
    named = (vectors["whole"], vectors["runs"], vectors["ints"])
    return Packed(compression, code, *named, weight, int(vectors["size"][0]))


def vectors_of(entry: Entry) -> dict[str, NDArray[Any]]:
    """Read the vectors of a payload, without a copy where they lie as processors like it."""
    assert isinstance(entry.record, Told)
    found, at = {}, 0
    for name, dtype, shape in entry.record.vectors:
        kind, size = np.dtype(dtype), math.prod(shape)
        vector = np.frombuffer(entry.payload, kind, size, at) if size else np.empty(0, kind)
        found[name] = np.require(vector.reshape(shape), requirements="A")
        at += size * kind.itemsize
    return found


def _parts(part: PartialSum | Packed) -> dict[str, NDArray[Any]]:
    """Name the vectors of an update, those of a compressed one with its size."""
    if isinstance(part, PartialSum):
        return {"floats": part.floats, "ints": part.ints}
    code = {f"code.{name}": vector for name, vector in part.code.items()}
    return {**code, "whole": part.whole, "runs": part.runs, "ints": part.ints, "size": np.array([part.size])}
