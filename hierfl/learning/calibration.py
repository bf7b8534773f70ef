"""How far predicted probabilities can be believed: the reliability curve, made of how many had each score.

A class' probability is held against how often that class is true; with more than two classes so is each, one against
the rest, as for AUC. The expected calibration error is sum_b n_b / n * |share_b - mean_b| over bins of equal width,
where share_b is how often it came true among the n_b samples of bin b and mean_b their mean probability (Naeini et al.
2015); of more than two classes the mean over them (Kull et al. 2019). It is 0 where of the samples with probability p a
share p comes true; with few samples it is above 0 by chance alone.

Nothing is told for it: it follows from the scores' counts that AUC is made of, which add over the tree. Of a histogram
each score is taken for the middle of its bin, so every mean, and the error, is at most half such a bin beside that of
the scores themselves: with 2048 of them 0.002 next to 1/2, and ever less towards 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NUM_BINS", "Reliability"]

NUM_BINS = 10
"""Bins of equal width over [0, 1]: few enough that a hospital's hundred test samples say something in each."""

_EDGES = np.arange(1, NUM_BINS) / NUM_BINS


@dataclass(frozen=True, slots=True)
class Reliability:
    """What was predicted and what came true, per bin; each a tuple of `NUM_BINS`.

    `counts`: samples; `hits`: those of them where it came true; `sums`: their probabilities.
    """

    counts: tuple[int, ...]
    hits: tuple[int, ...]
    sums: tuple[float, ...]

    @classmethod
    def of(cls, said: NDArray[np.float64], positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> Reliability:
        """Count k distinct probabilities, (k,), rising, by how many of whom it came true, and did not, had each."""
        places, both = np.searchsorted(_EDGES, said, side="right"), positives + negatives

        def binned(of_each: NDArray[Any]) -> NDArray[Any]:
            found = np.zeros(NUM_BINS, of_each.dtype)
            np.add.at(found, places, of_each)
            return found

        return cls(*(tuple(binned(one).tolist()) for one in (both, positives, said * both)))

    @classmethod
    def total(cls, parts: Iterable[Reliability]) -> Reliability:
        """Put the curves of one node's classes together, of at least one."""
        found = list(parts)
        return cls(
            *(
                tuple(map(sum, zip(*(getattr(part, name) for part in found), strict=True)))
                for name in ("counts", "hits", "sums")
            )
        )

    def rows(self) -> list[list[float]]:
        """Give [samples, how many of them came true, mean probability] of every bin that has samples, rising."""
        return [
            [count, hits, total / count]
            for count, hits, total in zip(self.counts, self.hits, self.sums, strict=True)
            if count
        ]

    def error(self) -> float:
        """Return the expected calibration error, from 0 to 1, of at least one sample."""
        gaps = sum(abs(hits - total) for hits, total in zip(self.hits, self.sums, strict=True))
        return gaps / sum(self.counts)
