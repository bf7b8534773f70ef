"""Early stopping on an agreed criterion: a pure step from state to state, so that a resumed run stops alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hierfl.config.schema import Stopping
from hierfl.learning.metrics import LOWER_IS_BETTER

__all__ = ["Progress", "advance"]


@dataclass(frozen=True, slots=True)
class Progress:
    """The best value so far, how many measurements in a row were no better, and why training ends here, if it does."""

    best: float | None = None
    num_without: int = 0
    reason: str | None = None


def advance(stopping: Stopping, progress: Progress, value: float | None) -> Progress:
    """Take one measurement of the root's metric.

    An undefined value counts as a measurement without an improvement.
    """
    if stopping.metric is None:
        return progress
    sign = -1.0 if stopping.metric in LOWER_IS_BETTER else 1.0
    better = value is not None and (progress.best is None or sign * (value - progress.best) > stopping.min_delta)
    progress = Progress(value, 0) if better else Progress(progress.best, progress.num_without + 1)
    if stopping.target is not None and value is not None and sign * (value - stopping.target) >= 0.0:
        return replace(progress, reason=f"{stopping.metric} {value:.4g} has reached its target {stopping.target:g}")
    if stopping.patience is not None and progress.num_without >= stopping.patience:
        best = "undefined" if progress.best is None else f"{progress.best:.4g}"
        said = f"{stopping.metric} has not improved on {best} in {progress.num_without} measurements"
        return replace(progress, reason=said)
    return progress
