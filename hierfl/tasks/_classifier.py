"""What the built-in tasks share: a classifier on feature vectors, and checks of their fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hierfl.errors import ConfigError, DataError, Problem
from hierfl.kinds import nearest
from hierfl.learning.own_metrics import CLASSES, TWO_CLASSES
from hierfl.learning.task import Prediction, SiteData

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.nn import Module

__all__ = [
    "NETWORKS",
    "above_zero",
    "at_least",
    "check",
    "choice",
    "loss",
    "metrics",
    "multiple",
    "network",
    "owners",
    "predict",
    "site_data",
    "unknown_site",
]

NETWORKS = ("logistic", "mlp")


def network(kind: str, num_features: int, num_classes: int, hidden: int) -> Module:
    """Build a logistic regression, or an MLP with one hidden layer; one logit for two classes, else one per class."""
    from torch import nn

    outputs = 1 if num_classes == 2 else num_classes
    if kind == "logistic":
        return nn.Linear(num_features, outputs)
    return nn.Sequential(nn.Linear(num_features, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def loss(model: Module, batch: Any) -> Tensor:
    """Return the mean cross entropy of a batch (features (n, d), labels (n,)) from the model's logits."""
    from torch.nn import functional as F

    logits, labels = model(batch[0]), batch[1]
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits.dtype))
    return F.cross_entropy(logits, labels)


def predict(model: Module, batch: Any) -> Prediction:
    """Return the probability of class 1 (n,), or of every class (n, C), and the labels."""
    logits = model(batch[0]).float()
    scores = logits[:, 0].sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
    return Prediction(scores, batch[1])


def metrics(num_classes: int) -> Mapping[str, str]:
    """Name what predictions into so many classes are measured by, and which way it gets better."""
    return TWO_CLASSES if num_classes == 2 else CLASSES


def site_data(
    x: NDArray[np.floating],
    y: NDArray[np.number],
    is_test: NDArray[np.bool_],
    *,
    wide: bool = False,
    owners: NDArray[np.int64] | None = None,
) -> SiteData:
    """Make the data sets of one site: features (n, d) become float32, or `wide`, float64; labels (n,) int64, floats
    float32. `owners`: whose each sample is, (n,), which the data say between the two.
    """
    import numpy as np
    import torch
    from torch.utils.data import TensorDataset

    features = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64 if wide else np.float32))
    kind = np.float32 if np.issubdtype(y.dtype, np.floating) else np.int64
    labels = torch.from_numpy(np.ascontiguousarray(y, dtype=kind))
    test = torch.from_numpy(np.ascontiguousarray(is_test))
    columns = [features, *([] if owners is None else [torch.from_numpy(owners)]), labels]
    return SiteData(*(TensorDataset(*(column[use] for column in columns)) for use in (~test, test)))


def owners(data: Any) -> Tensor:
    """Give whose each sample is, (n,), where `site_data` was told."""
    whose: Tensor = data.tensors[1]
    return whose


def choice(field: str, value: str, allowed: Iterable[str]) -> Problem | None:
    """Find a field whose word is none of the allowed."""
    return None if value in tuple(allowed) else Problem(field, f"unknown {value!r}{nearest(value, allowed)}")


def at_least(field: str, value: float, smallest: float, below: float | None = None) -> Problem | None:
    """Find a field whose number is too small, or not below a bound."""
    if value >= smallest and (below is None or value < below):
        return None
    return Problem(field, f"{value} must be at least {smallest}" + ("" if below is None else f" and below {below}"))


def multiple(field: str, value: int, of: int, smallest: int) -> Problem | None:
    """Find a field whose number is too small, or no multiple."""
    if value >= smallest and value % of == 0:
        return None
    return Problem(field, f"{value} must be a multiple of {of}, at least {smallest}")


def above_zero(field: str, value: float) -> Problem | None:
    """Find a field whose number is not above 0."""
    return None if value > 0 else Problem(field, f"{value} must be above 0")


def check(*found: Problem | None) -> None:
    """Raise one ConfigError with every problem found, its path the field of the task."""
    problems = [problem for problem in found if problem is not None]
    if problems:
        raise ConfigError(problems)


def unknown_site(site: str, known: Iterable[str]) -> DataError:
    """Make the error for a site that the task has no data for."""
    return DataError(f"site {site!r}: the task has no data under that key{nearest(site, known)}")
