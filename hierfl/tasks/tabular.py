"""Tables of made-up patients, with gaps and devices that differ from site to site: the data are synthetic.

Two uses in `configs/`: mortality and length of stay in intensive care from routine records, and functional
connectivity of brains (fMRI) from unlike scanners. For the latter there are two ways to adapt to a site's domain, by
which nothing but the model leaves a site. `alignment` draws mean and variance of each hidden feature to 0 and 1, one
reference for all sites (after Sun & Saenko 2016, Deep CORAL, with the reference in place of the other domain).
`network: experts` is the mixture of a shared and a private expert of Li et al. 2020; its `private.*` and `gate.*` stay
at the site by `strategy: fedper`. Their other way is adversarial: for that sites have to see features of each other.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierfl.errors import Problem
from hierfl.learning import standardise as scaling
from hierfl.tasks import _classifier as classifier
from hierfl.tasks._experts import experts
from hierfl.tasks._sites import Sites

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.nn import Module

    from hierfl.learning.task import Prediction, SiteData

__all__ = ["Tabular"]

NETWORKS = (*classifier.NETWORKS, "experts")


@dataclass(frozen=True)
class Tabular(Sites):
    """Synthetic records in classes, at sites named site-0, site-1, ...

    The mlp's layers are `trunk` and `head`; those of experts `shared.trunk` ..., `private.trunk` ... and `gate`.
    """

    outcome: str = "mortality"
    """What is predicted. Any word: each is another rule over the same patients."""
    num_classes: int = 2
    """Classes of the outcome; more than two are bands of equal frequency (of length of stay, say)."""
    prevalence: float = 0.5
    """Two classes: share of the patients who are of class 1."""
    num_features: int = 16
    """Measurements of a patient, which hang together in `num_factors` ways."""
    num_factors: int = 4
    """Hidden causes behind the measurements."""
    noise: float = 0.5
    """Standard deviation of what blurs the outcome's rule; the rule's own output has about 1."""
    missing: float = 0.0
    """Share of the values that are missing, by column and site from none to twice as many. Gaps are filled with the
    site's training median, and a second column for each says where they were."""
    network: str = "mlp"
    """logistic, mlp with one hidden layer, or experts: two such mlps, a shared and a private one, and a gate."""
    hidden: int = 16
    """mlp, experts: width of a hidden layer."""
    alignment: float = 0.0
    """mlp: weight of the term that aligns the sites' hidden features; 0: none."""
    standardise: str = "federated"
    """none, site (each by its own training statistics) or federated (by the federation's)."""

    def __post_init__(self) -> None:
        lonely = self.alignment > 0 and self.network in ("logistic", "experts")
        classifier.check(
            *self.checks(),
            classifier.at_least("num_classes", self.num_classes, 2),
            classifier.above_zero("prevalence", self.prevalence),
            classifier.at_least("prevalence", self.prevalence, 0, below=1),
            classifier.at_least("num_features", self.num_features, 1),
            classifier.at_least("num_factors", self.num_factors, 1),
            classifier.at_least("noise", self.noise, 0),
            classifier.at_least("missing", self.missing, 0, below=1),
            classifier.choice("network", self.network, NETWORKS),
            classifier.at_least("hidden", self.hidden, 1),
            classifier.at_least("alignment", self.alignment, 0),
            Problem("alignment", f"aligns the hidden features of an mlp; take network: mlp in place of {self.network}")
            if lonely
            else None,
            classifier.choice("standardise", self.standardise, scaling.STANDARDISE),
        )

    def model(self) -> Module:
        """Build a logistic regression, `trunk` (linear), ReLU and `head`, or two of these; one logit for two classes,
        else C.
        """
        inputs = self.num_features * (2 if self.missing else 1)
        if self.network == "logistic":
            return classifier.network("logistic", inputs, self.num_classes, self.hidden)
        return self._mlp(inputs) if self.network == "mlp" else experts(lambda: self._mlp(inputs), inputs)

    def data(self, site: str) -> SiteData:
        """Make one site's records: float32 (n, num_features), twice as wide with gaps; labels int64 (n,).

        Errors: DataError for an unknown site.
        """
        is_test = self.test_cases(site)
        values, labels = self._patients(site, len(is_test))
        values = self.measured(site, values, channel_axis=1)
        if self.missing:
            values = self._with_gaps(site, values, ~is_test)
        loaded = self.site_data(site, values, labels)
        return scaling.by_itself(loaded) if self.standardise == "site" else loaded

    def loss(self, model: Module, batch: Any) -> Tensor:
        """Return the mean cross entropy; in training with the weighted alignment."""
        loss = classifier.loss(model, batch)
        if self.alignment and model.training:
            loss = loss + self.alignment * _misalignment(model.get_submodule("trunk")(batch[0]))
        return loss

    def predict(self, model: Module, batch: Any) -> Prediction:
        """Return the probability of class 1 or of every class, and the labels."""
        return classifier.predict(model, batch)

    def metrics(self) -> Mapping[str, str]:
        """Name what is measured."""
        return classifier.metrics(self.num_classes)

    def _mlp(self, inputs: int) -> Module:
        """Build `trunk`, ReLU and `head`."""
        from torch import nn

        layers = classifier.network("mlp", inputs, self.num_classes, self.hidden)
        assert isinstance(layers, nn.Sequential)
        return nn.Sequential(OrderedDict(zip(("trunk", "bend", "head"), layers, strict=True)))

    def _patients(self, site: str, n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Draw measurements (n, num_features) and classes (n,)."""
        random, size = self.random(site, "cases"), (self.num_factors, self.num_features)
        causes = random.standard_normal((n, self.num_factors))
        loadings = self.random("", "loadings").standard_normal(size) / self.num_factors**0.5
        values = causes @ loadings + 0.5 * random.standard_normal((n, self.num_features))
        rule = self.random("", f"outcome {self.outcome}").standard_normal(self.num_factors) / self.num_factors**0.5
        scores = causes @ rule + self.noise * self.random(site, f"blur {self.outcome}").standard_normal(n)
        bands = [1 / self.num_classes] * self.num_classes
        of_all = [1 - self.prevalence, self.prevalence] if self.num_classes == 2 else bands
        return values, self.classes(site, scores, of_all)

    def _with_gaps(self, site: str, values: NDArray[np.float64], is_train: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Lose values, fill them from the site's training patients (0 where none has any), and add where they were."""
        import numpy as np

        random = self.random(site, "gaps")
        rates = np.minimum(2 * self.missing * random.random_sample(self.num_features), 1)
        gaps = random.random_sample(values.shape) < rates
        masked: Any = np.ma  # its types are not the same in all releases of NumPy
        typical = masked.filled(masked.median(masked.masked_array(values, gaps)[is_train], axis=0), 0.0)
        return np.concatenate([np.where(gaps, typical, values), gaps], axis=1)


def _misalignment(features: Tensor) -> Tensor:
    """Return how far each of the features (n, d) is from mean 0 and variance 1: the mean squared differences, added."""
    means = features.mean(dim=0)
    variances = (features - means).square().mean(dim=0)
    return means.square().mean() + (variances - 1).square().mean()
