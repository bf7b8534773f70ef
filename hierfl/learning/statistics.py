"""What sites' tables hold, column by column: counts, missing values, moments, values and bins; all of it adds.

A site tells no number that stands for fewer records than `min_count`, but for how many values are missing: what would
is put together with its neighbours, or kept back (`hierfl.learning.disclosure`). That happens at the site, before
anything is added, so that a hub above sees nothing else. Two figures of one column may differ by few records: hence a
column is told by value or by bin, never both, and has no moments where these would count the few: of 103 values 0 and
1, a mean of 3/103 does; nor where they would tell one value, far from all others. Sums are integers, so a hub's figures
are the same over any tree and in any order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import DataError
from hierfl.learning import disclosure
from hierfl.learning.standardise import Moments

if TYPE_CHECKING:
    from pyarrow import Table

    from hierfl.config.learning import Statistics
    from hierfl.learning.task import SiteData

__all__ = ["KINDS", "Column", "TableStatistics", "as_table", "statistics_of"]

KINDS = ("", "number", "category", "other", "mixed")
"""What a column holds: nothing that is known, numbers, words or codes, neither, or not the same at all sites."""

_LARGEST = float(np.finfo(np.float32).max)

_EXACT = 2**53
"""From here on whole numbers share a float64: those of identifiers would be put together."""

_FAR = 2.0**10
"""As many spreads from 0 a float32 has 14 of its 24 bits left for what differs."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of one or more sites; `Column()` adds to any.

    `count`: values that are there and told of; `missing`: null, NaN or not finite; `num_withheld`: sites that keep
    theirs back. `moments`: of numbers, one feature, without those of sites that keep them back. `values`: how often
    each value is there, None where it has too many, or has bins; `others`: how many are told as none of these. `bins`:
    how many values lie in each bin of the agreed range, those below it first and those above it last; None where there
    is none.
    """

    kind: str = ""
    count: int = 0
    missing: int = 0
    num_withheld: int = 0
    moments: Moments = field(default_factory=Moments)
    values: Mapping[str, int] | None = None
    others: int = 0
    bins: tuple[int, ...] | None = None

    def __add__(self, other: Column) -> Column:
        beside = (self.missing + other.missing, self.num_withheld + other.num_withheld)
        if not self.count or not other.count:
            told = self if self.count else other
            kinds = {self.kind, other.kind} - {""}
            kind = told.kind if told.count else (kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "")
            return replace(told, kind=kind, missing=beside[0], num_withheld=beside[1])
        count = self.count + other.count
        if self.kind != other.kind:
            return Column("mixed", count, *beside)
        return Column(
            *(self.kind, count, *beside, self.moments + other.moments),
            *(_added(self.values, other.values), self.others + other.others),
            None if self.bins is None or other.bins is None else tuple(map(add, self.bins, other.bins)),
        )

    def as_json(self, span: Sequence[float] | None) -> dict[str, Any]:
        """Write it for a file; `span`: the range that its bins divide. Quartiles are as near as a bin is wide."""
        found: dict[str, Any] = {"kind": self.kind or "unknown", "count": self.count, "missing": self.missing}
        if self.num_withheld:
            found["num_withheld"] = self.num_withheld
        if self.moments.count:
            found |= {name: float(one[0]) for name, one in zip(("mean", "std"), self._mean_and_std(), strict=True)}
            found |= {"mean_of": self.moments.count} if self.moments.count < self.count else {}
        if self.values is not None and self.count:
            found |= {"values": dict(sorted(self.values.items(), key=lambda one: (-one[1], one[0])))}
            found |= {"others": self.others} if self.others else {}
        if self.bins is not None and span is not None:
            edges = _edges(span, len(self.bins) - 2)
            found["histogram"] = {"edges": edges.tolist(), "counts": list(self.bins)}
            found["quartiles"] = [_quantile(edges, self.bins, share) for share in (0.25, 0.5, 0.75)]
        return found

    def _mean_and_std(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give mean and population standard deviation, which is 0 where all values are one."""
        mean, std = self.moments.mean_and_std()
        is_constant = self.moments.count * self.moments.squares[0] == self.moments.sums[0] ** 2
        return mean, np.zeros(1) if is_constant else std


