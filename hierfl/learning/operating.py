"""Where a classifier into two classes is put to use: one threshold for the federation, and what it gives at each node.

AUC is of all thresholds; who acts on a prediction has one (Zweig & Campbell 1993). It is chosen on the scores of all
test samples together, which add as histograms, and then held against every hub's and site's own, so that a hospital
sees what the federation's threshold would do there. With `auc: histogram` it is the edge of a bin, a given one the
nearest: then what is told is what predicting by it gives, to the last sample. Of several labels of each sample each has
a threshold of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from hierfl.config.learning import OperatingPoint
from hierfl.learning.metrics import Curve
from hierfl.learning.own_metrics import figure_of
from hierfl.learning.score_bins import bins_of, edges

__all__ = ["OPERATING", "THRESHOLD", "at_thresholds", "given_threshold", "threshold_of"]

THRESHOLD = "operating_threshold"
"""What is told at the root."""

OPERATING = ("operating_sensitivity", "operating_specificity")
"""What is told at every node."""


def given_threshold(threshold: float, bins: int | None) -> float:
    """Give the edge between two of the bins that is nearest to a threshold; without bins the threshold."""
    if bins is None:
        return threshold
    inner = edges(bins)[1:-1]
    return float(inner[np.abs(inner - threshold).argmin()])


def threshold_of(curve: Curve, wanted: OperatingPoint) -> float | None:
    """Give the score from which on class 1 is predicted: for a wanted specificity the smallest that has it, for a
    wanted sensitivity the largest; None where that class has no samples, or no threshold up to 1 has it. Of scores as
    they are it lies half way to the one below: whoever predicts in other batches gets other last bits. The last bin
    holds scores of 1, too, so that nothing is known to lie above it.
    """
    bins = curve.bins
    if wanted.threshold is not None:
        return given_threshold(wanted.threshold, bins)
    scores = curve.scores.tolist()
    if not scores or scores[-1] < (1.0 if bins is None else edges(bins)[-2]):
        scores.append(1.0)
    positives, negatives = (np.concatenate([[0], np.cumsum(one)]) for one in (curve.positives, curve.negatives))
    if wanted.specificity is not None:
        enough = math.ceil(Fraction(str(wanted.specificity)) * int(negatives[-1]))
        place, num = int(np.searchsorted(negatives, enough)), int(negatives[-1])
    else:
        at_most = math.floor((1 - Fraction(str(wanted.sensitivity))) * int(positives[-1]))
        place, num = int(np.searchsorted(positives, at_most, side="right")) - 1, int(positives[-1])
        place = min(place, len(scores) - 1)
    if not num or place >= len(scores):
        return None
    if bins is not None:  # empty bins are left out of the curve: the first edge above what is to be below is smaller
        is_above = place and wanted.specificity is not None
        above = edges(bins)[bins_of(np.array([scores[place - 1]]), bins) + 1].item() if is_above else 1.0
        return float(min(above, scores[place]))
    below = scores[place - 1] if place else scores[place]
    return float((below + scores[place]) / 2)


def at_thresholds(curves: Mapping[str, Curve], thresholds: Mapping[str, float | None]) -> dict[str, Any]:
    """Give sensitivity and specificity by name, where each label is predicted from a score on; None where either is
    missing, or a class.
    """
    return {
        figure_of(name, label): share
        for label, threshold in thresholds.items()
        for name, share in _at(curves.get(label), threshold).items()
    }


def _at(curve: Curve | None, threshold: float | None) -> dict[str, Any]:
    """Give sensitivity and specificity where class 1 is predicted from a score on."""
    if curve is None or threshold is None:
        return dict.fromkeys(OPERATING)
    first = int(np.searchsorted(curve.scores, threshold, side="left"))
    positives, negatives = int(curve.positives.sum()), int(curve.negatives.sum())
    return {
        OPERATING[0]: int(curve.positives[first:].sum()) / positives if positives else None,
        OPERATING[1]: int(curve.negatives[:first].sum()) / negatives if negatives else None,
    }
