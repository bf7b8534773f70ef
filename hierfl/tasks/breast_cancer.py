"""Breast cancer, benign or malignant: 569 biopsies, 30 measures of their cells, on any number of sites.

The data set comes with scikit-learn (Wolberg et al. 1995, doi 10.24432/C5DW2B); install `hierfl[tasks]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierfl.learning import standardise as scaling
from hierfl.tasks import _classifier as classifier
from hierfl.tasks import _partition as shards

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from torch.nn import Module

    from hierfl.learning.task import Prediction, SiteData

__all__ = ["BreastCancer"]


@dataclass(frozen=True)
class BreastCancer:
    """Biopsies, dealt out to sites named site-0, site-1, ...; class 1 is benign, as in scikit-learn."""

    num_sites: int = 4
    """Number of sites, at most 569."""
    partition: str = "iid"
    """dirichlet (uneven classes and numbers), by_class (few classes per site) or iid (all alike)."""
    alpha: float = 0.5
    """dirichlet: above 0; the smaller, the more uneven."""
    seed: int = 0
    """Seed of the partition and of the test split."""
    network: str = "logistic"
    """logistic, or mlp with one hidden layer."""
    hidden: int = 16
    """mlp: width of the hidden layer."""
    test_fraction: float = 0.25
    """Share of each site's samples to test on."""
    standardise: str = "federated"
    """none, site (each by its own training statistics) or federated (by the federation's)."""

    def __post_init__(self) -> None:
        classifier.check(
            classifier.at_least("num_sites", self.num_sites, 1, below=570),
            classifier.choice("partition", self.partition, shards.PARTITIONS),
            classifier.above_zero("alpha", self.alpha),
            classifier.at_least("seed", self.seed, 0, below=2**32),
            classifier.choice("network", self.network, classifier.NETWORKS),
            classifier.at_least("hidden", self.hidden, 1),
            classifier.at_least("test_fraction", self.test_fraction, 0, below=1),
            classifier.choice("standardise", self.standardise, scaling.STANDARDISE),
        )

    def sites(self) -> Sequence[str]:
        """List the sites: site-0, site-1, ..."""
        return shards.site_names(self.num_sites)

    def num_samples(self, site: str) -> tuple[int, int]:
        """Count a site's (train, test) samples."""
        is_test = self._shard(site)[1]
        return int((~is_test).sum()), int(is_test.sum())

    def model(self) -> Module:
        """Build a model with 30 inputs and one logit."""
        return classifier.network(self.network, 30, 2, self.hidden)

    def data(self, site: str) -> SiteData:
        """Load one site's biopsies: features float32 (n, 30), labels int64 (n,), 1 for benign.

        Errors: DataError for an unknown site, ConfigError where scikit-learn is not installed.
        """
        indices, is_test = self._shard(site)
        x, y = shards.bundled("breast_cancer")
        loaded = classifier.site_data(x[indices], y[indices], is_test)
        return scaling.by_itself(loaded) if self.standardise == "site" else loaded

    def loss(self, model: Module, batch: Any) -> Tensor:
        """Return the mean binary cross entropy."""
        return classifier.loss(model, batch)

    def predict(self, model: Module, batch: Any) -> Prediction:
        """Return the probability of class 1, and the labels."""
        return classifier.predict(model, batch)

    def metrics(self) -> Mapping[str, str]:
        """Name what is measured."""
        return classifier.metrics(2)

    def _shard(self, site: str) -> shards.Shard:
        """Return a site's sample indices and which of them are for the test."""
        indices = shards.shard("breast_cancer", site, self.num_sites, self.partition, self.alpha, self.seed)
        return indices, shards.test_mask(len(indices), self.test_fraction, site, self.seed)
