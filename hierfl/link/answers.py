"""What a member may answer: admitted by its numbers, before anything is stored."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hierfl.errors import LinkError
from hierfl.learning.metrics import Tally
from hierfl.learning.ring import Grid
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.codec import (
    LARGEST_LOSS,
    MOST_PREDICTIONS,
    MOST_SAMPLES,
    bounded,
    moments_in,
    payload_in,
    seconds,
    statistics_in,
    text,
)
from hierfl.link.masks import SECRET_BYTES
from hierfl.link.payload import Shape
from hierfl.link.signed import MOST_BYTES
from hierfl.link.tallies import tally_in
from hierfl.runtime.jobs import Inventory

__all__ = ["Trained", "admit_described", "admit_evaluated", "admit_keyed", "admit_masked", "admit_trained", "limit_of"]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a member says of its training: an update of this digest and weight is ready, or there was an error."""

    weight: int
    digest: bytes | None
    num_samples: int
    num_steps: int
    loss: float | None
    duration_s: float
    error: str


def admit_described(message: wire.Described, path: str, num_sites: int = 1) -> Inventory:
    """Take what a member has, at so many sites. Errors: LinkError."""
    most = num_sites * MOST_SAMPLES
    counts = (bounded(message.num_train, "num_train", most=most), bounded(message.num_test, "num_test", most=most))
    error = text(message.error, "an error")
    moments = moments_in(message.moments) if message.HasField("moments") else None
    if moments is not None and moments.count != message.num_train:
        raise LinkError(f"moments of {moments.count} training samples, and {message.num_train} of them")
    told = statistics_in(message.statistics, most) if message.HasField("statistics") else None
    counted = (0, 0, None) if error else (*counts, moments)
    num_patients = bounded(message.num_patients, "num_patients", most=message.num_train) or None
    return Inventory(path, *counted, error or None, statistics=told, num_patients=None if error else num_patients)


def admit_trained(
    message: wire.Trained, asked_weight: int, shape: Shape, num_sites: int = 1, *, is_masked: bool = False
) -> Trained:
    """Take word of an update. `asked_weight`: the most that it may weigh; `shape`: what it must be; `num_sites`: at
    and below the member; `is_masked`: nothing is said of it yet but its weight.

    Errors: LinkError.
    """
    error = text(message.error, "an error")
    loss = message.loss if not error and abs(message.loss) <= LARGEST_LOSS else None
    figures = (
        bounded(message.num_samples, "num_samples", most=num_sites * MOST_SAMPLES),
        bounded(message.num_steps, "num_steps", most=2**53),
        loss,
        seconds(message.duration_s, "duration_s"),
    )
    if error:
        if message.HasField("update"):
            raise LinkError("an update and an error at once")
        return Trained(0, None, *figures, error)
    weight = bounded(message.weight, "the weight of an update", 1, asked_weight)
    if is_masked and message.HasField("update"):
        raise LinkError("word of an update as it is, where members mask theirs (secure_aggregation)")
    return Trained(weight, b"" if is_masked else payload_in(message.update, shape, "an update"), *figures, "")


def admit_keyed(message: wire.Keyed, path: str, weight: int) -> wire.MemberKey | tuple[str, ...] | str:
    """Take a member's key for a masked sum, among whom it has masked this update before, or why it gives neither.

    Errors: LinkError for a key of another.
    """
    error, key = text(message.error, "an error"), message.key
    if error:
        return error
    if message.noted:
        if message.HasField("key"):
            raise LinkError("a key, and word of another sum, at once")
        return tuple(message.noted)
    sizes = len(key.certificate), len(key.signature)
    if (key.node, key.weight, len(key.public)) != (path, weight, SECRET_BYTES) or max(sizes) > MOST_BYTES:
        raise LinkError(f"a key that is not of {path[:80]}, of another weight than its update, or of another size")
    return key


def admit_masked(message: wire.Masked, shape: Shape) -> bytes | str:
    """Take the digest of a masked update, or why there is none. Errors: LinkError for one of another shape."""
    return text(message.error, "an error") or payload_in(message.update, shape, "a masked update")


def admit_evaluated(message: wire.Evaluated, num_sites: int = 1) -> tuple[Tally, float, str]:
    """Take a measurement at so many sites: its counts, its seconds, and why there is none. Errors: LinkError."""
    error = text(message.error, "an error")
    tally = Tally() if error else tally_in(message.tally, num_sites * MOST_PREDICTIONS)
    return tally, seconds(message.duration_s, "duration_s"), error


def limit_of(grid: Grid, weight: int, num_sites: int) -> int:
    """Give the largest magnitude that an element of a sum over `num_sites` sites of `weight` in all may have.

    A change within the clip, times the weight, and half a unit for each rounding.
    """
    factor, multiple = grid.scale(weight)
    most: int = 2 ** (grid.bits - 1) - 1
    return min(math.ceil(grid.clip * float(factor)) * multiple + num_sites, most)
