"""Assays of chemical compounds at companies that share a trunk and keep heads of their own: the data are synthetic.

MELLODDY's scheme (Heyndrickx et al. 2023): ten companies predict activities from fingerprints of compounds; the trunk
is everyone's, the assays and the head that predicts them are each company's own, and most compounds were measured in
few assays. Use it with `strategy: fedper` or `fedrep`, whose default keeps `head.*` at the sites. Metrics are of the
labels that are known, so that `num_test` counts these.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierfl.learning.task import Prediction
from hierfl.tasks import _classifier as classifier
from hierfl.tasks._sites import Sites

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.nn import Module

    from hierfl.learning.task import SiteData

__all__ = ["Multitask"]

_UNKNOWN = -1


@dataclass(frozen=True)
class Multitask(Sites):
    """Synthetic compounds and assays, at sites named site-0, site-1, ...; each site has assays of its own."""

    num_assays: int = 8
    """Most assays of a site, and the width of every head; each site has from half as many up to all."""
    num_features: int = 64
    """Bits of a fingerprint; `shift` moves the log-odds with which a site's compounds have them."""
    num_factors: int = 4
    """Properties of a compound that all assays, whosever, depend on: what there is to share."""
    active: float = 0.3
    """Share of the compounds that are active in an assay."""
    missing: float = 0.5
    """Share of a site's labels that were never measured."""
    noise: float = 0.3
    """Standard deviation of the assays' noise; what they measure has about 1."""
    hidden: int = 32
    """Width of the trunk's two layers."""

    def __post_init__(self) -> None:
        classifier.check(
            *self.checks(),
            classifier.at_least("num_assays", self.num_assays, 1),
            classifier.at_least("num_features", self.num_features, 1),
            classifier.at_least("num_factors", self.num_factors, 1),
            classifier.above_zero("active", self.active),
            classifier.at_least("active", self.active, 0, below=1),
            classifier.at_least("missing", self.missing, 0, below=1),
            classifier.at_least("noise", self.noise, 0),
            classifier.at_least("hidden", self.hidden, 1),
        )

    def model(self) -> Module:
        """Build the `trunk`, everyone's, and the `head`, with one logit per assay."""
        from torch import nn

        first, second = nn.Linear(self.num_features, self.hidden), nn.Linear(self.hidden, self.hidden)
        trunk = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
        return nn.Sequential(OrderedDict(trunk=trunk, head=nn.Linear(self.hidden, self.num_assays)))

    def data(self, site: str) -> SiteData:
        """Make one site's compounds: float32 (n, num_features), labels int64 (n, num_assays), -1 for unknown.

        Errors: DataError for an unknown site.
        """
        import numpy as np

        n = len(self.test_cases(site))
        own, random = self.random(site, "company"), self.random(site, "cases")
        frequent = 1 / (1 + np.exp(2 - self.shift * own.standard_normal(self.num_features)))
        bits = (random.random_sample((n, self.num_features)) < frequent).astype(np.float64)
        factors = np.tanh(
            _scaled(bits @ self.random("", "factors").standard_normal((self.num_features, self.num_factors)))
        )
        activities = _scaled(factors @ own.standard_normal((self.num_factors, self.num_assays)))
        activities += self.noise * random.standard_normal(activities.shape)
        of_all = (1 - self.active, self.active)
        labels = np.stack([self.classes(site, assay, of_all) for assay in activities.T], axis=1)
        labels[random.random_sample(labels.shape) < self.missing] = _UNKNOWN
        labels[:, own.randint((self.num_assays + 1) // 2, self.num_assays + 1) :] = _UNKNOWN
        return self.site_data(site, bits, labels)

    def loss(self, model: Module, batch: Any) -> Tensor:
        """Return the mean binary cross entropy over the known labels; 0 where none is."""
        from torch.nn import functional as F

        logits, labels = self._known(model, batch)
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="sum") / max(
            len(labels), 1
        )

    def predict(self, model: Module, batch: Any) -> Prediction:
        """Return the probability of being active for each known label, and the label."""
        logits, labels = self._known(model, batch)
        return Prediction(logits.float().sigmoid(), labels)

    def metrics(self) -> Mapping[str, str]:
        """Name what is measured."""
        return classifier.metrics(2)

    def _known(self, model: Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the logits and labels of what was measured, shape (m,) each."""
        known = batch[1] != _UNKNOWN
        return model(batch[0])[known], batch[1][known]


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale columns (n, k) to mean 0 and standard deviation about 1."""
    scaled: NDArray[np.float64] = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-9)
    return scaled
