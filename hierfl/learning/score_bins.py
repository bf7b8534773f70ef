"""The bins in which scores are counted: finer towards 0 and 1, so that rare classes keep their AUC.

Where one sample of a thousand is positive, all scores are small, and what tells a model is whether they are 0.0002 or
0.002: bins of equal width would put them into one, and half of all pairs would tie. So half of the bins lie below 1/2,
as many in each octave (from 1/4 to 1/2, from 1/8 to 1/4, ...) of sixteen, evenly within it, the last one down to 0; the
other half mirrors them. Edges are sums of products of short numbers, the same bits on any machine: counts of sites add.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_BINS", "bins_of", "edges", "middles"]

MOST_BINS = 1 << 16

_OCTAVES = 16


@lru_cache(maxsize=4)
def edges(bins: int) -> NDArray[np.float64]:
    """Give the edges of so many bins, at least 2: float64 (bins + 1,), from 0 to 1, read-only."""
    octave, rest = np.divmod(2 * _OCTAVES * np.arange(bins // 2 + 1), bins)
    octave, rest = np.where(octave == _OCTAVES, _OCTAVES - 1, octave), np.where(octave == _OCTAVES, bins, rest)
    top = np.ldexp(1.0, octave - _OCTAVES)
    bottom = np.where(octave == 0, 0.0, top / 2.0)
    lower = bottom + (rest / bins) * (top - bottom)
    found = np.concatenate([lower, 1.0 - lower[::-1][bins % 2 == 0 :]])
    found.flags.writeable = False
    return found


def bins_of(scores: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Place scores in [0, 1] into bins, each with its lower edge, the last with 1, too."""
    return np.minimum(np.searchsorted(edges(bins), scores, side="right") - 1, bins - 1)


def middles(scores: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Give the middle of each score's bin."""
    places, all_edges = bins_of(scores, bins), edges(bins)
    middle: NDArray[np.float64] = (all_edges[places] + all_edges[places + 1]) / 2.0
    return middle
