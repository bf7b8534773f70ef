"""Between messages and what they mean. What comes is held against what may come; nothing else gets past here.

A number that is out of its range, a text that is too long, a list of another length: each is a `LinkError` that says
what was wrong. Messages are small (`MAX_BYTES`, which the transport holds); vectors travel as payloads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from hierfl.errors import LinkError
from hierfl.learning.disclosure import MOST_CHARACTERS
from hierfl.learning.standardise import Moments
from hierfl.learning.statistics import KINDS, Column, TableStatistics
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.payload import Shape
from tiers.messages import Shortfall

__all__ = [
    "LARGEST_LOSS",
    "MAX_BYTES",
    "MAX_WEIGHT",
    "MOST_PREDICTIONS",
    "MOST_SAMPLES",
    "bounded",
    "folder_name_in",
    "integer_in",
    "integer_out",
    "moments_in",
    "moments_out",
    "parse",
    "payload_in",
    "payload_out",
    "scale_in",
    "seconds",
    "shortfalls_in",
    "shortfalls_out",
    "statistics_in",
    "statistics_out",
    "text",
]

MAX_BYTES = 4 << 20
"""Of one message that is no chunk."""

MAX_TEXT = 2000
MAX_INTEGER_BYTES = 96
MAX_WEIGHT = 2**53 - 1
"""Of a round in all: weights are exact in float64."""

MOST_SHORTFALLS = 2
"""Of a hub, of what a member sent: one that counted in part, and one from which on nothing did."""

MOST_SAMPLES = 2**30
"""At one site: those of a million sites, with updates that come late, are within MAX_WEIGHT."""

MOST_PREDICTIONS = 2**40
"""At one site: a thousand volumes have 2^36 voxels, each of which is one."""

MOST_SECONDS = 1e9
LARGEST_LOSS = 2**256
"""Of one sample: the square of a float32 is less."""

_MOST = 2**63 - 1


def parse(kind: type[Message], content: bytes) -> Any:
    """Read a message. Errors: LinkError for bytes that are none, or are none of this version."""
    if len(content) > MAX_BYTES:
        raise LinkError(f"a message of {len(content)} bytes; at most {MAX_BYTES}")
    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise LinkError(f"bytes that are no {kind.__name__}") from error


def text(value: str, what: str) -> str:
    """Errors: LinkError for a text that is too long."""
    if len(value) > MAX_TEXT:
        raise LinkError(f"{what} of {len(value)} characters; at most {MAX_TEXT}")
    return value


def folder_name_in(value: str, what: str) -> str:
    """Errors: LinkError for what does not name a folder within another one: paths, hidden names, control characters."""
    if not value or value.startswith(".") or "/" in value or not value.isprintable() or len(value.encode()) > 255:
        raise LinkError(f"{what} {text(value, what)!r} is no name of a folder")
    return value


def bounded(value: int, what: str, least: int = 0, most: int = _MOST) -> int:
    """Errors: LinkError for a number out of its range."""
    if not least <= value <= most:
        raise LinkError(f"{what} is {value}; from {least} to {most}")
    return value


def seconds(value: float, what: str) -> float:
    """Errors: LinkError for what is no span of time, or one of decades."""
    if not 0 <= value <= MOST_SECONDS:
        raise LinkError(f"{what} is {value}; seconds are from 0 to {MOST_SECONDS:g}")
    return value


def payload_out(shape: Shape, digest: bytes) -> wire.Payload:
    """Write what a payload is."""
    return wire.Payload(digest=digest, num_floats=shape.num_floats, num_ints=shape.num_ints, dtype=shape.dtype)


def payload_in(message: wire.Payload, expected: Shape, what: str) -> bytes:
    """Give the digest of a payload. Errors: LinkError unless it is as large, and of the type, that it must be."""
    text(message.dtype, f"the type of {what}")
    found = (message.num_floats, message.num_ints, message.dtype)
    wanted = (expected.num_floats, expected.num_ints, expected.dtype)
    if found != wanted:
        said = [f"{floats} {dtype} and {ints} int64" for floats, ints, dtype in (found, wanted)]
        raise LinkError(f"{what} has {said[0]}; the model has {said[1]}")
    if len(message.digest) != 32:
        raise LinkError(f"the digest of {what} has {len(message.digest)} bytes; BLAKE3 has 32")
    return bytes(message.digest)


def scale_in(message: wire.Prepare) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Read the mean and the deviation of each feature, if there are any. Errors: LinkError."""
    mean, std = np.array(message.mean, np.float64), np.array(message.std, np.float64)
    if mean.size != std.size:
        raise LinkError(f"features with {mean.size} means and {std.size} deviations")
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise LinkError("features whose means or deviations are not finite, or deviations not above 0")
    return (mean, std) if mean.size else None


