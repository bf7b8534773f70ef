"""Feature vectors from each site's own files: Parquet, Arrow (IPC, Feather) or CSV, read with `pyarrow.dataset`.

A site says where its files lie, in the machine that trains it, relative to the folder that the run was started in:

    members:
      - {name: north, data: {path: data/north.parquet}}
      - {name: south, data: {path: data/south}}          # a folder: all its files, sorted by name
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierfl.errors import DataError, Problem
from hierfl.kinds import nearest
from hierfl.learning import standardise as scaling
from hierfl.tasks import _classifier as classifier
from hierfl.tasks import _partition as shards

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from pyarrow import Table
    from torch import Tensor
    from torch.nn import Module

    from hierfl.learning.task import Prediction, SiteData

__all__ = ["Parquet"]

_FORMATS = {".parquet": "parquet", ".arrow": "ipc", ".ipc": "ipc", ".feather": "ipc", ".csv": "csv"}


@dataclass(frozen=True)
class Parquet:
    """A classifier on columns of tables; every site has the same columns, with no nulls."""

    features: list[str]
    """Columns to learn from: integers, floats or booleans."""
    label: str
    """Column of the class: integers from 0 to num_classes - 1, or booleans."""
    num_classes: int = 2
    """Number of classes; a site need not have them all."""
    network: str = "logistic"
    """logistic, or mlp with one hidden layer."""
    hidden: int = 32
    """mlp: width of the hidden layer."""
    split: str | None = None
    """Column that says "train" or "test"; null draws test_fraction of the rows."""
    test_fraction: float = 0.2
    """Without split: share of each site's rows to test on."""
    standardise: str = "federated"
    """none, site (each by its own training statistics) or federated (by the federation's)."""
    seed: int = 0
    """Seed of the drawn test rows."""

    def __post_init__(self) -> None:
        columns = [*self.features, self.label, *([self.split] if self.split else [])]
        doubles = sorted({name for name in columns if columns.count(name) > 1})
        classifier.check(
            None if self.features else Problem("features", "needs at least one column"),
            Problem("features", f"columns are used twice: {', '.join(doubles)}") if doubles else None,
            classifier.at_least("num_classes", self.num_classes, 2),
            classifier.choice("network", self.network, classifier.NETWORKS),
            classifier.at_least("hidden", self.hidden, 1),
            classifier.at_least("test_fraction", self.test_fraction, 0, below=1),
            classifier.choice("standardise", self.standardise, scaling.STANDARDISE),
            classifier.at_least("seed", self.seed, 0, below=2**32),
        )

    def num_samples(self, site: str, path: str) -> tuple[int, int]:
        """Count a site's (train, test) rows; reads at most the split column."""
        table = _read(site, path, [self.split] if self.split else [])
        is_test = self._is_test(site, table)
        return int((~is_test).sum()), int(is_test.sum())

    def model(self) -> Module:
        """Build a model with one input per feature; one logit for two classes, else one per class."""
        return classifier.network(self.network, len(self.features), self.num_classes, self.hidden)

    def data(self, site: str, path: str) -> SiteData:
        """Read a site's files: features float32 (n, d) in the order of `features`, labels int64 (n,).

        Errors: DataError that names the site, the file and the column.
        """
        import numpy as np

        table = _read(site, path, [*self.features, self.label, *([self.split] if self.split else [])])
        x = np.stack([table.numbers(name, float(np.finfo(np.float32).max)) for name in self.features], axis=1)
        loaded = classifier.site_data(x, self._labels(table), self._is_test(site, table))
        return scaling.by_itself(loaded) if self.standardise == "site" else loaded

    def table(self, site: str, path: str) -> Table:
        """Give the columns that are learned from and the label as they are in a site's files, nulls and all.

        Errors: DataError that names the site, the file and the column.
        """
        return _read(site, path, [*self.features, self.label]).arrow

    def loss(self, model: Module, batch: Any) -> Tensor:
        """Return the mean cross entropy."""
        return classifier.loss(model, batch)

    def predict(self, model: Module, batch: Any) -> Prediction:
        """Return the probability of class 1 (n,), or of every class (n, C), and the labels."""
        return classifier.predict(model, batch)

    def metrics(self) -> Mapping[str, str]:
        """Name what is measured."""
        return classifier.metrics(self.num_classes)

    def _labels(self, table: _Table) -> NDArray[np.int64]:
        """Return the labels, each one of the classes."""
        import numpy as np

        labels = table.numbers(self.label)
        wrong = ~np.isin(labels, np.arange(self.num_classes))
        if wrong.any():
            raise table.error(
                f"label column {self.label!r} has {int(wrong.sum())} values that are no class, the first is"
                f" {labels[wrong][0]:g} (allowed: 0 to {self.num_classes - 1}; num_classes sets how many)"
            )
        return labels.astype(np.int64)

    def _is_test(self, site: str, table: _Table) -> NDArray[np.bool_]:
        """Return which rows are for the test."""
        import numpy as np

        if self.split is None:
            return shards.test_mask(table.num_rows, self.test_fraction, site, self.seed)
        words = table.words(self.split)
        wrong = [word for word in words if word not in ("train", "test")]
        if wrong:
            raise table.error(f"split column {self.split!r} holds {wrong[0]!r} (allowed: train, test)")
        return np.array([word == "test" for word in words], dtype=np.bool_)


