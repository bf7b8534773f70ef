"""DP-SGD: each record's gradient is clipped, and noise is added to their sum (Abadi et al. 2016, "Deep Learning with
Differential Privacy", Algorithm 1).

Of n records each is in a step's batch with probability q = batch_size / n, by itself (Poisson sampling); then with the
bound C and the noise multiplier z

    g = (sum over the batch of g_i * min(1, C / |g_i|) + N(0, z^2 C^2 I)) / batch_size

is what the optimizer follows, also where the batch happens to be empty. With `unit: patient` n counts patients, and g_i
is the gradient of the mean loss over all records of one (user-level privacy, McMahan et al. 2018, "Learning
Differentially Private Recurrent Language Models"). One step is the Poisson-subsampled Gaussian mechanism of sensitivity
C; a run composes rounds * local steps of them (hierfl.accountant).

Sums are exact here, too: a clipped gradient is cut towards 0 to a grid of C / 2^30, so that it is no longer than C and
the integers add without rounding, whatever their order. Noise is rounded to the same grid. What comes out is what the
mechanism on real numbers gives, rounded (post-processing): rounding errors of a sum, which carry the records'
(Casacuberta et al. 2022, "Widespread Underestimation of Sensitivity in Differentially Private Libraries"), and the
holes between floating-point numbers (Mironov 2012, "On Significance of the Least Significant Bits for Differential
Privacy") are not in it. The noise itself is normal as far as double precision goes (hierfl.learning.noise).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hierfl.errors import ConfigError
from hierfl.kinds import nearest
from hierfl.learning.patients import PATIENT, RECORD, UNITS, places_by_patient
from hierfl.learning.privacy import Release

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.utils.data import Dataset

    from hierfl.config.schema import Training
    from hierfl.learning.flat import FlatModel
    from hierfl.learning.noise import Stream
    from hierfl.learning.task import Task

__all__ = ["DpSgd"]

METHODS = ("vmap", "loop")

LEAST_NOISE, MOST_NOISE = 1e-6, 10_000
"""Less hides nothing, and is not counted in any time; more would leave the integers that double precision has."""


@dataclass(frozen=True)
class DpSgd:
    """Differential privacy of every single record, or patient, in what a site sends, and in all that is made of it."""

    noise_multiplier: float
    """z: the noise's standard deviation over max_grad_norm, from 1e-6 to 10,000. More noise, less epsilon."""
    max_grad_norm: float
    """C: the longest that one record's, or patient's, gradient may be, above 0; a longer one is scaled down to it."""
    delta: float = 1e-5
    """delta, between 0 and 1: well below one over the number of a site's records, or patients."""
    epsilon: float | None = None
    """The budget: a run that would cost any of this site's records, or patients, more is refused; null: any cost, which
    is told."""
    unit: str = field(default=RECORD, repr=False)
    """What is protected as a whole: record, or patient, all records of one at a site; batch_size counts patients then,
    epochs go over them, and the task says whose each record is (parquet: patient)."""
    method: str = "vmap"
    """How gradients are taken: vmap, of many records at once; loop, one after another, for models that torch.func
    cannot take."""
    at_once: int = 32
    """vmap: how many records', or patients', gradients are held at once; memory is so many times the model's. Another
    number may give other bits."""

    def __post_init__(self) -> None:
        for name in ("noise_multiplier", "max_grad_norm"):
            _above_zero(name, getattr(self, name))
        if not LEAST_NOISE <= self.noise_multiplier <= MOST_NOISE:
            raise ConfigError(f"noise_multiplier is {self.noise_multiplier}; from {LEAST_NOISE} to {MOST_NOISE:,}")
        if not 0 < self.delta < 1:
            raise ConfigError(
                f"delta is {self.delta}; between 0 and 1, well below one over the number of records, or patients"
            )
        if self.epsilon is not None:
            _above_zero("epsilon", self.epsilon)
        if self.unit not in UNITS:
            raise ConfigError(f"unit is {self.unit!r}{nearest(self.unit, UNITS)}")
        if self.method not in METHODS:
            raise ConfigError(f"method is {self.method!r}{nearest(self.method, METHODS)}")
        if self.at_once < 1:
            raise ConfigError(f"at_once is {self.at_once}; at least 1")

    def release(self, training: Training, num_samples: int, num_steps: int) -> Release:
        """Count the steps, each on a part batch_size / n of the records; on all where there are no more."""
        rate = min(1.0, (training.batch_size or num_samples) / num_samples)
        return Release(rate, self.noise_multiplier, num_steps)

    def conflict(self, training: Training) -> str:
        """Refuse another clipping, and mixed precision, whose scaling of losses knows nothing of single records."""
        if training.clip_norm is not None:
            return "clips each record's gradient (max_grad_norm), and training.clip_norm their mean: leave that out"
        if training.precision != "float32":
            return f"takes gradients in float32: leave out training.precision {training.precision}"
        return ""

    def misfit(self, module: Module) -> str:
        """Refuse layers whose statistics are the records', by name."""
        from torch.nn import Embedding, EmbeddingBag
        from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

        for name, layer in module.named_modules():
            if isinstance(layer, _BatchNorm) or (isinstance(layer, _NormBase) and layer.track_running_stats):
                return (
                    f"the layer {name!r}, a {type(layer).__name__}, mixes records and keeps statistics of them, which"
                    " no noise covers; take GroupNorm or LayerNorm in its place"
                )
            if getattr(layer, "max_norm", None) is not None and isinstance(layer, Embedding | EmbeddingBag):
                return (
                    f"the layer {name!r}, {type(layer).__name__}(max_norm), shortens the rows of what records hold as"
                    " it looks them up, which no noise covers; leave max_norm out"
                )
        return ""

    def gradients(
        self, model: FlatModel, task: Task, data: Dataset[Any], training: Training, num_steps: int, random: Stream
    ) -> Iterator[None]:
        """Draw a batch, clip, add up, add noise; see the top of the file."""
        from hierfl.learning.per_record import PerRecord

        patients = places_by_patient(task, data) if self.unit == PATIENT else None
        num_units = len(data) if patients is None else len(patients)  # type: ignore[arg-type]
        rate = self.release(training, num_units, 1).rate
        at_once = self.at_once if self.method == "vmap" else None
        records = PerRecord(model, task, data, self.max_grad_norm, at_once, patients)
        expected = training.batch_size if rate < 1.0 else num_units
        assert expected is not None
        for _ in range(num_steps):
            total = records.clipped_sum(records.drawn(rate, random))
            noise = random.normals(total.size)
            records.give(total + records.rounded(noise * self.noise_multiplier), expected)
            yield
        records.check_untouched()


def _above_zero(name: str, value: float) -> None:
    """Refuse a field that is no finite number above 0, by name. Errors: ConfigError."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} is {value}; a number above 0")
