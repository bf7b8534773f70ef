"""How sure a node's figures are, by the number of its test samples: confidence intervals from what is counted anyway.

- Shares (accuracy, sensitivity, specificity, also at the operating point): Wilson 1927, which holds for few samples.
- AUC: DeLong, DeLong & Clarke-Pearson 1988, cut at 0 and 1. Its variance needs how many positives and negatives had
  each score, which the histogram says; with `auc: exact` it is the paper's. Left out where it is 0: all in order.

They hold for samples that are independent: for a patient's ten records they are too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np

from hierfl.learning.metrics import Curve
from hierfl.learning.operating import OPERATING

__all__ = ["INTERVALS", "delong", "intervals", "wilson"]

INTERVALS = "intervals"
"""What they stand under among a node's figures: [low, high] by the figure's name."""


def intervals(scalars: Mapping[str, Any], curve: Curve | None, level: float) -> dict[str, list[float]]:
    """Give the interval of each figure of a node that has one; `curve`: of class 1 there, of two classes."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    counted = int(scalars.get("num_test") or 0) - int(scalars.get("num_left_out") or 0)
    of = {"accuracy": counted}
    if "true_positives" in scalars:
        positives = scalars["true_positives"] + scalars["false_negatives"]
        of |= dict.fromkeys(("sensitivity", OPERATING[0]), positives)
        of |= dict.fromkeys(("specificity", OPERATING[1]), counted - positives)
    found = {}
    for name, number in of.items():
        share = scalars.get(name)
        if share is not None and number:
            found[name] = list(wilson(round(share * number), number, z))
    area = delong(curve, z) if curve is not None else None
    return {**({"auc": list(area)} if area is not None else {}), **found}


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