@dataclass(frozen=True, slots=True)
class TableStatistics:
    """The columns of one or more sites, and their rows; `TableStatistics()` adds to any."""

    num_rows: int = 0
    columns: Mapping[str, Column] = field(default_factory=dict)

    def __add__(self, other: TableStatistics) -> TableStatistics:
        names = dict.fromkeys((*self.columns, *other.columns))
        columns = {name: self.columns.get(name, Column()) + other.columns.get(name, Column()) for name in names}
        return TableStatistics(self.num_rows + other.num_rows, columns)

    @classmethod
    def total(cls, found: Sequence[TableStatistics]) -> TableStatistics:
        """Add up many, two by two: none is copied once for each that comes after it."""
        while len(found) > 1:
            found = [sum(found[place + 1 : place + 2], start=found[place]) for place in range(0, len(found), 2)]
        return found[0] if found else cls()

    def beside_training(self, num_train: int, min_count: int) -> TableStatistics:
        """Keep back columns of which fewer than `min_count` values may be those of no training record: the moments of
        these are told, too, and from both, or from counts by value or bin, would follow those of the few.

        Which rows are trained on, and how many of their gaps are filled, with a value that may be known, the table does
        not say: of `count` values, at least `count - num_train` are others', and none where all rows are trained on.
        """
        if min_count < 2 or self.num_rows == num_train:
            return self
        columns = {
            name: _told(one, min_count, one.count - num_train) if one.kind in ("number", "category") else one
            for name, one in self.columns.items()
        }
        return replace(self, columns=columns)

    def check(self, wanted: Statistics) -> None:
        """Errors: DataError for a column that nobody has asked for, or bins that nobody has agreed to."""
        for name, column in self.columns.items():
            if wanted.columns is not None and name not in wanted.columns:
                raise DataError(f"a column {name!r}, for which nobody has asked")
            agreed = wanted.bins + 2 if name in wanted.ranges else 0
            if column.bins is not None and len(column.bins) != agreed:
                raise DataError(
                    f"column {name!r} has {len(column.bins)} bins with those at its ends, agreed are {agreed}"
                )

    def as_json(self, ranges: Mapping[str, Sequence[float]]) -> dict[str, Any]:
        """Write them for a file."""
        columns = {name: column.as_json(ranges.get(name)) for name, column in self.columns.items()}
        return {"num_rows": self.num_rows, "columns": columns}


def statistics_of(table: Table, wanted: Statistics) -> TableStatistics:
    """Count a site's table, so that no number stands for fewer than `wanted.min_count` records.

    Columns that are wanted and not there are left out: others may have them. Errors: DataError for a name twice.
    """
    names = table.column_names
    doubles = sorted(name for name, many in Counter(names).items() if many > 1)
    if doubles:
        raise DataError(f"the table has several columns {', '.join(map(repr, doubles))}; each needs a name of its own")
    chosen = [name for name in names if wanted.columns is None or name in wanted.columns]
    return TableStatistics(table.num_rows, {name: _column(table[name], name, wanted) for name in chosen})


def as_table(data: SiteData) -> Table:
    """Make a table of a site's data, training and test, as a task gives them: the features of a `TensorDataset` by
    number, where its first tensor is a matrix, and `label`, where the last has one number for each record.
    """
    import pyarrow as pa
    import torch
    from torch.utils.data import TensorDataset

    parts = [data.train, data.test]
    tensors = [part.tensors for part in parts if isinstance(part, TensorDataset)]
    if len(tensors) < len(parts) or len({len(one) for one in tensors}) > 1:
        return pa.table({"record": pa.nulls(sum(len(part) for part in parts))})  # type: ignore[arg-type, misc]
    columns: dict[str, NDArray[Any]] = {}
    whole = [
        torch.cat(pair).detach().cpu() for pair in zip(*tensors, strict=True) if len({one.dim() for one in pair}) < 2
    ]
    features, labels = whole[0], whole[-1]
    if features.dim() == 2 and not features.is_complex():
        columns = {f"feature_{number}": values.numpy() for number, values in enumerate(features.double().T)}
    if len(whole) > 1 and labels.dim() == 1 and not labels.is_complex():
        columns["label"] = (labels.double() if labels.is_floating_point() else labels).numpy()
    return pa.table(columns or {"record": pa.nulls(len(features))})


def _column(values: Any, name: str, wanted: Statistics) -> Column:
    """Count one column. Errors: DataError for text that is none."""
    from pyarrow import compute, types

    kind = values.type
    if types.is_run_end_encoded(kind):
        values, kind = compute.run_end_decode(values), kind.value_type
    if types.is_dictionary(kind) and not types.is_nested(kind.value_type):
        values, kind = values.cast(kind.value_type), kind.value_type
    is_bit = types.is_boolean(kind)
    if is_bit or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        values = values.cast("uint8") if is_bit else values
        return _numbers(values.cast("float64", safe=False).to_numpy(zero_copy_only=False), name, wanted)
    if types.is_string(kind) or types.is_large_string(kind):
        try:
            return _words(values.drop_null(), values.null_count, wanted)
        except UnicodeDecodeError as error:
            raise DataError(f"column {name!r} holds text that is not UTF-8; write it anew in that encoding") from error
    there = len(values) - values.null_count
    return _told(Column("" if types.is_null(kind) else "other", there, values.null_count), wanted.min_count)