def shortfalls_out(shortfalls: Iterable[Shortfall]) -> list[wire.Shortfall]:
    """Write which updates did not count whole."""
    return [wire.Shortfall(round_number=one.round_number, counted=one.counted, weight=one.weight) for one in shortfalls]


def shortfalls_in(messages: Sequence[wire.Shortfall], num_hubs: int = 1) -> tuple[Shortfall, ...]:
    """Read them; `num_hubs`: from the member's up to the root. Errors: LinkError."""
    most = MOST_SHORTFALLS * num_hubs
    bounded(len(messages), "the number of updates that did not count whole", 0, most)
    return tuple(
        Shortfall(
            bounded(one.round_number, "a round"),
            bounded(one.counted, "what counted of an update", 0, one.weight),
            bounded(one.weight, "a weight", 1, MAX_WEIGHT),
        )
        for one in messages
    )


def moments_out(moments: Moments) -> wire.Moments:
    """Write a site's moments."""
    sums, squares = [integer_out(n) for n in moments.sums], [integer_out(n) for n in moments.squares]
    return wire.Moments(count=moments.count, sums=sums, squares=squares)


def moments_in(message: wire.Moments) -> Moments:
    """Read a site's moments. Errors: LinkError."""
    if len(message.sums) != len(message.squares):
        raise LinkError(f"moments with {len(message.sums)} sums and {len(message.squares)} sums of squares")
    sums = tuple(integer_in(content, "a sum") for content in message.sums)
    squares = tuple(integer_in(content, "a sum of squares") for content in message.squares)
    found = Moments(bounded(message.count, "the count of rows"), sums, squares)
    if not found.is_possible:
        raise LinkError(f"sums, or sums of squares, that no {message.count} numbers have")
    return found


def statistics_out(found: TableStatistics) -> wire.Statistics:
    """Write what a member tells of its records."""
    columns = [
        wire.Column(
            name=name,
            kind=column.kind,
            count=column.count,
            missing=column.missing,
            num_withheld=column.num_withheld,
            moments=moments_out(column.moments),
            has_values=column.values is not None,
            values=column.values,
            others=column.others,
            bins=column.bins,
        )
        for name, column in found.columns.items()
    ]
    return wire.Statistics(num_rows=found.num_rows, columns=columns)


def statistics_in(message: wire.Statistics, most: int = MOST_SAMPLES) -> TableStatistics:
    """Read what a member tells of its records, of which there are so many at most.

    Errors: LinkError where the counts contradict each other.
    """
    num_rows = bounded(message.num_rows, "num_rows", most=most)
    columns = {text(column.name, "a column's name"): _column_in(column, num_rows) for column in message.columns}
    if len(columns) < len(message.columns):
        raise LinkError("several columns of one name")
    return TableStatistics(num_rows, columns)


def _column_in(message: wire.Column, num_rows: int) -> Column:
    """Read a column of so many rows. Errors: LinkError."""
    what, moments = f"the column {message.name!r}", moments_in(message.moments)
    if message.kind not in KINDS:
        raise LinkError(f"{what} is of kind {message.kind[:80]!r}")
    if message.count + message.missing > num_rows:
        raise LinkError(f"{what} has {message.count} values, and {message.missing} are missing, in {num_rows} rows")
    if moments.count > message.count or len(moments.sums) != bool(moments.count):
        raise LinkError(f"{what} has moments of {moments.count} values, and {len(moments.sums)} of them")
    if (message.has_values and sum(message.values.values()) + message.others != message.count) or (
        not message.has_values and (message.values or message.others)
    ):
        raise LinkError(f"{what} counts other values than it has")
    if any(len(value) > MOST_CHARACTERS for value in message.values):
        raise LinkError(f"{what} has a value of more than {MOST_CHARACTERS} characters")
    if message.bins and sum(message.bins) != message.count:
        raise LinkError(f"{what} has {sum(message.bins)} values in its bins, and {message.count} in all")
    return Column(
        *(message.kind, message.count, message.missing, bounded(message.num_withheld, "num_withheld")),
        moments if moments.count else Moments(),
        dict(message.values) if message.has_values else None,
        message.others,
        tuple(message.bins) or None,
    )


def integer_out(value: int) -> bytes:
    """Write an integer, in two's complement."""
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def integer_in(content: bytes, what: str, most: int = MAX_INTEGER_BYTES) -> int:
    """Read an integer. Errors: LinkError for one of more bytes than `most`."""
    if len(content) > most:
        raise LinkError(f"{what} is a number of {len(content)} bytes; at most {most}")
    return int.from_bytes(content, "little", signed=True)
