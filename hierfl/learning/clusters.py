"""How test predictions are spread over patients, in integers that add: what an interval has to know of correlation.

Ten images of one patient are right or wrong together, so that they say less than those of ten patients. What a
cluster-robust variance needs (Rao & Scott 1992) are sums over patients, of whom i has n_i predictions, r_i of them
right: of n_i^2, r_i^2 and r_i n_i. Those over the patients of several sites are sums of the sites' own, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.fixed import dot
from hierfl.learning.own_metrics import MAX_OWN
from hierfl.learning.predictions import classes_of, predicted_of, probabilities_of

__all__ = ["Clusters", "Right", "Size", "Spread"]

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Size:
    """How predictions are spread: over so many patients; `squares`: the sum of n_i^2."""

    num_patients: int = 0
    squares: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.num_patients + other.num_patients, self.squares + other.squares)


@dataclass(frozen=True, slots=True)
class Right:
    """How those that are right are spread; `squares`: the sum of r_i^2; `products`: of r_i n_i."""

    squares: int = 0
    products: int = 0

    def __add__(self, other: Right) -> Right:
        return Right(self.squares + other.squares, self.products + other.products)


@dataclass(frozen=True, slots=True)
class Clusters:
    """How a node's predictions are spread over patients.

    `sizes`: of all; for two classes then of positives and of negatives; for up to 32 labels whose scores are told of
    the positives and the negatives of each in turn. `right`: of the same, in that order, for classes; of labels none.
    """

    sizes: tuple[Size, ...] = ()
    right: tuple[Right, ...] = ()

    @classmethod
    def alone(cls, numbers: Sequence[int], right: Sequence[int]) -> Clusters:
        """Give them for predictions that are each of another patient, so many in all and so many right."""
        return cls(tuple(Size(n, n) for n in numbers), tuple(Right(n, n) for n in right))

    @classmethod
    def total(cls, parts: Iterable[Clusters]) -> Clusters:
        """Add any number of them, at least one, of predictions of the same kind and of other patients each."""
        sizes, right = zip(*((part.sizes, part.right) for part in parts), strict=True)
        return cls(
            tuple(sum(each, Size()) for each in zip(*sizes, strict=True)),
            tuple(sum(each, Right()) for each in zip(*right, strict=True)),
        )

    @property
    def num_patients(self) -> int:
        """Say how many patients have any of the predictions."""
        return self.sizes[0].num_patients


class Spread:
    """Counts a site's predictions by patient, part by part. `num_patients`: patients are 0 to `num_patients` - 1."""

    def __init__(self, num_patients: int) -> None:
        self._num_patients = num_patients
        self._num_groups, self._has_labels = 0, False
        self._counts: Counts = np.zeros((num_patients, 0, 2), np.int64)

    def add(self, owners: Counts, scores: NDArray[Any], labels: NDArray[Any]) -> None:
        """Count n predictions into classes, as `Tally.of` takes them, all finite; `owners`: whose each is, (n,)."""
        probabilities = probabilities_of(scores)
        classes = classes_of(labels.reshape(-1), probabilities)
        is_binary = probabilities.shape[1] == 2
        self._num_groups = 2 if is_binary else 1
        self._put(owners, classes if is_binary else np.zeros_like(classes), predicted_of(probabilities) == classes)

    def add_labels(self, owners: Counts, labels: NDArray[Any], known: NDArray[np.bool_], *, has_curves: bool) -> None:
        """Count L labels of each of n samples, (n, L), where they are `known`; `has_curves`: their scores are told."""
        is_told = has_curves and labels.shape[1] <= MAX_OWN
        self._has_labels, self._num_groups = True, labels.shape[1] if is_told else 0
        rows, places = np.nonzero(known)
        self._put(owners[rows], places if is_told else np.zeros_like(places), labels[known] == 1)

    def clusters(self) -> Clusters:
        """Give what was counted."""
        whole = self._counts.sum(axis=(1, 2))
        if self._has_labels:
            sides = [self._counts[:, label, side] for label in range(self._num_groups) for side in (1, 0)]
            return Clusters((_size(whole), *map(_size, sides)))
        of = [(self._counts[:, :, 1].sum(axis=1), whole)]
        if self._num_groups == 2:
            of += [(self._counts[:, side, 1], self._counts[:, side].sum(axis=1)) for side in (1, 0)]
        right = tuple(Right(dot(right, right), dot(right, numbers)) for right, numbers in of)
        return Clusters(tuple(_size(numbers) for _, numbers in of), right)

    def _put(self, owners: Counts, groups: Counts, flags: NDArray[np.bool_]) -> None:
        """Count by patient, group and flag, (P, G, 2)."""
        shape = self._num_patients, max(self._num_groups, 1), 2
        places = np.ravel_multi_index((owners, groups, flags.astype(np.int64)), shape)
        found = np.bincount(places, minlength=math.prod(shape)).astype(np.int64).reshape(shape)
        self._counts = found if not self._counts.size else self._counts + found


def _size(numbers: Counts) -> Size:
    """Sum up how many predictions each patient has, (P,)."""
    return Size(int(np.count_nonzero(numbers)), dot(numbers, numbers))
