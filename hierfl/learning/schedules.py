"""Learning-rate schedules: with which learning rate sites train in each round of the run.

A schedule is a class of torch.optim.lr_scheduler, and what torch counts as its epochs are rounds of the root: the first
round trains at torch's epoch 0. So a learning rate follows from the settings and the round alone, whoever asks for it,
in which order, and in which process.

As with the optimizers, the table answers without torch, and what it does not know is asked of the installed one.
"""

from __future__ import annotations

import inspect
import json
import math
import threading
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from hierfl.errors import ConfigError, Problem
from hierfl.kinds import nearest
from hierfl.learning.optimizers import make

if TYPE_CHECKING:
    from hierfl.config.schema import RunConfig, Training

__all__ = ["IMPOSSIBLE", "MANDATORY", "OPTIONS", "held_back", "in_round", "is_known", "official", "takes", "try_out"]

OPTIONS: dict[str, tuple[str, ...]] = {
    "ConstantLR": ("factor", "total_iters"),
    "CosineAnnealingLR": ("T_max", "eta_min"),
    "CosineAnnealingWarmRestarts": ("T_0", "T_mult", "eta_min"),
    "CyclicLR": ("max_lr", "step_size_up", "step_size_down", "mode", "gamma"),
    "ExponentialLR": ("gamma",),
    "LinearLR": ("start_factor", "end_factor", "total_iters"),
    "MultiStepLR": ("milestones", "gamma"),
    "OneCycleLR": ("total_steps", "pct_start", "anneal_strategy", "div_factor", "final_div_factor", "three_phase"),
    "PolynomialLR": ("total_iters", "power"),
    "SequentialLR": ("schedulers", "milestones"),
    "StepLR": ("step_size", "gamma"),
}
"""The classes of torch.optim.lr_scheduler that have a meaning over rounds, with the options of each."""

MANDATORY = frozenset(
    {
        ("CosineAnnealingLR", "T_max"),
        ("CosineAnnealingWarmRestarts", "T_0"),
        ("CyclicLR", "max_lr"),
        ("ExponentialLR", "gamma"),
        ("MultiStepLR", "milestones"),
        ("OneCycleLR", "total_steps"),
        ("SequentialLR", "schedulers"),
        ("SequentialLR", "milestones"),
        ("StepLR", "step_size"),
    }
)
"""Options without a default."""

_SMALL = {name.lower(): name for name in OPTIONS}

_FUNCTION = "takes a function, which a YAML does not hold; MultiStepLR and SequentialLR go by rounds"

IMPOSSIBLE = {
    "chainedscheduler": "multiplies several at once; SequentialLR runs them one after the other",
    "lambdalr": _FUNCTION,
    "multiplicativelr": _FUNCTION,
    "reducelronplateau": "goes by a metric, and a round's learning rate must be known before anything is measured;"
    " MultiStepLR goes by rounds, and stopping.patience ends a run that gets no better",
}
"""Classes of torch.optim.lr_scheduler that cannot be a schedule here, and why."""

_MOMENTUM = "is about momentum, and a schedule changes the learning rate alone: optimizer_options: {momentum: 0.9}"
_STEPS = "counts steps within epochs, and a schedule counts rounds: give total_steps"

_HELD_BACK = {
    "base_lr": "stands beside it: training.lr is where a cycle begins",
    "base_momentum": _MOMENTUM,
    "cycle_momentum": _MOMENTUM,
    "epochs": _STEPS,
    "last_epoch": "is the run's round; a resumed run goes on with the round where it was",
    "lr": "stands beside it: training.lr",
    "max_momentum": _MOMENTUM,
    "optimizer": "stands beside it: training.optimizer",
    "scale_fn": "is a function, which a YAML does not hold; see mode",
    "scale_mode": "is about scale_fn, a function, which a YAML does not hold; see mode",
    "steps_per_epoch": _STEPS,
}

_ONE_CYCLE = {"max_lr": "stands beside it: training.lr is the cycle's highest"}


def official(kind: str) -> str:
    """Give a kind's name, written in any case, as the table has it; as it is where the table has none such."""
    return _SMALL.get(kind.lower(), kind)


def held_back(kind: str) -> Mapping[str, str]:
    """Name the arguments of a torch class that are no options of a schedule here, and why."""
    return {**_HELD_BACK, **_ONE_CYCLE} if official(kind) == "OneCycleLR" else _HELD_BACK


def is_known(kind: str) -> bool:
    """Say whether a schedule can be of this name, in any case."""
    name = kind.lower()
    return official(kind) in OPTIONS or (name not in IMPOSSIBLE and name in _installed())


def takes(kind: str, option: str) -> bool:
    """Say whether a known schedule takes an option."""
    if official(kind) in OPTIONS:
        return option in OPTIONS[official(kind)]
    return option in inspect.signature(_installed()[kind.lower()]).parameters


def in_round(training: Training, round_number: int) -> Training:
    """Give the training of a round of the root, counted from 0: its `lr` is that round's. Errors: ConfigError."""
    if training.lr_schedule is None:
        return training
    return replace(training, lr=_rates(training.lr, _written(training.lr_schedule)).at(round_number))


