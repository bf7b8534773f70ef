"""Metrics that add over the tree, bit for bit.

A site turns scores and labels into a `Tally` of integers; hubs add tallies; a metric is computed once, where it is
shown. The sums of losses are fixed point, quantised once at the site, so no order and no grouping changes a bit.

Definitions, for n samples with class probabilities p and labels y:
- accuracy: the share of samples whose most probable class is y (two classes: p > 0.5 means class 1);
- loss: the mean of the task's own loss; log_loss: -mean(log p_y), p clipped to [2^-23, 1 - 2^-23];
- brier: mean((p - y)^2) for two classes, mean(sum_c (p_c - [y = c])^2) for more (Brier 1950);
- auc: P(score of a positive > score of a negative), ties count 1/2 (Mann & Whitney 1947; Hanley & McNeil 1982); for
  more than two classes the mean over one-versus-rest, over the classes that have both kinds of samples;
- ece: the expected calibration error, for more than two classes the mean over one-versus-rest, and `reliability`: the
  curve that it is of; both from the counts of scores that auc is made of, see `calibration`;
- sensitivity, specificity: the share of positives, of negatives that are predicted right (two classes only);
- dice: 2 TP / (2 TP + FP + FN), two classes only (Dice 1945; the F1 score): over all samples together, not the mean of
  each volume's, so that it adds;
- true_positives, false_positives, true_negatives, false_negatives: counts, for two classes; for more, up to 32, the
  table `confusion`, rows the true and columns the predicted class;
- of several labels of each sample all of these over the labels that are known, each as a sample of two classes; but auc
  and ece are the means over labels, and `auc_<label>` is of one, for up to 32; see `labels`;
- metrics of the task's own, by their names: means over the samples of what each adds; see `own_metrics`.

A site that predicts NaN or Inf for any sample, or whose loss is NaN or Inf, has no metrics, and all its samples are
left out of those above it: `num_left_out` counts them, `num_not_finite` those of them whose predictions are not finite.
To leave out only the latter would flatter the model where it fails, and a mean loss is not finite as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.calibration import Reliability
from hierfl.learning.clusters import Clusters
from hierfl.learning.fixed import FRACTION_BITS, dot, quantised
from hierfl.learning.own_metrics import BUILT_IN, MAX_OWN, OF_SCORES, added, auc_of, num_bad, sums
from hierfl.learning.predictions import classes_of, predicted_of, probabilities_of
from hierfl.learning.score_bins import bins_of, edges, middles

__all__ = ["AUC_KINDS", "LOWER_IS_BETTER", "Curve", "Tally"]

AUC_KINDS = ("histogram", "exact", "none")
"""How AUC is measured: from a histogram of the scores, from every score, or not at all."""

LOWER_IS_BETTER = frozenset(name for name, mode in BUILT_IN.items() if mode == "min")
"""The metrics of `Tally.scalars` that fall as the model gets better; the others rise."""

MAX_CLASSES = 32
"""The most classes of which the confusion table is told; its size is their square, at every node and every round."""

_EVERYWHERE = ("accuracy", "auc", "loss", "log_loss", "brier", "ece")
_SMALLEST = 2.0**-23

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """How many positives and negatives had each score, for one class against the rest; k distinct scores.

    `scores`: float64 (k,), rising; `positives`, `negatives`: int64 (k,). A histogram's scores are its bins' lower
    edges; empty bins are left out, so a small site sends little. `bins`: their number, None where the scores are as
    they were; of sums that differ the fewest.
    """

    scores: NDArray[np.float64]
    positives: Counts
    negatives: Counts
    bins: int | None = None

    @classmethod
    def of(cls, scores: NDArray[np.float64], positive: NDArray[np.bool_], bins: int | None) -> Curve:
        """Count scores in [0, 1], shape (n,), in `bins` bins (see `score_bins`), or as they are for None."""
        if bins is None:
            ones = positive.astype(np.int64)
            return cls._merged(scores, ones, 1 - ones, None)
        places = bins_of(scores, bins)
        both = np.bincount(places, minlength=bins)
        positives = np.bincount(places[positive], minlength=bins)
        full = np.flatnonzero(both)
        return cls(edges(bins)[full], positives[full], (both - positives)[full], bins)

    @classmethod
    def total(cls, curves: Iterable[Curve]) -> Curve:
        """Add any number of curves (at least one) at once."""
        parts = list(curves)
        return cls._merged(
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.positives for part in parts]),
            np.concatenate([part.negatives for part in parts]),
            min((part.bins for part in parts if part.bins is not None), default=None),
        )

    @classmethod
    def _merged(cls, scores: NDArray[np.float64], positives: Counts, negatives: Counts, bins: int | None) -> Curve:
        """Sort by score and add up the counts of equal scores."""
        order = np.argsort(scores, kind="stable")
        scores = scores[order]
        starts = np.flatnonzero(np.diff(scores, prepend=-1.0))
        ones, others = (np.add.reduceat(counts[order], starts) for counts in (positives, negatives))
        return cls(scores[starts], ones, others, bins)

    def auc(self) -> float | None:
        """Return the area under the ROC curve, or None where one of the two kinds is missing."""
        pairs, wins = self._pairs(), dot(self.positives, 2 * np.cumsum(self.negatives) - self.negatives)
        return wins / (2 * pairs) if pairs else None

    def auc_error(self) -> float | None:
        """Return the most by which binning can have moved `auc`: half the share of pairs that fell into one bin."""
        pairs = self._pairs()
        return dot(self.positives, self.negatives) / (2 * pairs) if pairs else None

    def reliability(self) -> Reliability:
        """Return how the scores compare with how often the class was true; of a bin's scores its middle is taken."""
        said = self.scores if self.bins is None else middles(self.scores, self.bins)
        return Reliability.of(said, self.positives, self.negatives)

    def _pairs(self) -> int:
        return int(self.positives.sum()) * int(self.negatives.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """The counts of one site, or of all sites below a hub; `Tally()` counts nothing and adds to anything.

    `loss`, `log_loss`, `brier`: sums over samples in units of 2^-40; `confusion`: int64 (C, C), rows are the true and
    columns the predicted class; `curves`: one for two classes, C for more, none where AUC is not measured; `labels`:
    the names of several labels of each sample, each with a curve of its own, beside one confusion of two classes;
    `num_not_finite`: samples whose scores are NaN or Inf; `num_left_out`: samples of sites with any such, or whose loss
    is NaN or Inf. The other counts are of the other sites. `own`: sums of the task's own metrics by name, each of
    `num_own` values; beside them there may be no classes, and then the names are there at a site whose samples are left
    out, too.
    """

    num_samples: int = 0
    num_not_finite: int = 0
    num_left_out: int = 0
    loss: int = 0
    log_loss: int = 0
    brier: int = 0
    confusion: Counts | None = None
    curves: tuple[Curve, ...] = ()
    own: Mapping[str, int] = field(default_factory=dict)
    num_own: int = 0
    labels: tuple[str, ...] = ()
    clusters: Clusters | None = None

    @classmethod
    def measured(cls, own: Mapping[str, NDArray[np.float64]], *, loss_sum: float) -> Tally:
        """Count one site's n samples that are told into no classes; `own`: at least one metric, each of shape (n,).

        Where none counts it is still known what is measured, and that it is no class.
        """
        n, bad = len(next(iter(own.values()))), num_bad(own)
        if bad or n == 0 or not math.isfinite(loss_sum):
            return cls(num_samples=n, num_not_finite=bad, num_left_out=n, own=dict.fromkeys(sorted(own), 0))
        return cls(num_samples=n, loss=quantised(loss_sum), own=sums(own), num_own=n)

    @classmethod
    def of(
        cls,
        scores: NDArray[Any],
        labels: NDArray[Any],
        *,
        loss_sum: float,
        auc: str = "histogram",
        bins: int = 2048,
        own: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> Tally:
        """Count one site's n predictions.

        Args:
            scores: shape (n,) or (n, 1), the probability of class 1; or (n, C), the probability of every class.
            labels: shape (n,), class indices of any number type.
            loss_sum: the task's loss, summed over the n samples.
            auc: "histogram" (`bins` bins per class), "exact" (all scores are kept) or "none".
            bins: number of bins of the histogram.
            own: the task's own metrics, each of shape (m,).

        Raises:
            ValueError: scores outside [0, 1], labels that are no class, or shapes that do not fit.
        """
        if auc not in AUC_KINDS:
            raise ValueError(f"auc is {auc!r}; allowed: {', '.join(AUC_KINDS)}")
        probabilities = probabilities_of(np.asarray(scores))
        classes = classes_of(np.asarray(labels).reshape(-1), probabilities)
        n = len(classes)
        if n == 0:
            return cls()
        bad = max(n - int(np.isfinite(probabilities).all(axis=1).sum()), num_bad(own or {}))
        if bad or not math.isfinite(loss_sum):
            return cls(num_samples=n, num_not_finite=bad, num_left_out=n)
        truth = np.eye(probabilities.shape[1])[classes]
        likelihoods = np.clip(probabilities[np.arange(n), classes], _SMALLEST, 1.0 - _SMALLEST)
        brier = float(np.square(probabilities - truth).sum())
        binary = probabilities.shape[1] == 2
        return cls(
            num_samples=n,
            loss=quantised(loss_sum),
            log_loss=quantised(float(-np.log(likelihoods).sum())),
            brier=quantised(brier / 2 if binary else brier),
            confusion=_confusion(probabilities, classes),
            curves=_curves(probabilities, classes, None if auc == "exact" else bins) if auc != "none" else (),
            own=sums(own or {}),
            num_own=len(next(iter(own.values()))) if own else 0,
        )

    @classmethod
    def total(cls, tallies: Iterable[Tally]) -> Tally:
        """Add any number of tallies, with the same bits as adding them one by one, but faster."""
        parts = [tally for tally in tallies if tally.num_samples]
        return cls(
            num_samples=sum(part.num_samples for part in parts),
            num_not_finite=sum(part.num_not_finite for part in parts),
            num_left_out=sum(part.num_left_out for part in parts),
            loss=sum(part.loss for part in parts),
            log_loss=sum(part.log_loss for part in parts),
            brier=sum(part.brier for part in parts),
            confusion=reduce(_added, (part.confusion for part in parts), None),
            curves=_joined([part.curves for part in parts if part.curves]),
            own=added(part.own for part in parts if part.own or part.num_samples > part.num_left_out),
            num_own=sum(part.num_own for part in parts),
            labels=next((part.labels for part in parts if part.labels), ()),
            clusters=Tally._spread(parts),
        )

    @staticmethod
    def _spread(parts: list[Tally]) -> Clusters | None:
        """Add up how predictions are spread over patients; where only some know these, the others' have one each."""
        if all(part.clusters is None for part in parts):
            return None
        counted = [part for part in parts if part._num_counted]
        return Clusters.total(part.clusters or Clusters.alone(*part.numbers()) for part in counted)

    def numbers(self) -> tuple[list[int], list[int]]:
        """Give how many predictions there are, of which `clusters` says how they are spread, and how many of the first
        of these are right: in all, of two classes beside that of positives and of negatives, or of each label so.
        """
        assert self.confusion is not None
        right = [int(count) for count in np.diagonal(self.confusion)]
        if self.labels:
            sides = [side.sum() for curve in self.told_apart.values() for side in (curve.positives, curve.negatives)]
            return [self._num_counted, *map(int, sides)], []
        if len(right) > 2:
            return [self._num_counted], [sum(right)]
        negatives, positives = (int(row.sum()) for row in self.confusion)
        return [self._num_counted, positives, negatives], [sum(right), right[1], right[0]]

    def __add__(self, other: Tally) -> Tally:
        return Tally.total((self, other))

    def __eq__(self, other: object) -> bool:
        return self._bits() == other._bits() if isinstance(other, Tally) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def scalars(self) -> dict[str, float | list[list[float]] | None]:
        """Return every metric by name, and `num_test`, the samples measured; None reads "undefined".

        `num_left_out` and `num_not_finite` are there only where samples are left out.
        """
        is_classes = self.confusion is not None or self.labels or not self.own
        everywhere = _EVERYWHERE if is_classes else ("loss",)
        values: dict[str, Any] = {name: self._value(name) for name in (*everywhere, *self._of_labels, *self.own)}
        if self.confusion is not None and len(self.confusion) == 2:
            values |= {name: self._value(name) for name in ("sensitivity", "specificity", "dice")}
            (true_negatives, false_positives), (false_negatives, true_positives) = self.confusion.tolist()
            values |= {"true_positives": true_positives, "false_positives": false_positives}
            values |= {"true_negatives": true_negatives, "false_negatives": false_negatives}
        elif self.confusion is not None and len(self.confusion) <= MAX_CLASSES:
            values["confusion"] = self.confusion.tolist()
        if self.curves:
            values["reliability"] = Reliability.total(curve.reliability() for curve in self.curves).rows()
        if self.num_left_out:
            values |= {"num_left_out": self.num_left_out, "num_not_finite": self.num_not_finite}
        return {"num_test": self.num_samples, **values}

    def why_undefined(self, metric: str) -> str | None:
        """Say in a few words why a metric of `scalars` is None; None where it is defined."""
        if metric == "num_test":
            return None
        if not self.num_samples:
            return "no samples"
        if not self._num_counted:
            return f"{self.num_not_finite or self.num_samples} of {self.num_samples} not finite"
        if metric in (*OF_SCORES, *self._of_labels) and not self.curves:
            return "not measured"
        if self._value(metric) is not None:
            return None
        missing = {"sensitivity": "no positives", "specificity": "no negatives", "dice": "no positives"}
        return missing.get(metric, "one class")

    @property
    def told_apart(self) -> Mapping[str, Curve]:
        """Give the curves that one threshold each tells apart: of class 1 of two, under an empty name, or by label."""
        if not self.labels:
            return {"": self.curves[0]} if len(self.curves) == 1 else {}
        return dict(zip(self.labels, self.curves, strict=True)) if self.curves and self._of_labels else {}

    @property
    def _of_labels(self) -> Mapping[str, int]:
        """Give the places of labels by the names of their areas, where these are told."""
        return {auc_of(label): place for place, label in enumerate(self.labels)} if len(self.labels) <= MAX_OWN else {}

    @property
    def _num_counted(self) -> int:
        """Count the samples that metrics are of."""
        return self.num_samples - self.num_left_out

    def _value(self, metric: str) -> float | None:
        """Compute one metric; None where it is undefined."""
        if not self._num_counted or (self.confusion is None and not self.own):
            return None
        if metric in self.own:
            return self.own[metric] / (self.num_own << FRACTION_BITS) if self.num_own else None
        if metric in ("loss", "log_loss", "brier"):
            return int(getattr(self, metric)) / (self._num_counted << FRACTION_BITS)
        if self.confusion is None:
            return None
        if metric == "ece":
            errors = [curve.reliability().error() for curve in self.curves if curve.scores.size]
            return math.fsum(errors) / len(errors) if errors else None
        if metric in self._of_labels:
            return self.curves[self._of_labels[metric]].auc() if self.curves else None
        if metric == "auc":
            areas = [area for area in (curve.auc() for curve in self.curves) if area is not None]
            return math.fsum(areas) / len(areas) if areas else None
        right = [int(count) for count in np.diagonal(self.confusion)]
        if metric == "accuracy":
            return sum(right) / self._num_counted
        if metric == "dice":
            of_either = int(self.confusion[1].sum()) + int(self.confusion[:, 1].sum())
            return 2 * right[1] / of_either if of_either else None
        true_class = {"specificity": 0, "sensitivity": 1}[metric]
        of_class = int(self.confusion[true_class].sum())
        return right[true_class] / of_class if of_class else None

    def _bits(self) -> tuple[object, ...]:
        """Give all that is counted as plain values, to compare."""
        return (
            *(self.num_samples, self.num_not_finite, self.num_left_out, self.loss, self.log_loss, self.brier),
            None if self.confusion is None else self.confusion.tolist(),
            [(c.scores.tolist(), c.positives.tolist(), c.negatives.tolist(), c.bins) for c in self.curves],
            *(dict(self.own), self.num_own, self.labels, self.clusters),
        )


def _confusion(probabilities: NDArray[np.float64], classes: Counts) -> Counts:
    """Count (true, predicted) pairs, int64 (C, C)."""
    num_classes = probabilities.shape[1]
    counts = np.bincount(classes * num_classes + predicted_of(probabilities), minlength=num_classes**2)
    return counts.astype(np.int64).reshape(num_classes, num_classes)


def _curves(probabilities: NDArray[np.float64], classes: Counts, bins: int | None) -> tuple[Curve, ...]:
    """Make the curve of class 1 for two classes, of every class for more."""
    num_classes = probabilities.shape[1]
    measured = range(1, 2) if num_classes == 2 else range(num_classes)
    return tuple(Curve.of(probabilities[:, c], classes == c, bins) for c in measured)


def _added(left: Counts | None, right: Counts | None) -> Counts | None:
    """Add two confusion tables, either of which may be missing."""
    if left is None or right is None:
        return right if left is None else left
    if left.shape != right.shape:
        raise ValueError(f"sites differ in their number of classes: {len(left)} and {len(right)}")
    return left + right


def _joined(curves: list[tuple[Curve, ...]]) -> tuple[Curve, ...]:
    """Add up curves class by class."""
    return tuple(Curve.total(same_class) for same_class in zip(*curves, strict=True))
