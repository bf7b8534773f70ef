"""How sure a node's figures are, by the number of its test samples: confidence intervals from what is counted anyway.

- Shares (accuracy, sensitivity, specificity, also at the operating point): Wilson 1927, which holds for few samples.
- AUC: DeLong, DeLong & Clarke-Pearson 1988, cut at 0 and 1. Its variance needs how many positives and negatives had
  each score, which the histogram says; with `auc: exact` it is the paper's. Left out where it is 0: all in order.

They hold for samples that are independent: for a patient's ten records they are too narrow. So they would be for the
labels of one sample taken together; of several labels each has its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np

from hierfl.learning.metrics import Curve
from hierfl.learning.operating import OPERATING
from hierfl.learning.own_metrics import figure_of

__all__ = ["INTERVALS", "delong", "intervals", "wilson"]

INTERVALS = "intervals"
"""What they stand under among a node's figures: [low, high] by the figure's name."""


def intervals(
    scalars: Mapping[str, Any], curves: Mapping[str, Curve], level: float, *, labels: bool = False
) -> dict[str, list[float]]:
    """Give the interval of each figure of a node that has one. `curves`: of class 1 of two, under an empty name; for
    `labels` that of each label of a sample, by its name.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    of = {} if labels else _of_classes(scalars)
    for label, curve in curves.items():
        sides = curve.positives, curve.negatives
        of |= {figure_of(name, label): int(side.sum()) for name, side in zip(OPERATING, sides, strict=True)}
    found = {}
    for name, number in of.items():
        share = scalars.get(name)
        if share is not None and number:
            found[name] = list(wilson(round(share * number), number, z))
    areas = {figure_of("auc", label): delong(curve, z) for label, curve in curves.items()}
    return {**{name: list(area) for name, area in areas.items() if area is not None}, **found}


def _of_classes(scalars: Mapping[str, Any]) -> dict[str, int]:
    """Say of how many samples each share is that is told of classes."""
    counted = int(scalars.get("num_test") or 0) - int(scalars.get("num_left_out") or 0)
    if "true_positives" not in scalars:
        return {"accuracy": counted}
    positives = scalars["true_positives"] + scalars["false_negatives"]
    return {"accuracy": counted, "sensitivity": positives, "specificity": counted - positives}


def wilson(right: int, number: int, z: float) -> tuple[float, float]:
    """Give the interval of a share, `right` of `number`, at least 1; `z`: the quantile of the normal distribution."""
    share, weight = right / number, z * z / number
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / number + weight / (4 * number))
    return max(0.0, middle - half) if right else 0.0, min(1.0, middle + half) if right < number else 1.0


def delong(curve: Curve, z: float) -> tuple[float, float] | None:
    """Give the interval of the area under a curve; None with fewer than two of a class, or where its variance is 0."""
    positives, negatives = (one.astype(np.float64) for one in (curve.positives, curve.negatives))
    num_positives, num_negatives, area = positives.sum(), negatives.sum(), curve.auc()
    if area is None or min(num_positives, num_negatives) < 2:
        return None
    wins = (np.cumsum(negatives) - negatives / 2) / num_negatives
    losses = (num_positives - np.cumsum(positives) + positives / 2) / num_positives
    of_positives = (positives * np.square(wins - area)).sum() / (num_positives - 1)
    of_negatives = (negatives * np.square(losses - area)).sum() / (num_negatives - 1)
    half = z * math.sqrt(of_positives / num_positives + of_negatives / num_negatives)
    return (max(0.0, area - half), min(1.0, area + half)) if half else None
