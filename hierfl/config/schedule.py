"""Checks `lr_schedule` where it stands: its kind, and each option by name and by value."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from hierfl.config.optimizer import Value, number, values_of
from hierfl.config.places import join
from hierfl.config.section import Report
from hierfl.config.values import shown
from hierfl.kinds import close, nearest
from hierfl.learning.schedules import IMPOSSIBLE, MANDATORY, OPTIONS, held_back, is_known, official, takes

__all__ = ["OPTION_VALUES", "check_schedule"]


def _rounds(low: int) -> Value:
    return Value(int, f"a number of rounds, at least {low}", lambda value: value >= low)


def _word(*words: str) -> Value:
    return Value(str, "one of " + ", ".join(words), lambda value: value in words)


_ABOVE_0 = number(" above 0", lambda value: value > 0)
_FROM_0 = number(" from 0", lambda value: value >= 0)
_FROM_1 = number(" from 1", lambda value: value >= 1)
_PART = number(" above 0, at most 1", lambda value: 0 < value <= 1)

OPTION_VALUES = {
    "T_0": _rounds(1),
    "T_max": _rounds(1),
    "T_mult": Value(int, "a whole number from 1", lambda value: value >= 1),
    "anneal_strategy": _word("cos", "linear"),
    "div_factor": _FROM_1,
    "end_factor": number(" from 0 to 1", lambda value: 0 <= value <= 1),
    "eta_min": _FROM_0,
    "factor": _PART,
    "final_div_factor": _FROM_1,
    "gamma": _ABOVE_0,
    "max_lr": _ABOVE_0,
    "milestones": Value(
        list[int],
        "a list of rounds from 1 on, each later than the one before",
        lambda value: bool(value) and value[0] >= 1 and all(one < other for one, other in pairwise(value)),
    ),
    "mode": _word("triangular", "triangular2", "exp_range"),
    "pct_start": number(" from 0 to 1", lambda value: 0 <= value <= 1),
    "power": _FROM_0,
    "schedulers": Value(list[Any], "a list of schedules", bool),
    "start_factor": _PART,
    "step_size": _rounds(1),
    "step_size_down": _rounds(1),
    "step_size_up": _rounds(1),
    "three_phase": Value(bool, "true or false", lambda value: True),
    "total_iters": _rounds(1),
    "total_steps": _rounds(1),
}
"""What each option's value is; it is the same with every schedule that has the option."""


def check_schedule(given: Any, place: str, report: Report) -> dict[str, Any] | None:
    """Check a schedule, `{kind: StepLR, step_size: 10}`; give it with its values converted. None where it is wrong.

    Torch is loaded only for a kind that the table does not know.
    """
    fields = {"kind": given} if isinstance(given, str) else given
    if not isinstance(fields, Mapping) or not isinstance(fields.get("kind"), str):
        at = join(place, "kind") if isinstance(fields, Mapping) else place
        report(at, f"must name a class of torch.optim.lr_scheduler: {{kind: NAME, ...}}{nearest('', OPTIONS)}")
        return None
    kind, faults = fields["kind"], 0

    def tell(at: str, message: str) -> None:
        nonlocal faults
        faults += 1
        report(at, message)

    if not is_known(kind):
        why = IMPOSSIBLE.get(kind.lower())
        tell(join(place, "kind"), f"is {shown(kind)}{f', which {why}' if why else nearest(kind, OPTIONS)}")
        return None
    good = values_of(OPTION_VALUES, held_back(kind), {key: fields[key] for key in fields if key != "kind"}, place, tell)
    options = OPTIONS.get(official(kind), ())
    unknown = [str(name) for name in good if not takes(kind, str(name))]
    for name in unknown:
        tell(join(place, name), f"unknown option of {kind}{nearest(name, options)}")
    meant = {close(name, options) for name in unknown}
    for name in options:
        if (official(kind), name) in MANDATORY and name not in fields and name not in meant:
            tell(join(place, name), f"is missing: {kind} needs it")
    if "schedulers" in good and official(kind) == "SequentialLR":
        good["schedulers"] = [
            check_schedule(part, join(place, "schedulers", index), tell)
            for index, part in enumerate(good["schedulers"])
        ]
        num, needed = len(good.get("milestones", ())), len(good["schedulers"]) - 1
        if "milestones" in good and num != needed:
            tell(
                join(place, "milestones"), f"needs {needed}, the rounds after which the next schedule begins, not {num}"
            )
    return None if faults else {"kind": kind, **good}
