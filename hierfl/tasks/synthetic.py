"""Made-up data and a model of any size, with a chosen training time: for benchmarks and rehearsals.

Any name is a site. A site's samples come from (seed, name) alone and are made anew at each visit, so ten thousand
sites cost no memory. Labels follow one hidden linear rule, the same at all sites, with some noise: there is something
to learn.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierfl.errors import DataError, Problem
from hierfl.tasks import _classifier as classifier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from torch.nn import Module

    from hierfl.learning.task import Prediction, SiteData

__all__ = ["Synthetic"]

_SHAPES = ("flat", "mlp")
_BLOCK = bytes(1 << 16)


@dataclass(frozen=True)
class Synthetic:
    """Two classes of Gaussian features; `network` has exactly `num_parameters` parameters."""

    num_parameters: int = 1000
    """Parameters of the model, at least num_features + 1 (flat) or num_features + 3 (mlp)."""
    network: str = "flat"
    """flat (a linear model and a long vector whose mean is added: cheap at any size) or mlp (one hidden layer)."""
    num_features: int = 20
    """Features of a sample."""
    num_samples_min: int = 32
    """Training samples per site."""
    num_samples_max: int | None = None
    """Where given, each site has a number of its own between num_samples_min and this."""
    num_test: int = 8
    """Test samples per site."""
    step_s: float = 0.0
    """Seconds that a training step waits beside its computation; `data: {step_s: 0.2}` sets it for one site."""
    step_s_max: float | None = None
    """Where given, each site has a waiting time of its own between step_s and this."""
    busy: bool = False
    """Burn CPU instead of waiting: step_s then counts CPU seconds of the worker's thread."""
    noise: float = 0.5
    """Standard deviation of what blurs the rule; the rule's own output has about 1."""
    seed: int = 0
    """Seed of the rule and of all samples."""

    def __post_init__(self) -> None:
        classifier.check(
            classifier.choice("network", self.network, _SHAPES),
            classifier.at_least("num_features", self.num_features, 1),
            classifier.at_least("num_parameters", self.num_parameters, self.num_features + self._smallest),
            classifier.at_least("num_samples_min", self.num_samples_min, 0),
            _range_end("num_samples_max", self.num_samples_max, self.num_samples_min),
            classifier.at_least("num_test", self.num_test, 0),
            classifier.at_least("step_s", self.step_s, 0),
            _range_end("step_s_max", self.step_s_max, self.step_s),
            classifier.at_least("noise", self.noise, 0),
            classifier.at_least("seed", self.seed, 0, below=2**32),
        )

    @property
    def _smallest(self) -> int:
        """Parameters that the network has beside one per feature, at the least."""
        return 1 if self.network == "flat" else 3

    def num_samples(self, site: str, step_s: float | None = None) -> tuple[int, int]:
        """Count a site's (train, test) samples."""
        return self._size_and_time(site, step_s)[0], self.num_test

    def model(self) -> Module:
        """Build the model; what does not fit into its layers is a vector `rest` whose mean is added to the logit."""
        import torch
        from torch import nn

        hidden = (self.num_parameters - 1) // (self.num_features + 2) if self.network == "mlp" else 1
        layers = classifier.network("mlp" if self.network == "mlp" else "logistic", self.num_features, 2, hidden)
        num_rest = self.num_parameters - sum(parameter.numel() for parameter in layers.parameters())

        class Padded(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = layers
                self.rest = nn.Parameter(torch.zeros(num_rest)) if num_rest else None

            def forward(self, x: Tensor) -> Tensor:
                logits: Tensor = self.layers(x)
                return logits if self.rest is None else logits + self.rest.mean()

        return Padded()

    def data(self, site: str, step_s: float | None = None) -> SiteData:
        """Make one site's samples: features float32 (n, num_features), labels int64 (n,), seconds per step (n,).

        `step_s`: this site's own waiting time. Errors: DataError where it is below 0.
        """
        import numpy as np
        import torch
        from torch.utils.data import TensorDataset

        from hierfl.learning.task import SiteData

        num_train, waits_s = self._size_and_time(site, step_s)
        rule = np.random.default_rng(self.seed).standard_normal(self.num_features)
        random = np.random.default_rng([self.seed, zlib.crc32(site.encode()), 1])
        n = num_train + self.num_test
        x = random.standard_normal((n, self.num_features), dtype=np.float32)
        signal = x @ (rule / np.linalg.norm(rule)) + self.noise * random.standard_normal(n)
        tensors = torch.from_numpy(x), torch.from_numpy((signal > 0).astype(np.int64)), torch.full((n,), waits_s)
        return SiteData(
            TensorDataset(*(tensor[:num_train] for tensor in tensors)),
            TensorDataset(*(tensor[num_train:] for tensor in tensors)),
        )

    def loss(self, model: Module, batch: Any) -> Tensor:
        """Return the mean binary cross entropy; in training, spend the site's time first."""
        if model.training and (seconds := float(batch[2][0])):
            _spend(seconds, self.busy)
        return classifier.loss(model, batch)

    def predict(self, model: Module, batch: Any) -> Prediction:
        """Return the probability of class 1, and the labels."""
        return classifier.predict(model, batch)

    def metrics(self) -> Mapping[str, str]:
        """Name what is measured."""
        return classifier.metrics(2)

    def _size_and_time(self, site: str, step_s: float | None) -> tuple[int, float]:
        """Draw a site's training samples and seconds per step, by seed and name."""
        import numpy as np

        random = np.random.default_rng([self.seed, zlib.crc32(site.encode()), 0])
        size, share = random.random(), random.random()
        most = self.num_samples_min if self.num_samples_max is None else self.num_samples_max
        longest = self.step_s if self.step_s_max is None else self.step_s_max
        num_train = self.num_samples_min + int(size * (most - self.num_samples_min + 1))
        waits_s = self.step_s + share * (longest - self.step_s) if step_s is None else step_s
        if not 0 <= waits_s < float("inf"):
            raise DataError(f"site {site!r}: data.step_s is {step_s!r}; needed: seconds, 0 or more")
        return num_train, float(waits_s)


def _range_end(field: str, end: float | None, start: float) -> Problem | None:
    """Find an end of a range that lies before its start."""
    return None if end is None else classifier.at_least(field, end, start)


def _spend(seconds: float, busy: bool) -> None:
    """Let time pass; or hash zeros, which burns CPU without holding Python's lock."""
    if not busy:
        time.sleep(seconds)
        return
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        hashlib.sha256(_BLOCK).digest()
