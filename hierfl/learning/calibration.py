"""How far predicted probabilities can be believed: the reliability curve, in bins that add over the tree.

For two classes the probability of class 1 is held against how often class 1 is true; for more than two, that of the
predicted class against how often the prediction is right (Guo et al. 2017, On Calibration of Modern Neural Networks).
The expected calibration error is sum_b n_b / n * |share_b - mean_b| over bins of equal width, where share_b is how
often it came true among the n_b samples of bin b and mean_b their mean probability (Naeini et al. 2015). It is 0 where
of the samples with probability p a share p comes true; with few samples it is above 0 by chance alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.fixed import FRACTION_BITS, quantised

__all__ = ["NUM_BINS", "Reliability"]

NUM_BINS = 10
"""Bins of equal width over [0, 1]: few enough that a hospital's hundred test samples say something in each."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """What was predicted and what came true, per bin; each a tuple of `NUM_BINS` integers.

    `counts`: samples; `hits`: those of them where it came true; `sums`: their probabilities, in units of 2^-40.
    """

    counts: tuple[int, ...]
    hits: tuple[int, ...]
    sums: tuple[int, ...]

    @classmethod
    def of(cls, probabilities: NDArray[np.float64], classes: NDArray[np.int64]) -> Reliability:
        """Count n predictions. `probabilities`: (n, C) within [0, 1]; `classes`: the true ones, (n,)."""
        if probabilities.shape[1] == 2:
            said, true = probabilities[:, 1], classes == 1
        else:
            predicted = probabilities.argmax(axis=1)
            said, true = probabilities[np.arange(len(classes)), predicted], classes == predicted
        places = np.minimum((said * NUM_BINS).astype(np.int64), NUM_BINS - 1)
        sums = np.bincount(places, weights=said, minlength=NUM_BINS)
        return cls(
            tuple(np.bincount(places, minlength=NUM_BINS).tolist()),
            tuple(np.bincount(places[true], minlength=NUM_BINS).tolist()),
            tuple(quantised(value) for value in sums.tolist()),
        )

    @classmethod
    def total(cls, parts: Iterable[Reliability]) -> Reliability | None:
        """Add any number of curves at once; None for none."""
        found = list(parts)
        if not found:
            return None
        return cls(
            *(
                tuple(map(sum, zip(*(getattr(part, name) for part in found), strict=True)))
                for name in ("counts", "hits", "sums")
            )
        )

    def rows(self) -> list[list[float]]:
        """Give [samples, how many of them came true, mean probability] of every bin that has samples, rising."""
        return [
            [count, hits, total / (count << FRACTION_BITS)]
            for count, hits, total in zip(self.counts, self.hits, self.sums, strict=True)
            if count
        ]

    def error(self) -> float:
        """Return the expected calibration error, from 0 to 1, of at least one sample; rounded once."""
        gaps = sum(abs((hits << FRACTION_BITS) - total) for hits, total in zip(self.hits, self.sums, strict=True))
        return gaps / (sum(self.counts) << FRACTION_BITS)
