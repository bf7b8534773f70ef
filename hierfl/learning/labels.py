"""Several labels of each sample, each true or not: what a picture shows of fourteen findings, say.

Each label has a curve of its own, so that `auc` is the mean over labels of the area under each, over those that have
both kinds of samples (the macro average; Wang et al. 2017 for chest X-rays). All else is counted over the labels that
are known, each as a sample of two classes. A label that is not known is -1 or NaN, and counts nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.metrics import Curve, Tally

__all__ = ["UNKNOWN", "known_of", "tally_of_labels"]

UNKNOWN = -1
"""What stands for a label that is not known; NaN does, too."""


def known_of(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark the labels that are known, in the same shape."""
    known: NDArray[np.bool_] = (labels != UNKNOWN) & ~np.isnan(labels)
    return known


def tally_of_labels(
    scores: NDArray[Any],
    labels: NDArray[Any],
    names: Sequence[str],
    *,
    loss_sum: float,
    auc: str = "histogram",
    bins: int = 2048,
    own: Mapping[str, NDArray[np.float64]] | None = None,
) -> Tally:
    """Count one site's predictions of L labels for each of n samples; the arguments are those of `Tally.of`, but scores
    (the probability that a label is true) and labels (0, 1, or not known) have the shape (n, L).

    Errors: ValueError as there.
    """
    known, own = known_of(labels), own or {}
    flat = Tally.of(scores[known], labels[known], loss_sum=loss_sum, auc="none", own=own)
    if not flat.num_samples:
        return flat
    if flat.num_left_out:
        return replace(flat, labels=tuple(names), own=dict.fromkeys(sorted(own), 0))
    counted = np.clip(scores.astype(np.float64), 0.0, 1.0) + 0.0
    curves = tuple(
        Curve.of(counted[here, place], labels[here, place] == 1, None if auc == "exact" else bins)
        for place, here in enumerate(known.T)
    )
    return replace(flat, curves=() if auc == "none" else curves, labels=tuple(names))
