"""Handwritten digits on any number of sites: 1797 images of 8 x 8 pixels, ten classes.

The data set comes with scikit-learn (a part of Alpaydin & Kaynak 1998, doi 10.24432/C50P49); install `hierfl[tasks]`.
Pixels are scaled to 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierfl.tasks import _classifier as classifier
from hierfl.tasks import _partition as shards

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from torch.nn import Module

    from hierfl.learning.task import Prediction, SiteData

__all__ = ["Digits"]


@dataclass(frozen=True)
class Digits:
    """Digits, dealt out to sites named site-0, site-1, ..."""

    num_sites: int = 10
    """Number of sites, at most 1797."""
    partition: str = "dirichlet"
    """dirichlet (uneven classes and numbers), by_class (few classes per site) or iid (all alike)."""
    alpha: float = 0.5
    """dirichlet: above 0; the smaller, the more uneven."""
    seed: int = 0
    """Seed of the partition and of the test split."""
    network: str = "logistic"
    """logistic, or mlp with one hidden layer."""
    hidden: int = 32
    """mlp: width of the hidden layer."""
    test_fraction: float = 0.25
    """Share of each site's samples to test on."""

    def __post_init__(self) -> None:
        classifier.check(
            classifier.at_least("num_sites", self.num_sites, 1, below=1798),
            classifier.choice("partition", self.partition, shards.PARTITIONS),
            classifier.above_zero("alpha", self.alpha),
            classifier.at_least("seed", self.seed, 0, below=2**32),
            classifier.choice("network", self.network, classifier.NETWORKS),
            classifier.at_least("hidden", self.hidden, 1),
            classifier.at_least("test_fraction", self.test_fraction, 0, below=1),
        )

    def sites(self) -> Sequence[str]:
        """List the sites: site-0, site-1, ..."""
        return shards.site_names(self.num_sites)

    def num_samples(self, site: str) -> tuple[int, int]:
        """Count a site's (train, test) samples."""
        is_test = self._shard(site)[1]
        return int((~is_test).sum()), int(is_test.sum())

    def model(self) -> Module:
        """Build a model with 64 inputs and ten logits."""
        return classifier.network(self.network, 64, 10, self.hidden)

    def data(self, site: str) -> SiteData:
        """Load one site's images: features float32 (n, 64), labels int64 (n,).

        Errors: DataError for an unknown site, ConfigError where scikit-learn is not installed.
        """
        indices, is_test = self._shard(site)
        x, y = shards.bundled("digits")
        return classifier.site_data(x[indices] / 16.0, y[indices], is_test)

    def loss(self, model: Module, batch: Any) -> Tensor:
        """Return the mean cross entropy."""
        return classifier.loss(model, batch)

    def predict(self, model: Module, batch: Any) -> Prediction:
        """Return the probability of every digit, and the labels."""
        return classifier.predict(model, batch)

    def metrics(self) -> Mapping[str, str]:
        """Name what is measured."""
        return classifier.metrics(10)

    def _shard(self, site: str) -> shards.Shard:
        """Return a site's sample indices and which of them are for the test."""
        indices = shards.shard("digits", site, self.num_sites, self.partition, self.alpha, self.seed)
        return indices, shards.test_mask(len(indices), self.test_fraction, site, self.seed)
