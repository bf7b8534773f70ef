"""Checks early stopping, and what measurements are to tell, against what is measured, as far as that is known before
anything starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hierfl.config.places import join
from hierfl.config.schema import Evaluation, Stopping
from hierfl.config.section import Made, Report
from hierfl.config.tree import Node
from hierfl.config.values import shown
from hierfl.kinds import nearest
from hierfl.learning.own_metrics import BUILT_IN, MAX_OWN, OF_SCORES, is_own_name, other_name
from hierfl.learning.patients import knows_patients
from hierfl.learning.task import NamesMetrics, offers

__all__ = ["check_intervals", "check_operating", "check_stopping", "measured_by"]

_WAYS = ("min", "max")


def measured_by(task: Made, report: Report) -> Mapping[str, str] | None:
    """Give what the task measures by name, and which way each gets better; None where it does not say, or is wrong."""
    if not task.sound or not offers(task.instance, NamesMetrics):
        return None
    try:
        given: Any = task.instance.metrics()
        named = {str(name): str(way) for name, way in given.items()}
    except Exception as error:  # the user's task may raise anything
        report("task", f"cannot name its metrics, {{name: min or max}}: {type(error).__name__}: {error}")
        return None
    faults = []
    for name, way in named.items():
        if name not in BUILT_IN and not is_own_name(name):
            faults.append(f"names a metric {shown(name)}; needed: one of hierfl's, or {other_name(name)}")
        elif way not in ((BUILT_IN[name],) if name in BUILT_IN else _WAYS):
            faults.append(f"says that {name} gets better by {shown(way)}; needed: {BUILT_IN.get(name, 'min or max')}")
    if sum(name not in BUILT_IN for name in named) > MAX_OWN:
        faults.append(f"names {len(named)} metrics; at most {MAX_OWN} of its own")
    for fault in faults:
        report("task", f"its metrics() {fault}")
    return None if faults else {**named, "loss": "min"}


def check_operating(evaluation: Evaluation, measured: Mapping[str, str] | None, report: Report) -> None:
    """Report an operating point that can never be told of; `measured`: as of `check_stopping`."""
    at = "evaluation.operating_point"
    if evaluation.operating_point is None:
        return
    if evaluation.auc == "none" or evaluation.every == 0:
        never = "evaluation.every is 0" if evaluation.every == 0 else "evaluation.auc is none, and it needs the scores"
        report(at, f"is never measured: {never}")
    if measured is not None and "sensitivity" not in measured:
        report(at, f"is of two classes, and the task measures {', '.join(sorted(measured))}")


def check_intervals(evaluation: Evaluation, task: Any, root: Node, report: Report) -> None:
    """Report sites whose parts would share patients, where intervals go by these; `task`: None if it is not sound."""
    if evaluation.intervals is None or not knows_patients(task):
        return
    for node in root.walk():
        if node.members is None and "split" in node.own.settings:
            said = "cuts patients in parts, and evaluation.intervals goes by patients, whom the task knows"
            report(join(node.place, "split"), f"{said}: leave one of the two out")


def check_stopping(
    given: Any, stopping: Stopping, evaluation: Evaluation, measured: Mapping[str, str] | None, report: Report
) -> None:
    """Report what cannot be stopped by; `given`: the section as written, `measured`: what the task measures, if known.

    Nothing is said of a section whose keys are wrong in themselves.
    """
    if not isinstance(given, Mapping) or any(
        value is not None and getattr(stopping, str(key), None) is None for key, value in given.items()
    ):
        return
    wants = [key for key in ("target", "patience") if getattr(stopping, key) is not None]
    if stopping.metric is None:
        for key in (*wants, *(key for key in ("mode", "min_delta") if getattr(stopping, key))):
            at = join("stopping", key)
            report(at, "stops on no metric: give stopping.metric (auc, accuracy, loss ...), or no stopping at all")
        return
    if measured is not None and stopping.metric not in measured:
        said = f"is {shown(stopping.metric)}, which this task does not measure{nearest(stopping.metric, measured)}"
        report("stopping.metric", said)
        return
    usual = {**BUILT_IN, **(measured or {})}.get(stopping.metric)
    if usual is None and stopping.mode is None:
        said = f"is {shown(stopping.metric)}{nearest(stopping.metric, BUILT_IN)}"
        report("stopping.metric", f"{said}; a metric of the task's own needs stopping.mode beside it (min or max)")
        return
    if not wants:
        report("stopping.metric", "never stops by itself: give stopping.target or stopping.patience")
    if usual is not None and stopping.mode not in (None, usual):
        better = "lower" if usual == "min" else "higher"
        report("stopping.mode", f"is {stopping.mode}, but a {better} {stopping.metric} is better: leave it out")
    if BUILT_IN.get(stopping.metric) == "max" and stopping.target is not None and not 0 <= stopping.target <= 1:
        report("stopping.target", f"must be from 0 to 1 for {stopping.metric}, not {shown(stopping.target)}")
    if stopping.metric in OF_SCORES and evaluation.auc == "none":
        report("stopping.metric", f"is {stopping.metric}, but evaluation.auc is none: measure it (histogram or exact)")
    if evaluation.every == 0:
        report("stopping.metric", "is never measured: evaluation.every is 0")