def _numbers(values: NDArray[np.float64], name: str, wanted: Statistics) -> Column:
    """Count numbers (n,)."""
    with np.errstate(invalid="ignore"):
        there = values[np.abs(values) <= _LARGEST]
    counted, least = Column("number", len(there), len(values) - len(there)), wanted.min_count
    if len(there) < least:
        return _told(counted, least)
    distinct, counts = np.unique(there, return_counts=True)
    unknown, has_bins = there, name in wanted.ranges
    if has_bins:
        bins, unknown = _bins(there, _edges(wanted.ranges[name], wanted.bins), least)
        counted = replace(counted, bins=bins)
    elif len(distinct) <= wanted.max_values and not np.mod(distinct, 1).any() and np.abs(distinct).max() < _EXACT:
        by_value = {str(int(value)): int(count) for value, count in zip(distinct, counts, strict=True)}
        told, others = disclosure.pooled(by_value, len(there), least, wanted.max_values)
        counted = replace(counted, values=told, others=others)
        unknown = there[~np.isin(there, list(map(float, told)))]
    tells_few = disclosure.tells_few(distinct, counts, least, wanted.max_values, wanted.bins if has_bins else 0)
    if tells_few or disclosure.tells_one(unknown, least):
        return counted
    return replace(counted, moments=_moments(distinct, counts, least))


def _bins(values: NDArray[np.float64], edges: NDArray[np.float64], least: int) -> tuple[tuple[int, ...], Any]:
    """Count values (n,) by bin, as they may be told, and give how far each is from where it is told to be, (n,)."""
    places = np.where(values == edges[-1], len(edges) - 1, np.searchsorted(edges, values, side="right"))
    bins, where = disclosure.together(np.bincount(places, minlength=len(edges) + 1).tolist(), least)
    middles = np.concatenate([edges[:1], (edges[:-1] + edges[1:]) / 2, edges[-1:]])
    return bins, values - middles[np.array(where)[places]]


def _moments(distinct: NDArray[np.float64], counts: NDArray[np.int64], least: int) -> Moments:
    """Sum up numbers, each of the `distinct` ones as often as it is there, as float32; those far from 0 for their
    spread, as times are, by what is above the smallest. None where few are given more finely than most.
    """
    low, high = float(distinct[0]), float(distinct[-1])
    pivot = 0.0 if max(-low, high) <= _FAR * (high - low) else float(np.float32(low))
    alike = disclosure.alike(distinct - pivot, counts, least)
    return Moments() if alike is None else Moments.of(np.repeat(alike, counts)[:, None]).moved(pivot)


def _words(words: Any, missing: int, wanted: Statistics) -> Column:
    """Count words, an array of them; those that are rare, or long, are told as others."""
    import pyarrow as pa

    counted = Column("category", len(words), missing)
    if len(words) < wanted.min_count:
        return _told(counted, wanted.min_count)
    found, counts = words.value_counts().flatten()
    frequent = pa.array(counts.to_numpy() >= wanted.min_count)  # most may be there once
    by_word = dict(zip(found.filter(frequent).to_pylist(), counts.filter(frequent).to_pylist(), strict=True))
    values, others = disclosure.pooled(by_word, len(words), wanted.min_count, wanted.max_values)
    return replace(counted, values=values, others=others)


def _told(counted: Column, least: int, number: int | None = None) -> Column:
    """Keep a column's values back where they, or `number` of them, are too few."""
    if counted.count and (counted.count if number is None else number) < least:
        return Column(counted.kind, 0, counted.missing, 1)
    return counted


def _edges(span: Sequence[float], bins: int) -> NDArray[np.float64]:
    """Divide a range into bins: the ends of these, (bins + 1,)."""
    low, high = span
    return np.linspace(low, high, bins + 1)


def _quantile(edges: NDArray[np.float64], bins: Sequence[int], share: float) -> float | None:
    """Give the value below which a share of all lies, as if values lay evenly in their bin; None beyond the range."""
    total, before = sum(bins), 0
    for place, count in enumerate(bins):
        if count and before + count >= share * total:
            if place in (0, len(bins) - 1):
                return None
            low, high = edges[place - 1], edges[place]
            return float(low + (high - low) * (share * total - before) / count)
        before += count
    return None


def _added(one: Mapping[str, int] | None, other: Mapping[str, int] | None) -> dict[str, int] | None:
    """Add counts by value; None where one of them has too many."""
    if one is None or other is None:
        return None
    return {value: one.get(value, 0) + other.get(value, 0) for value in (*one, *(v for v in other if v not in one))}
