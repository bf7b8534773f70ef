"""Metrics of a task's own: means over samples of what each adds, for what is told into no classes (a regression, say).

A site hands up a sum in fixed point and the number of its samples, as of the loss; sums add over the tree bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.fixed import quantised

__all__ = [
    "BUILT_IN",
    "CLASSES",
    "LABEL_NAMES",
    "MAX_OWN",
    "MOST_LABELS",
    "OF_SCORES",
    "TWO_CLASSES",
    "added",
    "auc_of",
    "by_label",
    "figure_of",
    "is_own_name",
    "num_bad",
    "other_name",
    "own_among",
    "sums",
]

MAX_OWN = 32
"""The most metrics of its own that a task has; they are told at every node and in every round."""

MOST_LABELS = 1024
"""The most labels that each sample has; of more than `MAX_OWN` only means over labels are told."""

BUILT_IN = {
    **dict.fromkeys(("auc", "accuracy", "sensitivity", "specificity", "dice"), "max"),
    **dict.fromkeys(("loss", "log_loss", "brier", "ece"), "min"),
}
"""hierfl's own metrics that are one figure, and which way each gets better."""

OF_SCORES = ("auc", "ece")
"""Those that are made of how many had each score: not measured where scores are not told."""

CLASSES = {name: BUILT_IN[name] for name in ("auc", "accuracy", "log_loss", "brier", "ece")}
"""Those that a task has which tells samples into classes, beside its loss."""

TWO_CLASSES = {**CLASSES, **{name: BUILT_IN[name] for name in ("sensitivity", "specificity", "dice")}}
"""Those that it has where there are two."""

_TAKEN = frozenset(
    {
        *BUILT_IN,
        *("num_test", "num_samples", "num_left_out", "num_not_finite", "round", "node", "consensus_distance"),
        *("reliability", "confusion", "intervals", "num_test_patients", "role", "epsilon"),
        *("true_positives", "false_positives", "true_negatives", "false_negatives", "train_loss"),
    }
)
_BESIDE = ("held_out_", "personal_", "operating_")
_FORM = re.compile(r"[a-z][a-z0-9_]{0,63}")


LABEL_NAMES = "up to 60 small letters, digits and _, each once, and no metric of the task's own is called auc_ and that"
"""What one of several labels may be called, in words."""


def auc_of(label: str) -> str:
    """Name the area under the curve of one label, where each sample has several; it stands among the task's own."""
    return f"auc_{label}"


def figure_of(name: str, label: str) -> str:
    """Name a figure of one label, where each sample has several; of two classes, whose label is empty, as it is."""
    return f"{name}_{label}" if label else name


def by_label(scalars: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Give a node's figure of every label, by label; that of two classes under an empty one."""
    return {key.removeprefix(name)[1:]: at for key, at in scalars.items() if key == name or key.startswith(f"{name}_")}


def is_own_name(name: object) -> bool:
    """Say whether a task may call a metric of its own so."""
    is_form = isinstance(name, str) and _FORM.fullmatch(name) is not None
    return is_form and name not in _TAKEN and not str(name).startswith(_BESIDE)


def other_name(name: object) -> str:
    """Say what a metric of a task's own is called in place of this, in words."""
    if isinstance(name, str) and (name in _TAKEN or name.startswith(_BESIDE)):
        return f"another name, mean_{name} say: hierfl tells a figure of its own by this one"
    return "up to 64 small letters, digits and _, the first a letter"


def own_among(names: Iterable[str]) -> list[str]:
    """List those of a node's figures that are metrics of the task's own, in order."""
    return sorted(filter(is_own_name, names))


def num_bad(values: Mapping[str, NDArray[np.float64]]) -> int:
    """Count the samples for which any of these is NaN or Inf; each is of shape (n,)."""
    return int((~np.isfinite(np.stack([*values.values()]))).any(axis=0).sum()) if values else 0


def sums(values: Mapping[str, NDArray[np.float64]]) -> dict[str, int]:
    """Add up what each sample adds, all finite, in units of 2^-40."""
    return {name: quantised(float(values[name].sum())) for name in sorted(values)}


def added(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add sums by name. Errors: ValueError where some have other names than the first."""
    total: dict[str, int] | None = None
    for part in parts:
        if total is not None and total.keys() != part.keys():
            raise ValueError(f"sites differ in their own metrics: {', '.join(total)} and {', '.join(part) or 'none'}")
        total = {name: value + (total or {}).get(name, 0) for name, value in part.items()}
    return total or {}
