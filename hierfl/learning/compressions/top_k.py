"""Top-k: only the elements of the largest magnitude are sent (Stich et al. 2018, "Sparsified SGD with Memory"), and
what was left out is added to the next change (error feedback; Karimireddy et al. 2019, "Error Feedback Fixes SignSGD
and Other Gradient Compression Schemes", Algorithm 1).

    p = change + e      send C(p), the k largest of p      e <- p - C(p)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import ConfigError
from hierfl.learning.compression import Change, Code

__all__ = ["TopK"]


@dataclass(frozen=True)
class TopK:
    """A fraction of the elements, each with its place: eight bytes an element."""

    fraction: float = 0.01
    """Elements that are sent, of all: above 0, at most 1; at least one is."""
    error_feedback: bool = True
    """Add what was left out to the site's next change; without it what is small is never learned."""

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"fraction is {self.fraction}; above 0, at most 1")

    def compress(self, change: NDArray[Any], random: np.random.Generator) -> Code:
        """Give `places` and `values` of the largest; of equal ones the first, and none that are zero."""
        number = self._number(change.size)
        sizes = np.abs(change)
        least = np.partition(sizes, change.size - number)[change.size - number] if number else 0
        chosen = sizes > least
        short = number - int(np.count_nonzero(chosen))
        if least > 0:
            chosen[np.flatnonzero(sizes == least)[:short]] = True
        places = np.flatnonzero(chosen)
        return {"places": places.astype(np.uint32), "values": change[places]}

    def restore(self, code: Mapping[str, NDArray[Any]], size: int, dtype: np.dtype[Any]) -> Change:
        """Give the values and their places."""
        return code["values"], code["places"]

    def num_bytes(self, size: int, item_bytes: int) -> int:
        """Count places and values."""
        return self._number(size) * (4 + item_bytes)

    def _number(self, size: int) -> int:
        return min(size, math.ceil(self.fraction * size))