def try_out(config: RunConfig, rounds_done: int = 0) -> None:
    """Find a round of the run, of those to come, in which a schedule gives no learning rate to train with.

    Each schedule is tried from one `lr`, which it would have to take to extremes to matter. Without schedules torch is
    not loaded. Errors: ConfigError with every schedule that gives none, each with its first site.
    """
    different: dict[str, tuple[str, Training]] = {}
    for path, site in config.sites.items():
        if site.training.lr_schedule is not None:
            different.setdefault(_written(site.training.lr_schedule), (path, site.training))
    coming = range(rounds_done, config.federation.root.rounds)
    said = ((path, _fault(training, coming)) for path, training in different.values())
    problems = [Problem("", f"{path}: training.lr_schedule: {fault}") for path, fault in said if fault]
    if problems:
        raise ConfigError(problems)


def _fault(training: Training, rounds: range) -> str:
    """Say what is wrong with a schedule in these rounds, counted from 0; empty if nothing is."""
    assert training.lr_schedule is not None
    kind, written = training.lr_schedule["kind"], _written(training.lr_schedule)
    for number in rounds:
        try:
            lr = _rates(training.lr, written).at(number)
        except ConfigError as error:
            return f"{error} (round {number + 1} of {rounds.stop})" if number else str(error)
        if not 0 < lr < math.inf:
            way = "above 0, by an eta_min or end_factor or over more rounds"
            if not lr < 1:
                way = "finite, by a smaller gamma or max_lr"
            return f"{kind} gives a learning rate of {lr:g} in round {number + 1} of {rounds.stop}; let it stay {way}"
    return ""


class _Rates(Protocol):
    """Learning rates by round, counted from 0."""

    def at(self, number: int) -> float:
        """Give a round's. Errors: ConfigError with torch's words."""


class _Stepped:
    """What one scheduler gives to an optimizer of no importance; a round is stepped to once, and kept."""

    def __init__(self, lr: float, kind: str, options: Mapping[str, Any]) -> None:
        import torch

        from hierfl.config.schema import Training

        self._kind, self._steps = kind, threading.Lock()
        self._end = options["total_steps"] if official(kind) == "OneCycleLR" else None
        optimizer = make(Training(lr=lr), [torch.nn.Parameter(torch.zeros(1))])
        cls = _installed().get(kind.lower())
        if cls is None:
            raise ConfigError(f"this torch has no {kind!r}{nearest(kind, OPTIONS)}")
        try:
            self._scheduler = cls(optimizer, **options, **_given(official(kind), lr))
        except (ArithmeticError, TypeError, ValueError) as error:
            raise ConfigError(f"{kind}: {error}") from error
        optimizer.step()  # torch warns of schedulers that are stepped before their optimizer
        self._found = array("d", [float(self._scheduler.get_last_lr()[0])])

    def at(self, number: int) -> float:
        if self._end is not None and number >= self._end:
            raise ConfigError(f"{self._kind} is over after {self._end} rounds; give it total_steps for all")
        with self._steps:  # local workers are threads
            try:
                while len(self._found) <= number:
                    self._scheduler.step()
                    self._found.append(float(self._scheduler.get_last_lr()[0]))
            except (ArithmeticError, ValueError) as error:
                raise ConfigError(f"{self._kind}: {error}") from error
            return self._found[number]


class _InTurn:
    """SequentialLR: each schedule counts its rounds from its milestone on.

    torch's own lets all share one optimizer, and steps them by a call that it warns of in some versions.
    """

    def __init__(self, parts: Sequence[_Rates], milestones: Sequence[int]) -> None:
        self._parts, self._starts = parts, (0, *milestones)
        assert len(parts) == len(self._starts) and all(one < other for one, other in pairwise(self._starts))

    def at(self, number: int) -> float:
        turn = bisect_right(self._starts, number) - 1
        return self._parts[turn].at(number - self._starts[turn])


@cache
def _rates(lr: float, written: str) -> _Rates:
    """Give the rates of a schedule that is written as JSON: in a process one such for all sites that train alike."""
    schedule = json.loads(written)
    options = {name: value for name, value in schedule.items() if name != "kind"}
    if official(schedule["kind"]) != "SequentialLR":
        return _Stepped(lr, schedule["kind"], options)
    return _InTurn([_rates(lr, _written(part)) for part in options["schedulers"]], options["milestones"])


def _written(schedule: Mapping[str, Any]) -> str:
    return json.dumps(schedule, sort_keys=True, default=str)


def _given(name: str, lr: float) -> dict[str, Any]:
    """Give the arguments that hierfl fills in itself."""
    if name == "OneCycleLR":
        return {"max_lr": lr, "cycle_momentum": False}
    return {"base_lr": lr, "cycle_momentum": False} if name == "CyclicLR" else {}


@cache
def _installed() -> Mapping[str, Any]:
    """List torch's schedulers by their names in lower case."""
    from torch.optim import lr_scheduler

    base = lr_scheduler.LRScheduler
    return {
        name.lower(): value
        for name, value in vars(lr_scheduler).items()
        if isinstance(value, type) and issubclass(value, base) and value is not base and not name.startswith("_")
    }
