"""What was counted at a member, between messages and `Tally`: nothing that contradicts itself gets past here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hierfl.errors import LinkError
from hierfl.learning.clusters import Clusters, Right, Size
from hierfl.learning.fixed import FRACTION_BITS
from hierfl.learning.metrics import Curve, Tally
from hierfl.learning.own_metrics import LABEL_NAMES, MAX_OWN, MOST_LABELS, auc_of, is_own_name, other_name
from hierfl.learning.score_bins import MOST_BINS, edges
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.codec import LARGEST_LOSS, MOST_PREDICTIONS, bounded, integer_in, integer_out

__all__ = ["tally_in", "tally_out"]

MAX_CLASSES = 4096

_LARGEST_LOG_LOSS = 16
"""Probabilities are clipped at 2^-23."""


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
        clusters=None if tally.clusters is None else _clusters_out(tally.clusters),
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
        if message.confusion or message.curves or any(own.values()) or any(sums) or message.HasField("clusters"):
            raise LinkError("counts of samples where none was counted")
        return Tally(num_samples, num_not_finite, num_left_out, own=own, labels=labels)
    for name, value, number in [("loss", sums[0], counted), *((name, value, num_own) for name, value in own.items())]:
        _possible(name, value, -number * LARGEST_LOSS, number * LARGEST_LOSS)
    if own and not message.confusion:
        if message.curves or any(sums[1:]) or labels or num_own != counted or message.HasField("clusters"):
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
    found = Tally(
        *(num_samples, num_not_finite, num_left_out, sums[0], sums[1], sums[2]),
        confusion=confusion,
        curves=curves,
        own=own,
        num_own=num_own,
        labels=labels,
    )
    return replace(found, clusters=_clusters_in(message.clusters, found)) if message.HasField("clusters") else found


def _clusters_out(clusters: Clusters) -> wire.Clusters:
    """Write how predictions are spread over patients."""
    sizes = [wire.Size(num_patients=one.num_patients, squares=integer_out(one.squares)) for one in clusters.sizes]
    right = [wire.Right(squares=integer_out(n.squares), products=integer_out(n.products)) for n in clusters.right]
    return wire.Clusters(sizes=sizes, right=right)


def _clusters_in(message: wire.Clusters, counted: Tally) -> Clusters:
    """Read how predictions, which have been counted, are spread over patients. Errors: LinkError for sums that no such
    numbers of patients and predictions have.
    """
    numbers, num_right = counted.numbers()
    sizes = tuple(Size(one.num_patients, _square_in(one.squares)) for one in message.sizes)
    right = tuple(Right(_square_in(one.squares), _square_in(one.products)) for one in message.right)
    if len(sizes) != len(numbers) or len(right) != len(num_right):
        raise LinkError(
            f"{len(sizes)} and {len(right)} sums over patients; needed: {len(numbers)} and {len(num_right)}"
        )
    for size, number in zip(sizes, numbers, strict=True):
        bounded(size.num_patients, "the number of patients", min(number, 1), number)
        if not _are_squares(size.squares, size.num_patients, number):
            raise LinkError(f"squares that {number} predictions of {size.num_patients} patients do not have")
    for size, spread, number, good in zip(sizes, right, numbers, num_right, strict=False):
        wrong = size.squares - 2 * spread.products + spread.squares
        if not (
            spread.squares <= spread.products <= size.squares
            and spread.products**2 <= spread.squares * size.squares
            and _may_be_squares(spread.squares, size.num_patients, good)
            and _may_be_squares(wrong, size.num_patients, number - good)
        ):
            whose = f"{number} predictions of {size.num_patients} patients"
            raise LinkError(f"squares that {good} right ones of {whose} do not have")
    if not counted.labels and len(sizes) > 1:
        whole, *sides = sizes
        most, squares = sum(side.num_patients for side in sides), sum(side.squares for side in sides)
        least = max(side.num_patients for side in sides)
        if not (least <= whole.num_patients <= most and squares <= whole.squares <= 2 * squares):
            raise LinkError("positives and negatives of other patients than there are")
    return Clusters(sizes, right)


def _square_in(content: bytes) -> int:
    return integer_in(content, "a sum of squares")


def _are_squares(squares: int, patients: int, number: int) -> bool:
    """Say whether so many patients, each of whom has some of a number, may have these sums of squares."""
    most = (number - patients + 1) ** 2 + patients - 1 if patients else 0
    return number**2 <= squares * patients <= most * patients if patients else squares == number == 0


def _may_be_squares(squares: int, patients: int, number: int) -> bool:
    """Say it of patients any of whom may have none."""
    return number <= squares <= number**2 <= squares * patients if number else squares == 0


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
