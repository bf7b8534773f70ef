"""One bit for each element: its sign, and for each bucket one magnitude for either sign (Seide et al. 2014, "1-Bit
Stochastic Gradient Descent and its Application to Data-Parallel Distributed Training of Speech DNNs", Section 3).

Elements from zero up are sent as the mean of those in the bucket, the others as the mean of theirs; what that leaves
out is added to the next change: without error feedback the scheme fails, which is the paper's finding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import ConfigError
from hierfl.learning.compression import Change, Code

__all__ = ["OneBit"]


@dataclass(frozen=True)
class OneBit:
    """A thirty-second of the bytes of float32, and two numbers for each bucket."""

    bucket: int = 512
    """Elements that share their two magnitudes; the paper takes the columns of a weight matrix."""
    error_feedback: bool = True
    """Add what was left out to the site's next change."""

    def __post_init__(self) -> None:
        if self.bucket < 1:
            raise ConfigError(f"bucket is {self.bucket}; at least 1")

    def compress(self, change: NDArray[Any], random: np.random.Generator) -> Code:
        """Give `signs`, eight to a byte, and each bucket's `low` and `high`."""
        is_high = change >= 0
        starts = np.arange(0, change.size, self.bucket)
        number = np.diff(np.append(starts, change.size))
        highs = np.add.reduceat(is_high, starts, dtype=np.int64) if change.size else np.zeros(0, np.int64)
        return {
            "signs": np.packbits(is_high),
            "low": _means(np.where(is_high, 0, change), starts, number - highs),
            "high": _means(np.where(is_high, change, 0), starts, highs),
        }

    def restore(self, code: Mapping[str, NDArray[Any]], size: int, dtype: np.dtype[Any]) -> Change:
        """Give each element its bucket's magnitude by its sign."""
        is_high = np.unpackbits(code["signs"], count=size).view(np.bool_)
        low, high = (np.repeat(code[name], self.bucket)[:size] for name in ("low", "high"))
        return np.where(is_high, high, low), None

    def num_bytes(self, size: int, item_bytes: int) -> int:
        """Count the signs and the magnitudes."""
        return -(-size // 8) + 2 * -(-size // self.bucket) * item_bytes


def _means(values: NDArray[Any], starts: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[Any]:
    """Give each bucket's mean over so many of its values, the others being zero; 0 over none. Sums in float64."""
    if not values.size:
        return np.zeros(0, values.dtype)
    sums = np.add.reduceat(values.astype(np.float64), starts)
    return (sums / np.maximum(number, 1)).astype(values.dtype)
