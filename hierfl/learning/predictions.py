"""What predictions say: scores as probabilities of classes, labels as classes, and which class is predicted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import QUOTED

__all__ = ["classes_of", "predicted_of", "probabilities_of"]

_SLACK = 1e-4


def probabilities_of(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Return scores as float64 (n, C) within [0, 1]; a single column is the probability of class 1."""
    if scores.ndim not in (1, 2):
        flat = "one row for each pixel or voxel (scores.flatten(), labels.flatten())"
        raise ValueError(f"predict's scores have shape {scores.shape}; needed: (n,) or (n, C), {flat}")
    wide = scores.astype(np.float64)
    wide = wide[:, np.newaxis] if wide.ndim == 1 else wide
    finite = np.isfinite(wide)
    low, high = wide[finite].min(initial=0.0), wide[finite].max(initial=1.0)
    if low < -_SLACK or high > 1.0 + _SLACK:
        raise ValueError(
            "predict's scores are beyond 0 to 1; needed: probabilities (torch.sigmoid of one logit, torch.softmax of"
            f" several){QUOTED}they range from {low:g} to {high:g}"
        )
    wide = np.where(finite, np.clip(wide, 0.0, 1.0) + 0.0, np.nan)
    return np.concatenate([1.0 - wide, wide], axis=1) if wide.shape[1] == 1 else wide


def classes_of(labels: NDArray[Any], probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return labels as int64 (n,), each a class of the scores."""
    n, num_classes = probabilities.shape
    if len(labels) != n:
        raise ValueError(f"predict gave {n} scores for {len(labels)} labels")
    wide = labels.astype(np.float64)
    known = (wide >= 0) & (wide < num_classes) & (wide == np.floor(wide))
    if not known.all():
        bad = labels[~known]
        raise ValueError(f"{len(bad)} labels are no class; allowed: 0 to {num_classes - 1}{QUOTED}label {bad[0]}")
    return labels.astype(np.int64)


def predicted_of(probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give the class that is predicted for each, (n,); of equal probabilities the first."""
    found: NDArray[np.int64] = probabilities.argmax(axis=1)
    return found
