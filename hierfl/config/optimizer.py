"""Checks `optimizer_options`: each value where it stands, each name against the optimizer that holds there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierfl.config.places import join
from hierfl.config.schema import Training
from hierfl.config.section import Report
from hierfl.config.values import Wrong, convert, shown
from hierfl.kinds import nearest
from hierfl.learning.optimizers import HELD_BACK, OPTIONS, is_known, takes

if TYPE_CHECKING:
    from hierfl.config.tree import Node

__all__ = ["OPTION_NAMES", "Value", "check_option_names", "number", "option_values", "values_of"]

Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Value:
    """What an option's value is: its type, "must be ...", and what it must keep to."""

    type: Any
    text: str
    test: Callable[[Any], bool]


def number(text: str, test: Callable[[float], bool]) -> Value:
    """Give a value that is a finite number; `text` goes on "a number"."""
    return Value(float, f"a number{text}", lambda value: math.isfinite(value) and test(value))


_FLAG = Value(bool, "true or false", lambda value: True)
_FROM_0 = number(" from 0", lambda value: value >= 0)
_BELOW_1 = number(" from 0, below 1", lambda value: 0 <= value < 1)

_VALUES = {
    "alpha": _FROM_0,
    "amsgrad": _FLAG,
    "betas": Value(Pair, "two numbers from 0, below 1", lambda pair: all(0 <= beta < 1 for beta in pair)),
    "beta2_decay": number(", 0 or less", lambda value: value <= 0),
    "centered": _FLAG,
    "d": number(" from 1", lambda value: value >= 1),
    "dampening": number("", math.isfinite),
    "decoupled_weight_decay": _FLAG,
    "eps": Value(
        float | tuple[float | None, float],
        "a number from 0 (adafactor: two)",
        lambda value: all(eps is None or eps >= 0 for eps in (value if isinstance(value, tuple) else (value,))),
    ),
    "etas": Value(Pair, "two numbers, one from 0 to 1 and one above 1", lambda pair: 0 < pair[0] < 1 < pair[1]),
    "initial_accumulator_value": _FROM_0,
    "lambd": _FROM_0,
    "lr_decay": _FROM_0,
    "maximize": _FLAG,
    "momentum": _BELOW_1,
    "momentum_decay": _FROM_0,
    "nesterov": _FLAG,
    "rho": number(" from 0 to 1", lambda value: 0 <= value <= 1),
    "step_sizes": Value(Pair, "two numbers above 0, the smaller first", lambda pair: 0 < pair[0] <= pair[1]),
    "t0": _FROM_0,
    "weight_decay": _FROM_0,
}
"""What each option's value is; it is the same with every optimizer that has the option."""


OPTION_NAMES = frozenset(_VALUES)


def option_values(given: Mapping[Any, Any], place: str, report: Report) -> dict[str, Any]:
    """Convert and check the values of `optimizer_options`; wrong ones are reported and left out."""
    return values_of(_VALUES, HELD_BACK, given, place, report)


def values_of(
    values: Mapping[str, Value], held_back: Mapping[str, str], given: Mapping[Any, Any], place: str, report: Report
) -> dict[str, Any]:
    """Convert and check options by what their values are; those that are not known stay as they are, and wrong ones and
    those that are `held_back` for a reason are reported and left out.
    """
    good = {}
    for name, value in given.items():
        known, at = values.get(name), join(place, str(name))
        if name in held_back:
            report(at, f"is no option here: it {held_back[name]}")
            continue
        if known is None:
            good[name] = value
            continue
        try:
            converted = convert(value, known.type)
        except Wrong as wrong:
            report(join(at, *wrong.at), str(wrong))
            continue
        if known.test(converted):
            good[name] = converted
        else:
            report(at, f"must be {known.text}, not {shown(value)}")
    return good


def check_option_names(optimizer: str | None, options: Mapping[str, Any], root: Node | None, report: Report) -> None:
    """Check the names of the options at the top and at every node against the optimizer that holds there.

    `optimizer`, `options`: the top's, as they are written.
    """
    optimizer = Training.optimizer if optimizer is None else optimizer
    _names(optimizer, options, "training.optimizer_options", report)
    stack, seen = [(root, optimizer)] if root is not None else [], set()
    while stack:
        node, above = stack.pop()
        holds = above if node.own.optimizer is None else node.own.optimizer
        own = node.own.training.get("optimizer_options")
        if own and (id(node.own), holds) not in seen:
            seen.add((id(node.own), holds))
            _names(holds, own, join(node.place, "training", "optimizer_options"), report)
        stack.extend((member, holds) for member in reversed(node.members or ()))


def _names(optimizer: str, options: Mapping[str, Any], place: str, report: Report) -> None:
    """Check the options of one optimizer; an unknown optimizer was reported where it stands."""
    if not options or not is_known(optimizer):
        return
    for name in options:
        if not takes(optimizer, str(name)):
            allowed = OPTIONS.get(optimizer.lower(), ())
            report(join(place, str(name)), f"unknown option of {optimizer}{nearest(str(name), allowed)}")
    if options.get("nesterov") and (not options.get("momentum") or options.get("dampening")):
        report(join(place, "nesterov"), "needs momentum above 0 and no dampening beside it")
    if isinstance(options.get("eps"), tuple) and optimizer.lower() != "adafactor":
        report(join(place, "eps"), f"must be a number, not {shown(options['eps'])}")
