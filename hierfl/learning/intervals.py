"""How sure a node's figures are, by the number of its test samples: confidence intervals from what is counted anyway.

- Shares (accuracy, sensitivity, specificity, also at the operating point): Wilson 1927, which holds for few samples.
- AUC: DeLong, DeLong & Clarke-Pearson 1988, cut at 0 and 1. Its variance needs how many positives and negatives had
  each score, which the histogram says; with `auc: exact` it is the paper's. Left out where it is 0: all in order.

By themselves they hold for samples that are independent, as those of a patient are not. Where a task knows patients the
numbers of samples in them give way to effective ones, of independent samples that would say as much (`clusters`):

- Shares: Rao & Scott 1992, the number by the design effect, the ratio estimator's variance over patients by that of a
  binomial share, not below 1; and as that variance is of few patients, after Korn & Graubard 1998 times the square of
  t's quantile for all samples by that for all patients.
- Where that cannot be estimated, for a share of 0 or 1, a single patient or a threshold that is chosen after counting,
  and for AUC: Kish 1965 for samples of a patient that are all alike, (sum n_i)^2 / sum n_i^2, which is the fewest that
  correlation leaves, unless those with many samples are others than those with few. The correction above goes no
  further either. What a patient's positives have to do with the same one's negatives is left out of AUC's variance, for
  scores that are high together make it smaller. With fewer than two effective samples of a class it has no interval.

With one sample each all of these are the plain ones, bit for bit. Left as they are, for want of patients, they are too
narrow for a patient's ten records; so they would be for the labels of one sample taken together, and of several labels
each has its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from statistics import NormalDist
from typing import Any

import numpy as np

from hierfl.learning.clusters import Clusters, Right, Size
from hierfl.learning.metrics import Curve
from hierfl.learning.operating import OPERATING
from hierfl.learning.own_metrics import figure_of

__all__ = ["INTERVALS", "NUM_PATIENTS", "alike", "delong", "effective", "intervals", "wilson"]

INTERVALS = "intervals"
"""What they stand under among a node's figures: [low, high] by the figure's name."""

NUM_PATIENTS = "num_test_patients"
"""What stands beside them, where patients are known: how many have the test samples."""


def intervals(
    scalars: Mapping[str, Any],
    curves: Mapping[str, Curve],
    level: float,
    *,
    labels: bool = False,
    clusters: Clusters | None = None,
) -> dict[str, list[float]]:
    """Give the interval of each figure of a node that has one. `curves`: of class 1 of two, under an empty name; for
    `labels` that of each label of a sample, by its name. `clusters`: how the samples are spread over patients, None
    where they are taken for as many patients.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    sides = dict(zip(curves, _sides(curves, clusters), strict=True))
    found = {}
    for place, (name, number) in enumerate({} if labels else _of_classes(scalars).items()):
        share = scalars.get(name)
        if share is not None and number:
            right = round(share * number)
            spread = (clusters.sizes[place], clusters.right[place]) if clusters is not None else None
            found[name] = list(
                wilson(right, number, z, None if spread is None else effective(right, number, *spread, z))
            )
    for label, curve in curves.items():
        for at, side, size in zip(OPERATING, (curve.positives, curve.negatives), sides[label], strict=True):
            share, number = scalars.get(figure_of(at, label)), int(side.sum())
            if share is not None and number:
                found[figure_of(at, label)] = list(wilson(round(share * number), number, z, alike(number, size)))
    areas = {figure_of("auc", label): delong(curve, z, sides[label]) for label, curve in curves.items()}
    return {**{name: list(area) for name, area in areas.items() if area is not None}, **found}


def _of_classes(scalars: Mapping[str, Any]) -> dict[str, int]:
    """Say of how many samples each share is that is told of classes, in the order of `Clusters`."""
    counted = int(scalars.get("num_test") or 0) - int(scalars.get("num_left_out") or 0)
    if "true_positives" not in scalars:
        return {"accuracy": counted}
    positives = scalars["true_positives"] + scalars["false_negatives"]
    return {"accuracy": counted, "sensitivity": positives, "specificity": counted - positives}


def _sides(curves: Mapping[str, Curve], clusters: Clusters | None) -> Sequence[tuple[Size | None, Size | None]]:
    """Say how the positives and the negatives of each curve are spread over patients, where these are known."""
    if clusters is None:
        return [(None, None)] * len(curves)
    return list(zip(clusters.sizes[1::2], clusters.sizes[2::2], strict=True))[: len(curves)]


def alike(number: int, size: Size | None) -> float:
    """Give how many independent samples say as much as `number` of patients whose own are all alike (Kish 1965).

    `size`: how they are spread over patients; None: each has one.
    """
    return number if size is None or not size.squares else number**2 / size.squares


def effective(right: int, number: int, size: Size, spread: Right, z: float) -> float:
    """Give how many independent samples say as much of a share, `right` of `number`, as those of these patients.

    `spread`: how those that are right are spread over them; `z`: the quantile by which the interval is made.
    """
    fewest, patients = alike(number, size), size.num_patients
    if patients < 2 or right in (0, number):
        return fewest
    share = Fraction(right, number)
    squares = spread.squares - 2 * share * spread.products + share**2 * size.squares  # of r_i - share n_i
    effect = squares * patients / (patients - 1) / (share * (1 - share) * number * number / (number - 1))
    found = number / max(1.0, float(effect))
    quantiles = _student(z, number - 1), _student(z, patients - 1)
    return min(found, max(fewest, found * math.pow(quantiles[0] / quantiles[1], 2)))


def _student(z: float, freedom: int) -> float:
    """Give the quantile of Student's t where the normal distribution's is z (Abramowitz & Stegun 1964, 26.7.5)."""
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / math.pow(freedom, power) for power, term in enumerate(terms, 1))


def wilson(right: int, number: int, z: float, size: float | None = None) -> tuple[float, float]:
    """Give the interval of a share, `right` of `number`, at least 1; `z`: the quantile of the normal distribution;
    `size`: how many independent samples these are as good as, None for all.
    """
    size = number if size is None else size
    share, weight = right / number, z * z / size
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / size + weight / (4 * size))
    return max(0.0, middle - half) if right else 0.0, min(1.0, middle + half) if right < number else 1.0


def delong(curve: Curve, z: float, sizes: tuple[Size | None, Size | None] = (None, None)) -> tuple[float, float] | None:
    """Give the interval of the area under a curve; None with fewer than two of a class, or where its variance is 0.

    `sizes`: how positives and negatives are spread over patients, whose own count as all alike; None: each has one.
    """
    positives, negatives = (one.astype(np.float64) for one in (curve.positives, curve.negatives))
    num_positives, num_negatives, area = positives.sum(), negatives.sum(), curve.auc()
    num_alike = [alike(int(num), size) for num, size in zip((num_positives, num_negatives), sizes, strict=True)]
    if area is None or min(num_alike) < 2:
        return None
    wins = (np.cumsum(negatives) - negatives / 2) / num_negatives
    losses = (num_positives - np.cumsum(positives) + positives / 2) / num_positives
    of_positives = (positives * np.square(wins - area)).sum() / (num_alike[0] - 1)
    of_negatives = (negatives * np.square(losses - area)).sum() / (num_alike[1] - 1)
    half = z * math.sqrt(of_positives / num_positives + of_negatives / num_negatives)
    return (max(0.0, area - half), min(1.0, area + half)) if half else None
