"""What a site does beside following the task's loss: a rule shapes its local training, keeps vectors of the site's own
from round to round, and may send further vectors, or numbers, with its update.

    received   the model (P,), and what the hub sends with it under the rule's channels
    passes     one local training after the other, each from a start, with a pull on every step's gradient
    finish     the model whose change is sent, the channels' changes, and what the site keeps

All vectors are flat, in the model's layout; nothing here needs torch. What a site keeps never leaves it, in the sense
that no hub and no other site is given it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hierfl.kinds import nearest
from hierfl.learning.state import Layout

__all__ = [
    "Finished",
    "LocalRule",
    "Objective",
    "Parts",
    "Pass",
    "PlainRule",
    "Pull",
    "State",
    "Trained",
    "Vector",
    "adds_up",
    "joined",
    "unmatched",
]

Vector: TypeAlias = NDArray[Any]
"""The floating-point part of a model, shape (P,), float32 or float64; read-only for strategies and rules."""

State: TypeAlias = Mapping[str, Vector]
"""A strategy's progress, or what a site keeps, by name."""


@dataclass(frozen=True)
class Parts:
    """A model's tensors by what they are; masks of shape (P,) are made for a rule that asks for them, and kept.

    `trained`, `normalising`: the names of the tensors that train, and of those of layers that normalise.
    """

    layout: Layout
    trained: Set[str]
    normalising: Set[str]

    @cached_property
    def trainable(self) -> NDArray[np.bool_]:
        """Mark the tensors that train."""
        return self._marked(self.trained.__contains__)

    @cached_property
    def normalisation(self) -> NDArray[np.bool_]:
        """Mark the tensors of layers that normalise."""
        return self._marked(self.normalising.__contains__)

    def named(self, patterns: Sequence[str]) -> NDArray[np.bool_]:
        """Mark the tensors one of whose names fits a pattern, `head.*`: a tensor that layers share has several."""
        return self._marked(lambda name: any(fnmatchcase(name, pattern) for pattern in patterns))

    def _marked(self, is_meant: Callable[[str], bool]) -> NDArray[np.bool_]:
        mask = np.zeros(self.layout.num_floats, np.bool_)
        for spec in self.layout.tensors:
            if spec.is_float and any(map(is_meant, self.layout.names[spec.name])):
                mask[spec.offset : spec.offset + spec.size] = True
        return mask


@dataclass(frozen=True, slots=True)
class Pull:
    """What is added to each step's gradient: mu * (w - anchor) + shift; without an anchor from the pass's start."""

    mu: float = 0.0
    anchor: Vector | None = None
    shift: Vector | None = None

    def __bool__(self) -> bool:
        """Whether it adds anything."""
        return bool(self.mu) or self.shift is not None


@dataclass(frozen=True, slots=True)
class Pass:
    """One local training from `start` (None: from where the last pass ended), on its own random numbers.

    `name`: of its random numbers; the one without a name draws what plain averaging draws. `frozen`: what does not
    move, mask (P,). `num_steps`: in place of the configuration's.
    """

    start: Vector | None
    pull: Pull = field(default_factory=Pull)
    name: str = ""
    frozen: NDArray[np.bool_] | None = None
    num_steps: int | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """What became of the passes: the model at the end of each, the steps of the last, and the learning rate."""

    ends: Sequence[Vector]
    num_steps: int
    lr: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The model whose change is sent, what is added to each channel, and what the site keeps."""

    model: Vector
    changes: Mapping[str, Vector] = field(default_factory=dict)
    kept: State = field(default_factory=dict)


@runtime_checkable
class LocalRule(Protocol):
    """The sites' side of a strategy: a frozen dataclass.

    `keeps` says whether sites keep anything; they are then given it with every training and every measurement.
    A rule may say `accumulates`: what is kept grows by what an update adds to the hub's own, and of an update that does
    not count whole a site keeps as much; see `adds_up`.
    `is_personal`: whether that makes a model of their own, which `personal` gives.
    """

    keeps: ClassVar[bool]
    is_personal: ClassVar[bool]

    def channels(self, num_floats: int) -> Mapping[str, int]:
        """Name what travels beside the model, with its size."""

    def passes(self, model: Vector, sent: State, kept: State, parts: Parts) -> Sequence[Pass]:
        """Plan the local training; `kept` is empty the first time."""

    def finish(self, model: Vector, trained: Trained, sent: State, kept: State, parts: Parts) -> Finished:
        """Say what is sent and kept."""

    def personal(self, model: Vector, kept: State, parts: Parts) -> Vector:
        """Give the model that a site uses itself, and that is measured there."""

    def misfit(self, parts: Parts) -> str:
        """Say why the rule does not fit a model; empty if it does."""

    def num_steps(self, steps: int) -> int:
        """Count the steps on the site's records of all passes together, where one as configured has `steps`."""


@dataclass(frozen=True)
class PlainRule:
    """Trains once from the model that was sent, and sends what came out; other rules say what they do beside."""

    keeps: ClassVar[bool] = False
    accumulates: ClassVar[bool] = False
    is_personal: ClassVar[bool] = False

    def channels(self, num_floats: int) -> Mapping[str, int]:
        """Send nothing but the model."""
        return {}

    def passes(self, model: Vector, sent: State, kept: State, parts: Parts) -> Sequence[Pass]:
        """Train once."""
        return (Pass(model),)

    def finish(self, model: Vector, trained: Trained, sent: State, kept: State, parts: Parts) -> Finished:
        """Send what came out."""
        return Finished(trained.ends[-1])

    def personal(self, model: Vector, kept: State, parts: Parts) -> Vector:
        """Use the hub's model."""
        return model

    def misfit(self, parts: Parts) -> str:
        """Fit any model."""
        return ""

    def num_steps(self, steps: int) -> int:
        """Train once."""
        return steps


@dataclass(frozen=True)
class Objective(PlainRule):
    """Adds `mu` / 2 * ||w - w_t||^2 to the loss (FedProx, Li et al. 2020, Eq. 2); with mu 0 a site follows its loss."""

    mu: float = 0.0

    def passes(self, model: Vector, sent: State, kept: State, parts: Parts) -> Sequence[Pass]:
        """Train once, held near the model that was sent."""
        return (Pass(model, Pull(self.mu)),)


def adds_up(rule: LocalRule) -> bool:
    """Say whether what sites keep by a rule, added up, is what its hub keeps; one of the user's own need not say."""
    return getattr(rule, "accumulates", False)


def unmatched(patterns: Sequence[str], layout: Layout) -> str:
    """Name the first pattern that no tensor's name fits; empty if all fit some."""
    names = [name for spec in layout.tensors if spec.is_float for name in layout.names[spec.name]]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            return f"no tensor of the model is named like {pattern!r}{nearest(pattern, names)}"
    return ""


def joined(vectors: Sequence[Vector]) -> Vector:
    """Put vectors one after another: a model and its channels, as they travel."""
    return vectors[0] if len(vectors) == 1 else np.concatenate(vectors)
