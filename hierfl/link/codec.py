"""Between messages and what they mean. What comes is held against what may come; nothing else gets past here.

A number that is out of its range, a text that is too long, a list of another length: each is a `LinkError` that says
what was wrong. Messages are small (`MAX_BYTES`, which the transport holds); vectors travel as payloads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from hierfl.errors import LinkError
from hierfl.learning.disclosure import MOST_CHARACTERS
from hierfl.learning.fixed import FRACTION_BITS
from hierfl.learning.metrics import Curve, Tally
from hierfl.learning.own_metrics import LABEL_NAMES, MAX_OWN, MOST_LABELS, auc_of, is_own_name, other_name
from hierfl.learning.score_bins import MOST_BINS, edges
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
    "tally_in",
    "tally_out",
    "text",
]

MAX_BYTES = 4 << 20
"""Of one message that is no chunk."""

MAX_TEXT = 2000
MAX_CLASSES = 4096
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

_LARGEST_LOG_LOSS = 16
"""Probabilities are clipped at 2^-23."""
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


def tally_out(tally: Tally) -> wire.Tally:
    """Write what was counted."""
    return wire.Tally(
        num_samples=tally.num_samples,
        num_not_finite=tally.num_not_finite,
        num_left_out=tally.num_left_out,
        loss=integer_out(tally.loss),
        log_loss=integer_out(tally.log_loss),
        brier=integer_out(tally.brier),
        confusion=[] if tally.confusion is None else tally.confusion.ravel().tolist(),
        curves=[
            wire.Curve(
                scores=curve.scores,
                positives=curve.positives.tolist(),
                negatives=curve.negatives.tolist(),
                bins=curve.bins or 0,
            )
            for curve in tally.curves
        ],
        own={name: integer_out(value) for name, value in tally.own.items()},
        num_own=tally.num_own,
        labels=tally.labels,
    )


def tally_in(message: wire.Tally, most: int = MOST_PREDICTIONS) -> Tally:
    """Read what was counted, of so many predictions at most.

    Errors: LinkError where the counts contradict each other, or sums are larger than so many samples have.
    """
    num_samples = bounded(message.num_samples, "num_samples", most=most)
    num_left_out = bounded(message.num_left_out, "num_left_out", most=num_samples)
    num_not_finite = bounded(message.num_not_finite, "num_not_finite", most=num_left_out)
    counted = num_samples - num_left_out
    sums = [integer_in(getattr(message, name), name) for name in ("loss", "log_loss", "brier")]
    own, labels = _own_in(message), _labels_in(message)
    num_own = bounded(message.num_own, "num_own", most=most if own and counted else 0)
    if not counted:
        if message.confusion or message.curves or any(own.values()) or any(sums):
            raise LinkError("counts of samples where none was counted")
        return Tally(num_samples, num_not_finite, num_left_out, own=own, labels=labels)
    for name, value, number in [("loss", sums[0], counted), *((name, value, num_own) for name, value in own.items())]:
        _possible(name, value, -number * LARGEST_LOSS, number * LARGEST_LOSS)
    if own and not message.confusion:
        if message.curves or any(sums[1:]) or labels or num_own != counted:
            raise LinkError("counts of classes where there are none")
        return Tally(num_samples, num_not_finite, num_left_out, sums[0], own=own, num_own=num_own)
    num_classes = math.isqrt(len(message.confusion))
    if num_classes**2 != len(message.confusion) or not 2 <= num_classes <= MAX_CLASSES:
        raise LinkError(f"a table of {len(message.confusion)} counts is none of true and predicted classes")
    _possible("log_loss", sums[1], 0, counted * _LARGEST_LOG_LOSS)
    _possible("brier", sums[2], 0, counted * num_classes)
    confusion = _counts(message.confusion, "the table of classes", counted).reshape(num_classes, num_classes)
    needed = len(labels) or (1 if num_classes == 2 else num_classes)
    if len(message.curves) not in (0, needed) or (labels and num_classes != 2):
        raise LinkError(f"{len(message.curves)} curves for {num_classes} classes and {len(labels)} labels")
    curves = tuple(_curve_in(curve, None if labels else counted) for curve in message.curves)
    if labels and curves:
        _counts([int(sum(each.positives) + sum(each.negatives)) for each in curves], "the curves of labels", counted)
    return Tally(
        *(num_samples, num_not_finite, num_left_out, sums[0], sums[1], sums[2]),
        confusion=confusion,
        curves=curves,
        own=own,
        num_own=num_own,
        labels=labels,
    )


def _possible(what: str, value: int, least: int, most: int) -> None:
    """Errors: LinkError for a sum of losses, in units of 2^-40, that is out of its range."""
    if not least << FRACTION_BITS <= value <= most << FRACTION_BITS:
        raise LinkError(f"a sum of {what} that no such number of samples has")


def _own_in(message: wire.Tally) -> dict[str, int]:
    if len(message.own) > MAX_OWN:
        raise LinkError(f"{len(message.own)} metrics of a task's own; at most {MAX_OWN}")
    if odd := [name for name in message.own if not is_own_name(name)]:
        raise LinkError(f"a metric of a task's own is called {odd[0][:80]!r}; needed: {other_name(odd[0][:80])}")
    return {name: integer_in(message.own[name], name) for name in sorted(message.own)}


def _labels_in(message: wire.Tally) -> tuple[str, ...]:
    names = tuple(message.labels)
    if len(names) > MOST_LABELS or len({*names}) < len(names):
        raise LinkError(f"{len(names)} names of labels; at most {MOST_LABELS}, each once")
    if odd := [name for name in names if not is_own_name(auc_of(name)) or auc_of(name) in message.own]:
        raise LinkError(f"a label is called {odd[0][:80]!r}; needed: {LABEL_NAMES}")
    return names


def _curve_in(message: wire.Curve, counted: int | None) -> Curve:
    """Read a curve; `counted`: of how many samples, None where others say so."""
    scores = np.array(message.scores, np.float64)
    if not (np.isfinite(scores).all() and (np.diff(scores) > 0).all() and (scores >= 0).all() and (scores <= 1).all()):
        raise LinkError("the scores of a curve do not rise from 0 to 1")
    if not len(message.positives) == len(message.negatives) == scores.size:
        raise LinkError("a curve with other numbers of scores, positives and negatives")
    given = [*message.positives, *message.negatives]
    both = _counts(given, "a curve", sum(given) if counted is None else counted)
    bins = message.bins or None
    if bins is not None and not (2 <= bins <= MOST_BINS and np.isin(scores, edges(bins)[:-1]).all()):
        raise LinkError(f"the scores of a curve are no edges of {bins} bins")
    return Curve(scores, both[: scores.size], both[scores.size :], bins)


def _counts(values: Sequence[int], what: str, total: int) -> Any:
    """Give counts as int64. Errors: LinkError unless they add up to all samples that were counted."""
    if sum(values) != total:
        raise LinkError(f"{what} counts {sum(values)} samples of {total}")
    return np.array(values, np.int64)


def integer_out(value: int) -> bytes:
    """Write an integer, in two's complement."""
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def integer_in(content: bytes, what: str, most: int = MAX_INTEGER_BYTES) -> int:
    """Read an integer. Errors: LinkError for one of more bytes than `most`."""
    if len(content) > most:
        raise LinkError(f"{what} is a number of {len(content)} bytes; at most {most}")
    return int.from_bytes(content, "little", signed=True)
