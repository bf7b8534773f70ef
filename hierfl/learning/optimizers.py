"""The optimizers that a site may train with, and what each takes under `optimizer_options`.

The table answers without torch, so that a configuration is checked in milliseconds. What it does not know is asked of
the installed torch: a newer one may have more optimizers and more options.
"""

from __future__ import annotations

import contextlib
import inspect
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from hierfl.errors import ConfigError, Problem
from hierfl.kinds import nearest

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer

    from hierfl.config.schema import Training

__all__ = ["HELD_BACK", "IMPOSSIBLE", "OPTIONS", "Stepper", "is_known", "make", "takes", "try_out"]

OPTIONS: dict[str, tuple[str, ...]] = {
    "adadelta": ("rho", "eps", "weight_decay", "maximize"),
    "adafactor": ("beta2_decay", "eps", "d", "weight_decay", "maximize"),
    "adagrad": ("lr_decay", "weight_decay", "initial_accumulator_value", "eps", "maximize"),
    "adam": ("betas", "eps", "weight_decay", "amsgrad", "maximize", "decoupled_weight_decay"),
    "adamax": ("betas", "eps", "weight_decay", "maximize"),
    "adamw": ("betas", "eps", "weight_decay", "amsgrad", "maximize"),
    "asgd": ("lambd", "alpha", "t0", "weight_decay", "maximize"),
    "nadam": ("betas", "eps", "weight_decay", "momentum_decay", "decoupled_weight_decay", "maximize"),
    "radam": ("betas", "eps", "weight_decay", "decoupled_weight_decay", "maximize"),
    "rmsprop": ("alpha", "eps", "weight_decay", "momentum", "centered", "maximize"),
    "rprop": ("etas", "step_sizes", "maximize"),
    "sgd": ("momentum", "dampening", "weight_decay", "nesterov", "maximize"),
}
"""The classes of torch.optim in small letters, with the options of each."""

IMPOSSIBLE = {
    "lbfgs": "calls the loss several times a step, which local training does not",
    "muon": "takes matrices only, and models have biases",
    "sparseadam": "takes sparse gradients only, and those here are dense",
}
"""Classes of torch.optim that cannot train here, and why."""

_HOW = "says how torch computes, not what; torch chooses that itself"

HELD_BACK = {
    "lr": "stands beside it: training.lr",
    "params": "are the model's, not the YAML's",
    "foreach": _HOW,
    "fused": _HOW,
    "capturable": _HOW,
    "differentiable": "is for gradients of gradients, which local training has not",
}
"""Arguments of torch's optimizers that are no options here, and why."""


def is_known(optimizer: str) -> bool:
    """Say whether a site can train with the optimizer of this name, in any case."""
    name = optimizer.lower()
    return name in OPTIONS or (name not in IMPOSSIBLE and name in _installed())


def takes(optimizer: str, option: str) -> bool:
    """Say whether a known optimizer takes an option."""
    name = optimizer.lower()
    return option in OPTIONS.get(name, ()) or option in _arguments(name)


def make(training: Training, parameters: Iterable[Parameter], *, is_lent: bool = True) -> Optimizer:
    """Build the optimizer named in the YAML; `is_lent`: to hierfl's own loop, which sets no hooks on it.

    Errors: ConfigError with the nearest name or the wrong option.
    """
    kind: Any = _installed().get(training.optimizer.lower())
    if kind is None:
        raise ConfigError(
            f"training.optimizer: this torch has no {training.optimizer!r}{nearest(training.optimizer, _installed())}"
        )
    try:
        made: Optimizer = _apart(kind, has_hooks=not is_lent)(parameters, lr=training.lr, **training.optimizer_options)
        return made
    except (TypeError, ValueError) as error:
        raise ConfigError(f"training.optimizer_options of {training.optimizer}: {error}") from error


class Stepper:
    """One model's optimizer, made once for all sites that train alike: to make it takes as long as a small step."""

    def __init__(self) -> None:
        self._made: tuple[Training, Sequence[Parameter], Optimizer, list[dict[str, Any]]] | None = None

    @contextlib.contextmanager
    def lend(self, training: Training, parameters: Sequence[Parameter]) -> Iterator[Optimizer]:
        """Lend the optimizer; nothing of its use is left for the next. Errors: as of `make`."""
        optimizer, groups = self._find(training, parameters)
        try:
            yield optimizer
        finally:
            optimizer.state.clear()
            for group, first in zip(optimizer.param_groups, groups, strict=True):
                group.update(first)

    def _find(self, training: Training, parameters: Sequence[Parameter]) -> tuple[Optimizer, list[dict[str, Any]]]:
        """Find the optimizer, or make it; one that has a state from birth is made anew each time."""
        if self._made is not None and self._made[0] == training and _are_same(self._made[1], parameters):
            return self._made[2:]
        optimizer = make(training, parameters)
        groups = [dict(group) for group in optimizer.param_groups]
        self._made = None if optimizer.state else (training, parameters, optimizer, groups)
        return optimizer, groups


def try_out(trainings: Mapping[str, Training]) -> None:
    """Take one step with each site's optimizer, on a parameter of no importance, as the installed torch does it.

    One of the table without options cannot be wrong, and to load torch for it would take seconds of a run's start.

    Errors: ConfigError with every optimizer that cannot, each with the first site that would use it.
    """
    different: dict[tuple[str, float, str], tuple[str, Training]] = {}
    for path, training in trainings.items():
        if training.optimizer_options or training.optimizer.lower() not in OPTIONS:
            key = (training.optimizer.lower(), training.lr, repr(training.optimizer_options))
            different.setdefault(key, (path, training))
    if not different:
        return
    import torch

    problems = []
    for path, training in different.values():
        parameter = torch.nn.Parameter(torch.zeros(2, 2))
        parameter.grad = torch.ones(2, 2)
        try:
            make(training, [parameter]).step()
        except ConfigError as error:
            problems.append(Problem("", f"{path}: {error}"))
        except Exception as error:  # whatever torch says of options that do not go together
            said = f"training.optimizer_options of {training.optimizer}: {type(error).__name__}: {error}"
            problems.append(Problem("", f"{path}: {said}"))
    if problems:
        raise ConfigError(problems)


@cache
def _installed() -> Mapping[str, type[Optimizer]]:
    """List torch's optimizers by their names in lower case."""
    from torch import optim

    return {
        name.lower(): value
        for name, value in vars(optim).items()
        if isinstance(value, type) and issubclass(value, optim.Optimizer) and value is not optim.Optimizer
    }


@cache
def _apart(kind: Any, *, has_hooks: bool) -> Any:
    """Give an optimizer's class without what torch wraps its methods in.

    Its compiler, which the first call would load: that takes as long as to load torch itself. And its profiler and
    hooks, where nobody sets any: around a small model's step they take as long as the step.
    """
    from torch import no_grad

    bare = {name: inspect.unwrap(getattr(kind, name)) for name in ("add_param_group", "zero_grad")}
    step = no_grad()(inspect.unwrap(kind.step))
    step.hooked = not has_hooks  # else torch wraps it in its profiler and hooks anew
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, "step": step, **bare})


def _are_same(parameters: Sequence[Parameter], others: Sequence[Parameter]) -> bool:
    """Say whether these are the same parameters, not only equal ones."""
    return len(parameters) == len(others) and all(map(operator.is_, parameters, others))


def _arguments(name: str) -> Sequence[str]:
    """List what the installed torch's class of this name takes."""
    kind: Any = _installed().get(name)
    return list(inspect.signature(kind).parameters) if kind is not None else []
