"""What is learned: a model, the sites' data, a loss, and predictions to measure.

A task is a (frozen) dataclass whose fields are the YAML's keys under `task:`. Its four methods are all that hierfl
needs; it takes any `torch.nn.Module`, and no task needs an edit in hierfl. Import torch inside the methods, or at the
top of the module: only workers call them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from operator import index
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from hierfl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from pyarrow import Table
    from torch import Tensor
    from torch.nn import Module
    from torch.utils.data import Dataset
    from typing_extensions import TypeIs

    from hierfl.config.schema import SiteSettings
    from hierfl.learning.fitting import LocalTraining

__all__ = [
    "IS_MISSING",
    "Applies",
    "Check",
    "Collates",
    "CountsSamples",
    "Fits",
    "KnowsPatients",
    "KnowsSites",
    "NamesMetrics",
    "Prediction",
    "ReadsFiles",
    "SiteData",
    "Standardised",
    "Tabulates",
    "Task",
    "WeighsSamples",
    "counted",
    "offers",
]

Offer = TypeVar("Offer")


IS_MISSING = " is missing"
"""Behind a column's name: the name of the feature that is 1 where the column has a gap."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a value of `data:` or of a task must be beside its type, `Annotated[str, Check(wrong)]`: `wrong` is given it
    before anything starts, and says why it does not do ("is 'x'; needed: ..."), or "".
    """

    wrong: Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class SiteData:
    """One site's records: map-style datasets, `train` to learn from and `test` to measure on (either may be empty).

    A `torch.utils.data.TensorDataset` is the fast path: batches are cut by index.
    """

    train: Dataset[Any]
    test: Dataset[Any]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Scores and labels of one batch of n samples; or metrics of the task's own, where nothing is told into classes.

    `scores`: shape (n,) the probability of the positive class, or (n, C) the class probabilities; `labels`: shape (n,)
    of class indices. `names`: where each sample has several labels, each true or not, what these are called; then both
    are (n, L): the probability that a label is true, and 1 or 0, or -1 or NaN where it is not known.
    `own`: by name, what each sample adds, shape (n,): the metric is the mean over all samples; with scores or without.
    Where a sample has several predictions there may be a value for each of these or for each sample. Floats of any
    precision; on any device.
    """

    scores: Tensor | None = None
    labels: Tensor | None = None
    own: Mapping[str, Tensor] = field(default_factory=dict)
    names: Sequence[str] = ()


@runtime_checkable
class Task(Protocol):
    """The seam between hierfl and what is learned."""

    def model(self) -> Module:
        """Build the model. hierfl seeds torch's generator beforehand, so every process builds the same one."""

    def data(self, site: str, *_: Any, **source: Any) -> SiteData:
        """Load one site's data. `site` is its key (its name, or `data: {key: ...}`); `source` the rest of `data:`.

        Name what you take, with types (`path: str, sheet: int = 0`): the YAML is checked against it before anything
        starts. What you collect with `**source` is not checked.

        Errors: DataError that names the site and the file.
        """

    def loss(self, model: Module, batch: Any) -> Tensor:
        """Return the mean loss of one batch (an element of the dataset, collated), a scalar with gradient."""

    def predict(self, model: Module, batch: Any) -> Prediction:
        """Return scores and labels of one batch, or own metrics; without gradients, the model in evaluation mode."""


@runtime_checkable
class Collates(Protocol):
    """A task that makes batches itself: of sequences or images of unlike sizes, say."""

    def collate(self, samples: Sequence[Any]) -> Any:
        """Make one batch of samples, as the data sets give them: tensors, or tuples, lists, dicts of these."""


@runtime_checkable
class Fits(Protocol):
    """A task with a training loop of its own: several optimizers, a step on several batches, a library's trainer."""

    def fit(self, model: Module, local: LocalTraining) -> float | Tensor | None:
        """Train the model in place on `local.dataset`; return the mean loss, or nothing.

        `local.step(optimizer)` stands in the place of `optimizer.step()`, wherever a strategy adds to the gradients.
        """


@runtime_checkable
class WeighsSamples(Protocol):
    """A task whose training samples are not drawn alike: rare classes more often, say."""

    def sample_weights(self, train: Dataset[Any]) -> Sequence[float] | Tensor:
        """Weigh a site's training samples, shape (n,), not below 0: every pass draws n of them with replacement, each
        with a probability in proportion. The site's own weight in its hub's mean stays.
        """


@runtime_checkable
class KnowsPatients(Protocol):
    """A task that can say whose its records are: what a mechanism with `unit: patient` protects as a whole, and what
    intervals of figures go by.
    """

    def patients(self, data: Dataset[Any]) -> Sequence[int] | Sequence[str] | Tensor:
        """Say whose each of a site's training samples is, or with `evaluation.intervals` of its test samples, whichever
        data set is given, (n,): a number or a word, the same for all of a patient.
        """


