"""What a privacy mechanism is: how a site trains so that what leaves it tells little of any one record.

The promise is differential privacy (Dwork et al. 2006): with or without any one record, whatever is observed has nearly
the same probability,

    P[M(D) in S] <= e^epsilon P[M(D') in S] + delta

for all sets S. Two data sets are neighbours here if they differ in one record of one site, or where a mechanism
protects patients in all of one patient's there, that in one of them gives no gradient ("zero-out", Kairouz et al.
2021, "Practical and Private (Deep) Learning without Sampling or Shuffling"): how many records a site has is public. Its
epsilon is that of neighbours by adding or removing them.

A mechanism stands between the records and everything else: what is made of its gradients, by optimizers, strategies,
compressions, hubs and whoever measures, is made without the records, and costs nothing more (post-processing).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.utils.data import Dataset

    from hierfl.config.schema import Training
    from hierfl.learning.flat import FlatModel
    from hierfl.learning.noise import Stream
    from hierfl.learning.task import Task

__all__ = ["Mechanism", "Release"]


@dataclass(frozen=True, slots=True)
class Release:
    """What one local training tells at most: `count` times a sum over records, or patients, that are each drawn with
    probability `rate`, with normal noise of `noise_multiplier` times what one of them can change it by.
    """

    rate: float
    noise_multiplier: float
    count: int


@runtime_checkable
class Mechanism(Protocol):
    """One kind is one file in `hierfl/privacy/`: a frozen dataclass that holds parameters only.

    `delta`: as in the definition, above; `epsilon`: the most that a run may cost, None: any. One that protects all
    records of a patient as a whole has a `unit`, "patient" (hierfl.learning.patients).
    """

    @property
    def delta(self) -> float:
        """Give delta, between 0 and 1."""

    @property
    def epsilon(self) -> float | None:
        """Give the budget."""

    def release(self, training: Training, num_samples: int, num_steps: int) -> Release:
        """Say what a local training of `num_steps` steps on `num_samples` records, or patients, 1 or more, tells."""

    def conflict(self, training: Training) -> str:
        """Say what of the training's settings breaks the promise, and the way out; empty if nothing does."""

    def misfit(self, module: Module) -> str:
        """Say what of a model breaks the promise, and the way out; empty if nothing does."""

    def gradients(
        self, model: FlatModel, task: Task, data: Dataset[Any], training: Training, num_steps: int, random: Stream
    ) -> Iterator[None]:
        """Put a private gradient into the model's parameters that train, once for each step.

        `random`: from a key and all that decides what is trained on, so that it is used once only.

        Errors: SiteFailed for a model that leaves a trace of the records elsewhere; whatever the task raises.
        """
