"""Feature vectors from each site's own files: Parquet, Arrow (IPC, Feather) or CSV, read with `pyarrow.dataset`.

A site says where its files lie, in the machine that trains it, relative to the folder that the run was started in:

    members:
      - {name: north, data: {path: data/north.parquet}}
      - {name: south, data: {path: data/south}}          # a folder: all its files, sorted by name
      - {name: east, data: {path: data/east.csv, delimiter: ";", decimal: ",", encoding: latin-1}}
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from hierfl.errors import DataError, Problem
from hierfl.learning import standardise as scaling
from hierfl.tasks import _classifier as classifier
from hierfl.tasks import _partition as shards
from hierfl.tasks._csv import Csv, Decimal, Delimiter, TextEncoding
from hierfl.tasks._encoding import ANY, LARGEST, Encoding
from hierfl.tasks._site_files import place_of, read_table
from hierfl.tasks._site_table import SiteTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray
    from pyarrow import Table
    from torch import Tensor
    from torch.nn import Module

    from hierfl.learning.task import Prediction, SiteData

__all__ = ["Parquet"]

TARGETS = ("class", "number")

UNSCALED = "standardise: federated (or site) scales it first; "


@dataclass(frozen=True)
class Parquet:
    """A model on columns of tables; every site has the same columns."""

    sought_as: ClassVar[dict[str, str]] = dict.fromkeys(
        ("arrow", "csv", "dataframe", "feather", "table", "tables", "tsv"),
        "is for tables in files, CSV and Arrow among them",
    )
    """Words by which this kind may be looked for, and what is said to that; no key of the YAML."""

    features: list[str]
    """Columns to learn from: integers, floats or booleans, and those that have `categories`."""
    label: str
    """Column that is learned, without gaps: of a class integers from 0 to num_classes - 1, booleans, or `classes`."""
    target: str = "class"
    """What the label is: class, or number (regression by least squares, measured by absolute and squared error)."""
    num_classes: int = 2
    """class: number of classes; a site need not have them all."""
    classes: list[Any] = field(default_factory=list)
    """class: the label's values as they stand in the files, in the order of the classes, [benign, malignant]; the files
    of some sites may lack some. Empty: integers from 0 on."""
    categories: dict[str, list[Any]] = field(default_factory=dict)
    """Columns of words or codes, with their values in the agreed order, each of which is a feature of 0 and 1:
    {sex: [f, m], stage: [1, 2, "*"]}; "*" stands for all other values, and gaps."""
    fill: dict[str, Any] = field(default_factory=dict)
    """What stands for a gap (null, NaN), by column, "*" for all others: median, mean or most_frequent of the site's own
    training rows, or a value: {chol: 240, "*": median}. Gaps in a column without are refused."""
    flag_gaps: bool = False
    """Each column that has a `fill` gets one more feature, 1 where there was a gap."""
    network: str = "logistic"
    """logistic, or mlp with one hidden layer."""
    hidden: int = 32
    """mlp: width of the hidden layer."""
    split: str | None = None
    """Column that says "train" or "test"; null draws test_fraction of the rows."""
    test_fraction: float = 0.2
    """Without split: share of each site's rows to test on."""
    patient: str | None = None
    """Column that says whose each row is, without gaps: no patient is in training and in test rows both,
    `privacy: {unit: patient}` protects all rows of each, and `evaluation.intervals` go by patients. null: each row is
    another patient's."""
    standardise: str = "federated"
    """none, site (each by its own training statistics) or federated (by the federation's)."""
    seed: int = 0
    """Seed of the drawn test rows."""

    def __post_init__(self) -> None:
        columns = [*self.features, self.label, *self._dealing]
        is_whole = bool(self.features) and len(set(self.features)) == len(self.features)
        doubles = sorted(name for name, many in Counter(columns).items() if many > 1)
        is_feature = doubles == [self.label] and self.features.count(self.label) == 1
        classifier.check(
            None if self.features else Problem("features", "needs at least one column"),
            Problem("label", f"{self.label!r} is among the features, too") if is_feature else None,
            Problem("features", f"columns are used twice: {', '.join(doubles)}")
            if doubles and not is_feature
            else None,
            classifier.choice("target", self.target, TARGETS),
            classifier.at_least("num_classes", self.num_classes, 2),
            *(self._encoding.problems() if is_whole else ()),
            *self._wrong_classes(),
            classifier.choice("network", self.network, classifier.NETWORKS),
            classifier.at_least("hidden", self.hidden, 1),
            classifier.at_least("test_fraction", self.test_fraction, 0, below=1),
            classifier.choice("standardise", self.standardise, scaling.STANDARDISE),
            classifier.at_least("seed", self.seed, 0, below=2**32),
        )

    def num_samples(self, site: str, path: str, **csv: str) -> tuple[int, int]:
        """Count a site's (train, test) rows; reads at most the columns split and patient."""
        table = self._read(site, path, self._dealing, Csv(**csv))
        is_test = self._is_test(site, table, self._owners(table))
        return int((~is_test).sum()), int(is_test.sum())

    def records_at(self, site: str, path: str, **csv: str) -> str:
        """Say where a site's files lie, all rows of which are its records."""
        return place_of(path)

    def model(self) -> Module:
        """Build a model with one input per feature; one output for a number, one logit for two classes, else C."""
        num_classes = 2 if self.target == "number" else self._num_classes
        return classifier.network(self.network, len(self.inputs), num_classes, self.hidden)

    def data(
        self,
        site: str,
        path: str,
        delimiter: Delimiter = ",",
        decimal: Decimal = ".",
        encoding: TextEncoding = Csv.encoding,
    ) -> SiteData:
        """Read a site's files: features (n, d) in the order of `inputs`, float32, or float64 where they are still to be
        scaled by the federation's moments; labels int64, numbers float32 (n,).

        `delimiter`, `decimal`, `encoding`: how they are written if they are CSV, a file of each country in its own way.
        Errors: DataError that names the site, the file and the column.
        """
        import numpy as np

        csv, columns = Csv(delimiter, decimal, encoding), [*self.features, self.label, *self._dealing]
        table = self._read(site, path, columns, csv)
        owners = self._owners(table)
        is_test = self._is_test(site, table, owners)
        x = self._encoding.matrix(table, (table, ~is_test), wide=self._scales)
        for name in self.features:
            if name not in self.categories:
                table.check_told_apart(name, x.dtype, "" if self._scales else UNSCALED)
        if self.target == "number":
            y: NDArray[Any] = table.numbers(self.label, LARGEST).astype(np.float32)
            table.check_told_apart(self.label, y.dtype)
        else:
            y = self._labels(table)
        if self.standardise == "site" and len(x):
            if is_test.all():  # as hierfl predict says of it
                raise table.error("no row is for training, by which standardise: site scales features; take federated")
            x = _by_itself(x, x[~is_test])
        return classifier.site_data(x, y, is_test, wide=self.standardise == "federated", owners=owners)

    def records(
        self,
        file: str,
        site: str = "",
        data: str = "",
        *,
        delimiter: str = Csv.delimiter,
        decimal: str = Csv.decimal,
        encoding: str = Csv.encoding,
    ) -> tuple[Table, NDArray[np.floating]]:
        """Read records that nobody has to have labelled: the table, and their features (n, d) in the order of `inputs`,
        scaled where each site does that by itself. `data`: the files of `site`, by whose training rows gaps are filled,
        and features scaled. `delimiter`, `decimal`, `encoding`: how all of these are written if they are CSV.

        Errors: DataError that names the file and the column.
        """
        csv = Csv(delimiter, decimal, encoding)
        table, own = self._read("", file, self.features, csv, whole=True), None
        if data:
            if not site:
                said = "which rows a site trains on follows from its key: --site NAME beside --data"
                raise DataError(said).misnamed()
            whole = self._read(site, data, [*self.features, *self._dealing], csv)
            own = whole, ~self._is_test(site, whole, self._owners(whole))
        x = self._encoding.matrix(table, own, wide=self._scales)
        if self.standardise != "site":
            return table.arrow, x
        if own is None:
            raise table.error(
                "features are scaled by the site's own training rows; say where these are: --site NAME --data PATH"
            )
        return table.arrow, _by_itself(x, self._encoding.matrix(own[0], own, wide=True)[own[1]])

    def apply(self, model: Module, x: Tensor) -> Mapping[str, Tensor]:
        """Predict records (n, d): `predicted`, a number; or `probability` of class 1 (n,), or `probability_0` ..."""
        output = model(x).float()
        if self.target == "number":
            return {"predicted": output[:, 0]}
        if output.shape[1] == 1:
            return {"probability": output[:, 0].sigmoid()}
        return {f"probability_{number}": column for number, column in enumerate(output.softmax(dim=1).T)}

    def table(self, site: str, path: str, **csv: str) -> Table:
        """Give the columns that are learned from and the label as they are in a site's files, nulls and all.

        Errors: DataError that names the site, the file and the column.
        """
        return self._read(site, path, [*self.features, self.label], Csv(**csv)).arrow

    def loss(self, model: Module, batch: Any) -> Tensor:
        """Return the mean cross entropy, or of numbers the mean squared error."""
        x, y = batch[0].float(), batch[-1]
        if self.target == "number":
            return (model(x)[:, 0] - y).square().mean()  # type: ignore[no-any-return]
        return classifier.loss(model, (x, y))

    def predict(self, model: Module, batch: Any) -> Prediction:
        """Return the probability of class 1 (n,), or of every class (n, C), and the labels; of numbers the errors."""
        x, y = batch[0].float(), batch[-1]
        if self.target == "number":
            from hierfl.learning.task import Prediction

            error = model(x)[:, 0] - y
            return Prediction(own={"absolute_error": error.abs(), "squared_error": error.square()})
        return classifier.predict(model, (x, y))

    def metrics(self) -> Mapping[str, str]:
        """Name what is measured."""
        if self.target == "number":
            return {"absolute_error": "min", "squared_error": "min"}
        return classifier.metrics(self._num_classes)

    @property
    def inputs(self) -> list[str]:
        """Name the model's inputs, in order: a column, `column=value` for each category, `column is missing`."""
        return self._encoding.names

    @property
    def patients(self) -> Callable[[Any], Tensor] | None:
        """Whose each of a site's training or test rows is, (n,); None where no column says it."""
        return None if self.patient is None else classifier.owners

    @property
    def _dealing(self) -> list[str]:
        """Name the columns by which rows are for training or for the test."""
        return [name for name in (self.split, self.patient) if name]

    @property
    def _scales(self) -> bool:
        """Whether features are scaled, before which they keep all their digits."""
        return self.standardise != "none"

    @property
    def _num_classes(self) -> int:
        return len(self.classes) or self.num_classes

    @property
    def _encoding(self) -> Encoding:
        return Encoding(self.features, self.categories, self.fill, self.flag_gaps)

    @property
    def _labelling(self) -> Encoding:
        """The label's own values, as those of a feature."""
        return Encoding([self.label], {self.label: self.classes} if self.classes else {}, {}, False)

    def _wrong_classes(self) -> Iterator[Problem]:
        """Say what contradicts itself in `classes`."""
        if not self.classes:
            return
        yield from (replace(problem, path="classes") for problem in self._labelling.problems())
        if self.target == "number":
            yield Problem("classes", "are those of target: class; leave them out with target: number")
        if len(self.classes) < 2 or ANY in self.classes:
            yield Problem("classes", f"needs two values at least, each by its name, not {self.classes}")
        if self.num_classes not in (2, len(self.classes)):
            yield Problem("num_classes", f"is {self.num_classes}, and classes names {len(self.classes)}: leave one out")

    def _read(self, site: str, path: str, columns: list[str], csv: Csv, *, whole: bool = False) -> SiteTable:
        """Read columns; codes that would be another number stay as they are."""
        words = [*self._encoding.worded, *self._labelling.worded, *([self.patient] if self.patient else [])]
        return read_table(site, path, columns, csv, words=words, whole=whole)

    def _labels(self, table: SiteTable) -> NDArray[np.int64]:
        """Return the labels, each one of the classes."""
        import numpy as np

        if self.classes:
            return self._labelling.places(table, self.label, "classes names all that there may be")
        labels = table.numbers(self.label, else_way_out=", or the words in it (classes: [...])")
        wrong = ~np.isin(labels, np.arange(self.num_classes))
        if wrong.any():
            raise table.error(
                f"label column {self.label!r} has {int(wrong.sum())} values that are no class (allowed: 0 to"
                f" {self.num_classes - 1}; num_classes sets how many)",
                f"{labels[wrong][0]:g} is the first",
            )
        return labels.astype(np.int64)

    def _owners(self, table: SiteTable) -> NDArray[np.int64] | None:
        """Say whose each row is, (n,); None where no column says it. Errors: DataError."""
        return table.codes(self.patient) if self.patient else None

    def _is_test(self, site: str, table: SiteTable, patients: NDArray[np.int64] | None) -> NDArray[np.bool_]:
        """Return which rows are for the test. Errors: DataError, also for a patient who is in both."""
        import numpy as np

        if self.split is None and patients is not None:
            return shards.test_mask_of_groups(patients, self.test_fraction, site, self.seed)
        if self.split is None:
            return shards.test_mask(table.num_rows, self.test_fraction, site, self.seed)
        words = table.words(self.split)
        wrong = [word for word in words if word not in ("train", "test")]
        if wrong:
            raise table.error(
                f"split column {self.split!r} has {len(wrong)} values that are neither train nor test",
                f"{wrong[0]!r} is the first",
            )
        is_test = np.array([word == "test" for word in words], dtype=np.bool_)
        both = np.intersect1d(patients[is_test], patients[~is_test]) if patients is not None else np.array([])
        if len(both):
            raise table.error(
                f"column {self.split!r} has rows of {len(both)} patient{'s' * (len(both) > 1)} (column"
                f" {self.patient!r}) both in training and in the test, where a model does better than on others: put"
                " all rows of a patient on one side, or let the task draw the test (split: null)",
                f"{table.arrow[self.patient or ''][int(np.flatnonzero(patients == both[0])[0])].as_py()!r} is one",
            )
        return is_test


def _by_itself(x: NDArray[np.floating], own: NDArray[np.floating]) -> NDArray[np.floating]:
    """Scale features (n, d) by a site's own training rows (k, d)."""
    mean, std = scaling.Moments.of(own, wide=True).mean_and_std()
    return (x - mean) / std
