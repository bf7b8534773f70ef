"""Federated standardisation: every site scales its features by the federation's mean and standard deviation.

Sites send counts, sums and sums of squares, which add (Chan, Golub & LeVeque 1983 give the parallel form); nobody
sees pooled rows. Features are taken as they are, float32 or float64, and their sums are *exact*: a float32 is an
integer times a power of two, so are its square and all sums, and a float64 is up to three float32 that add up to it.
Hence the result has the same bits for any order, any grouping and any tree, and nothing cancels: a time stamp of 1.6e9
with a spread of 100 gets its true variance, where it comes as float64 (as float32 it is a multiple of 128).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import DataError
from hierfl.learning.task import SiteData, Standardised, Task

if TYPE_CHECKING:
    from torch.utils.data import Dataset

__all__ = ["STANDARDISE", "Moments", "apply", "by_itself", "feature_matrix", "is_federated", "wanted_scale"]

STANDARDISE = ("none", "site", "federated")
"""What a task's `standardise` may be; see `hierfl.learning.task.Standardised`."""

_DIGITS = 24
_SMALLEST = -149 - (_DIGITS - 1)
_LARGEST = int(np.finfo(np.float32).max) << -_SMALLEST
_ROWS = 1 << 20


@dataclass(frozen=True, slots=True)
class Moments:
    """What sites add up: `count` rows; per feature `sums` in units of 2^-172, `squares` in units of 2^-344.

    `Moments()` counts nothing and adds to anything.
    """

    count: int = 0
    sums: tuple[int, ...] = ()
    squares: tuple[int, ...] = ()

    @classmethod
    def of(cls, x: NDArray[Any], *, wide: bool = False) -> Moments:
        """Count a feature matrix of shape (n, d); n may be 0. `wide`: float64 as they are, above 2^-149; else all are
        rounded to float32.

        Raises:
            DataError: NaN, Inf, or beyond float32, naming the columns.
        """
        if x.ndim != 2:
            raise DataError(f"features have shape {x.shape}; standardisation needs (n, d)")
        sums, squares = [0] * x.shape[1], [0] * x.shape[1]
        for start in range(0, len(x), _ROWS):
            block = x[start : start + _ROWS]
            rounded = _as_float32(block)
            for column in range(x.shape[1]):
                rest = block[:, column] if wide and block.dtype == np.float64 else None
                plain, squared = _exact_sums(_parts(rounded[:, column], rest))
                sums[column] += plain
                squares[column] += squared
        return cls(len(x), tuple(sums), tuple(squares))

    def __add__(self, other: Moments) -> Moments:
        if not self.count or not other.count:
            return self if self.count else other
        if len(self.sums) != len(other.sums):
            raise DataError(f"sites differ in their number of features: {len(self.sums)} and {len(other.sums)}")
        return Moments(
            self.count + other.count,
            tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            tuple(a + b for a, b in zip(self.squares, other.squares, strict=True)),
        )

    def moved(self, by: float) -> Moments:
        """Give the moments of the same rows with a number, which a float32 holds, added to each feature; exact."""
        above, below = by.as_integer_ratio()
        step = (above << -_SMALLEST) // below
        pairs = zip(self.sums, self.squares, strict=True)
        return Moments(
            self.count,
            tuple(plain + self.count * step for plain in self.sums),
            tuple(squared + 2 * step * plain + self.count * step * step for plain, squared in pairs),
        )

    @property
    def is_possible(self) -> bool:
        """Whether any `count` numbers have these sums and sums of squares."""
        return all(
            abs(plain) <= self.count * _LARGEST
            and plain * plain <= self.count * squared
            and squared <= self.count * _LARGEST**2
            for plain, squared in zip(self.sums, self.squares, strict=True)
        )

    @property
    def is_constant(self) -> list[bool]:
        """Whether a feature has one value in all rows."""
        pairs = zip(self.sums, self.squares, strict=True)
        return [self.count * squared == plain * plain for plain, squared in pairs]

    @property
    def is_indicator(self) -> list[bool]:
        """Whether a feature is as if its values were 0 and 1."""
        pairs = zip(self.sums, self.squares, strict=True)
        return [squared == plain << -_SMALLEST for plain, squared in pairs]

    def mean_and_std(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and population standard deviation, float64 (d,) each; a constant feature's deviation reads 1.

        Raises:
            DataError: there are no rows.
        """
        if not self.count:
            raise DataError("no training samples to take a mean of; set standardise: none, or give a site some samples")
        pairs = zip(self.sums, self.squares, strict=True)
        means = [total / (self.count << -_SMALLEST) for total in self.sums]
        variances = [
            (self.count * squared - total * total) / (self.count**2 << -2 * _SMALLEST) for total, squared in pairs
        ]
        return np.array(means), np.array([math.sqrt(variance) or 1.0 for variance in variances])


def is_federated(task: Task) -> bool:
    """Say whether a task asks for its features to be scaled by the federation's mean and deviation."""
    return isinstance(task, Standardised) and task.standardise == "federated"


def wanted_scale(task: Task, moments: Moments, where: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Give mean and deviation where a task asks for the federation's. Errors: DataError, naming `where`."""
    if not is_federated(task):
        return None
    try:
        return moments.mean_and_std()
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def feature_matrix(data: SiteData) -> NDArray[Any]:
    """Return the training features of a site, shape (n, d): the first tensor of its `TensorDataset`; (0, 0) of `[]`.

    Raises:
        DataError: the data set is not a `TensorDataset`, or its first tensor has another shape.
    """
    if _is_nothing(data.train):
        return np.empty((0, 0))
    matrix: NDArray[Any] = _tensors(data.train)[0].detach().cpu().numpy()
    return matrix


def apply(data: SiteData, mean: NDArray[np.float64], std: NDArray[np.float64]) -> SiteData:
    """Scale the features of both data sets, (x - mean) / std in float64, rounded once to their own type."""
    return SiteData(train=_scaled(data.train, mean, std), test=_scaled(data.test, mean, std))


def by_itself(data: SiteData) -> SiteData:
    """Scale a site by its own training statistics (a task's `standardise: site`); without training samples, not."""
    own = Moments.of(feature_matrix(data), wide=True)
    return apply(data, *own.mean_and_std()) if own.count else data


def _scaled(dataset: Dataset[Any], mean: NDArray[np.float64], std: NDArray[np.float64]) -> Dataset[Any]:
    """Return a new `TensorDataset` with scaled features; the given one stays as it is."""
    if _is_nothing(dataset):
        return dataset
    import torch
    from torch.utils.data import TensorDataset

    features, *rest = _tensors(dataset)
    if features.shape[1] != len(mean):
        raise DataError(f"features have {features.shape[1]} columns, the federation's have {len(mean)}")
    wide = (features.to(torch.float64) - torch.from_numpy(mean.copy())) / torch.from_numpy(std.copy())
    return TensorDataset(wide.to(features.dtype), *rest)


def _is_nothing(dataset: Dataset[Any]) -> bool:
    """Say whether a data set holds no samples and no tensors either, as `[]`."""
    from torch.utils.data import TensorDataset

    return not isinstance(dataset, TensorDataset) and not len(dataset)  # type: ignore[arg-type]


def _tensors(dataset: Dataset[Any]) -> tuple[Any, ...]:
    """Return the tensors of a `TensorDataset` whose first is a matrix of floats."""
    from torch.utils.data import TensorDataset

    if not isinstance(dataset, TensorDataset):
        raise DataError(
            f"standardise needs data as torch.utils.data.TensorDataset, got {type(dataset).__name__};"
            " set standardise: none and scale in the task"
        )
    features = dataset.tensors[0]
    if features.dim() != 2 or not features.is_floating_point():
        raise DataError(f"standardise needs floats of shape (n, d), got {features.dtype} of {tuple(features.shape)}")
    return dataset.tensors


def _as_float32(block: NDArray[Any]) -> NDArray[np.float32]:
    """Round to float32; refuse what is not finite there."""
    with np.errstate(over="ignore"):
        rounded = block.astype(np.float32)
    bad = ~np.isfinite(rounded) | (np.abs(block) > np.finfo(np.float32).max)
    if bad.any():
        columns = [f"{column} ({int(bad[:, column].sum())} values)" for column in np.flatnonzero(bad.any(axis=0))]
        raise DataError(f"features are NaN, Inf or beyond float32 in column {', '.join(columns)}; fill or drop them")
    return rounded


def _parts(rounded: NDArray[np.float32], whole: NDArray[np.float64] | None) -> list[NDArray[np.float32]]:
    """Give float32 vectors that add up to `whole`, the first of which is what it rounds to; at most three."""
    parts = [rounded]
    rest = None if whole is None else whole - rounded
    while rest is not None and (part := rest.astype(np.float32)).any():
        parts.append(part)
        rest = rest - part
    return parts


def _exact_sums(parts: Sequence[NDArray[np.float32]]) -> tuple[int, int]:
    """Return the sum of x, the sum of its `parts`, in units of 2^-172 and that of x^2 in units of 2^-344, exactly; at
    most 2^20 values.

    A part is m * 2^e with an integer |m| < 2^24. Values of one e are added in float64, which is exact below 2^53;
    products are cut into two halves of 24 bits first.
    """
    split = [_split(part) for part in parts]
    plain = sum(int(part) << place for places, mantissas in split for place, part in _per_place(places, mantissas))
    squared = 0
    for (places, mantissas), (others, factors) in combinations_with_replacement(split, 2):
        products = mantissas * factors
        high = np.floor(products / 2**_DIGITS)
        total = sum(int(part) << place + _DIGITS for place, part in _per_place(places + others, high))
        total += sum(int(part) << place for place, part in _per_place(places + others, products - high * 2**_DIGITS))
        squared += total if mantissas is factors else 2 * total
    return plain, squared


def _split(x: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Give places, from 0 at 2^-172, and mantissas of numbers (n,)."""
    fractions, exponents = np.frexp(x.astype(np.float64))
    mantissas = np.ldexp(fractions, _DIGITS)
    places = exponents.astype(np.int64) - _DIGITS - _SMALLEST
    places[mantissas == 0] = 0
    return places, mantissas


def _per_place(places: NDArray[np.int64], parts: NDArray[np.float64]) -> list[tuple[int, float]]:
    """Add up the parts of each place; both of shape (n,), places from 0."""
    sums = np.bincount(places, weights=parts)
    return [(int(place), float(sums[place])) for place in np.flatnonzero(sums)]