@runtime_checkable
class KnowsSites(Protocol):
    """A task that can list its sites without loading them: wrong names are found before the run starts."""

    def sites(self) -> Sequence[str]:
        """List the keys that `data` accepts."""


@runtime_checkable
class ReadsFiles(Protocol):
    """A task that has the same records for sites of any keys where it is given the same files: who has another's by
    mistake is warned of.
    """

    def records_at(self, site: str, *_: Any, **source: Any) -> str:
        """Say where all of a site's records are read, as `data` is called, and open nothing: one place, one answer."""


@runtime_checkable
class CountsSamples(Protocol):
    """A task that can count a site's samples before the run starts."""

    def num_samples(self, site: str, *_: Any, **source: Any) -> tuple[int, int]:
        """Count one site's (train, test) samples without loading torch; `hierfl tree` shows them."""


@runtime_checkable
class Tabulates(Protocol):
    """A task that can show a site's records as a table, before any is left out or filled in: see statistics.md."""

    def table(self, site: str, *_: Any, **source: Any) -> Table:
        """Give all records of a site, training and test, a `pyarrow.Table` of one row each; as `data` is called.

        Errors: DataError that names the site and the file.
        """


@runtime_checkable
class Applies(Protocol):
    """A task whose model `hierfl predict` can use on records that are no site's."""

    def records(self, file: str, site: str = "", data: str = "", **source: Any) -> tuple[Table, NDArray[np.floating]]:
        """Read records from a file: the table as it is, and their features (n, d), of the type in which `data` gives
        them, not scaled by the federation's mean and deviation. `site`, `data`: whose own records say what stands for a
        gap, and where they lie; empty: nobody's. `source`: what `hierfl predict` was told as KEY=VALUE; keys that you
        do not name are refused.

        Errors: DataError that names the file.
        """

    def apply(self, model: Module, x: Tensor) -> Mapping[str, Tensor]:
        """Predict records (n, d): columns by name, (n,) each; `probability` is that of class 1 of two,
        `probability_of_<label>` that a label is true, where a record has several.
        """


@runtime_checkable
class NamesMetrics(Protocol):
    """A task that says what it measures: early stopping by what it does not is found before the run starts."""

    def metrics(self) -> Mapping[str, str]:
        """Name all that is measured beside the loss, and which way it gets better: {"absolute_error": "min"}.

        `own_metrics.CLASSES` and `TWO_CLASSES` are those of classes.
        """


@runtime_checkable
class Standardised(Protocol):
    """A task whose features are to be standardised before the first round.

    `standardise` is "none", "site" (the task does it itself, by each site's own training statistics) or "federated":
    hierfl adds up counts, sums and squares over the tree, and every site scales the first tensor of its
    `TensorDataset`s, shape (n, d), by the federation's mean and standard deviation. Where a task has `inputs`, a list
    of d names, these are told of features that are not alike at all sites; of one that is 1 where a column has a gap,
    the column with `IS_MISSING` behind it.
    """

    standardise: str


def offers(task: object, protocol: Callable[..., Offer]) -> TypeIs[Offer]:
    """Say whether a task has the methods of an optional protocol; a key of its YAML that is called so is none."""
    return all(callable(getattr(task, name, None)) for name in _methods(protocol))


@cache
def _methods(protocol: Callable[..., Any]) -> tuple[str, ...]:
    """List the methods of a protocol by name."""
    return tuple(name for name in vars(protocol) if not name.startswith("_"))


def counted(task: CountsSamples, settings: SiteSettings) -> tuple[int, int]:
    """Count a site's (train, test) samples, those of its part, or of all sites in a pool, without loading torch."""
    if settings.pools:
        pairs = [counted(task, site) for site in settings.pools]
        return sum(train for train, _ in pairs), sum(test for _, test in pairs)
    train, test = _pair(task, settings.key, settings.source)
    first, step = settings.part or (0, 1)
    handed = 0
    for one in settings.handed:
        handed += one.count(_pair(task, one.key, one.source)[0], settings.part)
    return len(range(first, train, step)) + handed, len(range(first, test, step))


def _pair(task: CountsSamples, key: str, source: Mapping[str, Any]) -> tuple[int, int]:
    """Ask a task for two numbers. Errors: DataError for anything else."""
    found: Any = task.num_samples(key, **source)
    try:
        train, test = map(index, found)
    except (TypeError, ValueError):
        what = f"{type(task).__name__}.num_samples gave {found!r:.80}"
        raise DataError(f"{what}; needed: the numbers of training and test samples, as (80, 20)") from None
    return train, test