@dataclass(frozen=True)
class _Table:
    """One site's columns, and what to call them in an error."""

    site: str
    path: Path
    arrow: Any

    @property
    def num_rows(self) -> int:
        return int(self.arrow.num_rows)

    def error(self, message: str) -> DataError:
        return _error(self.site, self.path, message)

    def numbers(self, name: str, largest: float = math.inf) -> NDArray[np.float64]:
        """Return a column as float64 (n,); nulls, NaN, Inf, text and what is beyond `largest` are errors."""
        import numpy as np
        from pyarrow import types

        column = self.arrow[name]
        kind = column.type
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)):
            raise self.error(f"column {name!r} is of type {kind}; needed: integers, floats or booleans")
        if column.null_count:
            raise self.error(f"column {name!r} has {column.null_count} nulls in {len(column)} rows; fill or drop them")
        is_bit = types.is_boolean(kind)
        values: NDArray[np.float64] = column.cast("uint8" if is_bit else "float64", safe=False).to_numpy().astype(float)
        bad = ~np.isfinite(values) | (np.abs(values) > largest)
        if bad.any():
            what = "NaN or Inf" if np.isnan(values[bad]).any() or np.isinf(values[bad]).any() else "beyond float32"
            raise self.error(f"column {name!r} has {int(bad.sum())} values that are {what}; fill or drop them")
        return values

    def words(self, name: str) -> list[Any]:
        """Return a column as Python values."""
        values: list[Any] = self.arrow[name].to_pylist()
        return values


def _read(site: str, path: str, columns: list[str]) -> _Table:
    """Read columns of a site's files (none: only the number of rows)."""
    import pyarrow as pa
    from pyarrow import dataset

    if not path:
        raise DataError(f"site {site!r}: data.path is empty; name a file or a folder")
    where = Path(path).expanduser().absolute()
    if not where.exists():
        counted = "" if Path(path).is_absolute() else f" ({path} counts from the folder in which the run was started)"
        raise _error(site, where, f"does not exist on the machine that trains this site{counted}")
    files = _files(site, where)
    try:
        name = _format(site, where, files)
        found = dataset.dataset([str(file) for file in files], format=_checked() if name == "parquet" else name)
        for column in columns:
            if column not in found.schema.names:
                raise _error(site, where, f"has no column {column!r}{nearest(column, found.schema.names)}")
        table = found.to_table(columns=columns)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _error(site, where, f"cannot be read: {_first_line(error)}") from error
    return _Table(site, where, table)


def _files(site: str, path: Path) -> list[Path]:
    """List the files under a path, sorted; hidden files and those that begin with "_" are left out."""
    if path.is_file():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith((".", "_")))
    if not files:
        raise _error(site, path, f"is a folder without files ({', '.join(_FORMATS)})")
    return files


def _format(site: str, path: Path, files: list[Path]) -> str:
    """Tell the one format of the files by their endings."""
    formats = {_FORMATS.get(file.suffix.lower()) for file in files}
    if len(formats) > 1:
        raise _error(site, path, f"holds several kinds of files: {', '.join(sorted({f.suffix for f in files}))}")
    name = formats.pop()
    if name is None:
        raise _error(site, path, f"ends in {files[0].suffix!r} (allowed: {', '.join(_FORMATS)})")
    return name


def _checked() -> Any:
    """Give Parquet as a format whose pages are held against their checksums, where the file was written with any."""
    from pyarrow import dataset

    options = dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
    return dataset.ParquetFileFormat(default_fragment_scan_options=options)


def _error(site: str, path: Path, message: str) -> DataError:
    return DataError(f"site {site!r}: {path}: {message}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
