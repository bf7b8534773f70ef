"""Personalised fine-tuning: a site takes some steps from the federation's model on its own data, and uses what comes
out (Wang et al. 2019, "Federated Evaluation of On-device Personalization"; Yu et al. 2020, "Salvaging Federated
Learning by Local Adaptation"); with `tensors`, of some layers alone.

The federation's model is not changed by it, and what comes out stays at the site, beside what its strategy keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hierfl.config.learning import FineTune
from hierfl.config.schema import Training
from hierfl.learning.local import LocalRule, Parts, PlainRule, State, Vector
from hierfl.learning.state import ModelState
from hierfl.learning.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.utils.data import Dataset

    from hierfl.learning.flat import FlatModel
    from hierfl.learning.training import LocalResult

__all__ = ["FINE_TUNED", "FineTuned", "fine_tuned", "told", "used"]

FINE_TUNED = "fine_tuned.model"
"""What a site has made of the federation's model for itself, by this name among what it keeps, shape (P,)."""


@dataclass(frozen=True)
class FineTuned(PlainRule):
    """The rule by which such a site uses its own model; it is for measuring, and trains as plain averaging does."""

    def personal(self, model: Vector, kept: State, parts: Parts) -> Vector:
        """Use what was fine-tuned."""
        return kept[FINE_TUNED]


def fine_tuned(
    wanted: FineTune,
    bound: FlatModel,
    start: ModelState,
    task: Task,
    data: Dataset[Any],
    training: Training,
    run: Callable[[Callable[[int], LocalResult]], LocalResult],
) -> Vector:
    """Train the bound module from `start` as is wanted, and leave it so; return its floats, shape (P,).

    `run` runs the training under its seed. Errors: whatever training raises.
    """
    from hierfl.learning.training import train

    settings = training if wanted.lr is None else replace(training, lr=wanted.lr)
    bound.load(start)
    with bound.frozen(~bound.parts.named(wanted.tensors)):
        run(lambda seed: train(bound, task, data, settings, seed, num_steps=wanted.steps))
    return bound.read().floats.copy()


def used(rule: LocalRule | None, own: State) -> LocalRule | None:
    """Give the rule by which a site that keeps this uses a model of its own; None where it uses the federation's.

    `rule`: its strategy's, where that is personal; what was fine-tuned goes before it.
    """
    return FineTuned() if FINE_TUNED in own else rule


def told(scalars: Mapping[str, Any]) -> dict[str, Any]:
    """Name the metrics of fine-tuned models, as they stand beside those of the federation's: `personal_accuracy`."""
    return {f"personal_{name}": value for name, value in scalars.items() if not isinstance(value, list)}
