"""Early stopping on an agreed criterion: a pure step from state to state, so that a resumed run stops alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hierfl.config.schema import Stopping
from hierfl.errors import ConfigError, Problem
from hierfl.kinds import nearest
from hierfl.learning.own_metrics import BUILT_IN, own_among

__all__ = ["Progress", "advance", "lacking"]


@dataclass(frozen=True, slots=True)
class Progress:
    """The best value so far, how many measurements in a row were no better, and why training ends here, if it does.

    `best_round`: the round, counted from 1, after which the best was measured; 0 before there is one.
    """

    best: float | None = None
    num_without: int = 0
    reason: str | None = None
    best_round: int = 0


def lacking(stopping: Stopping, measured: Mapping[str, Any], auc: str) -> ConfigError | None:
    """Say what is wrong where training is to stop by a metric that the root has not measured, though it has others;
    `auc`: how areas are measured, those of single labels, too.
    """
    if stopping.metric is None or measured.get("loss") is None:
        return None
    is_area = auc == "none" and stopping.metric not in BUILT_IN and measured.get(stopping.metric) is None
    if stopping.metric in measured and not is_area:
        return None
    known = [*(name for name in BUILT_IN if name in measured), *own_among(measured)]
    said = f"is {stopping.metric!r}, which this task does not measure{nearest(stopping.metric, known)}"
    if stopping.metric in measured:
        said = f"is {stopping.metric!r}, but evaluation.auc is none: measure it (histogram or exact)"
    way = "the round is committed: resume the run with another stopping.metric, or with stopping=null"
    return ConfigError([Problem("stopping.metric", f"{said}; {way}")])


def advance(
    stopping: Stopping, progress: Progress, value: float | None, ways: Mapping[str, str], rounds_done: int
) -> Progress:
    """Take one measurement of the root's metric; `ways`: which way those of the task's own get better.

    An undefined value counts as a measurement without an improvement.
    """
    if stopping.metric is None:
        return progress
    sign = -1.0 if {**ways, **BUILT_IN}[stopping.metric] == "min" else 1.0
    better = value is not None and (progress.best is None or sign * (value - progress.best) > stopping.min_delta)
    if better:
        progress = Progress(value, 0, best_round=rounds_done)
    else:
        progress = replace(progress, num_without=progress.num_without + 1, reason=None)
    if stopping.target is not None and value is not None and sign * (value - stopping.target) >= 0.0:
        return replace(progress, reason=f"{stopping.metric} {value:.4g} has reached its target {stopping.target:g}")
    if stopping.patience is not None and progress.num_without >= stopping.patience:
        best = "undefined" if progress.best is None else f"{progress.best:.4g}"
        times = f"{progress.num_without} measurement{'s' * (progress.num_without > 1)}"
        said = f"{stopping.metric} has not improved on {best} in {times}"
        return replace(progress, reason=said)
    return progress
