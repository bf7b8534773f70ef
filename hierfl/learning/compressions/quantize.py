"""QSGD: each element becomes one of a few levels (Alistarh et al. 2017, "QSGD: Communication-Efficient SGD via Gradient
Quantization and Encoding", Section 3.1), in buckets that are scaled by their largest magnitude, as in its experiments.

With b bits there are s = 2^(b-1) - 1 levels above zero. In a bucket of v with m = max |v_i|, l <= s |v_i| / m < l + 1:

    Q(v_i) = m * sgn(v_i) * xi_i / s,   xi_i = l + 1 with probability s |v_i| / m - l, else l

so that the mean of Q(v) is v. Without `stochastic` xi_i is the nearest level, and half goes to even.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import ConfigError
from hierfl.learning.compression import Change, Code

__all__ = ["Quantize"]

BITS = (2, 4, 8)


@dataclass(frozen=True)
class Quantize:
    """A few bits for each element, and one scale for each bucket."""

    bits: int = 8
    """Bits of an element: 2, 4 or 8."""
    bucket: int = 512
    """Elements that share a scale; the fewer, the finer, and the more scales are sent."""
    stochastic: bool = True
    """Round at random, without a bias; false rounds to the nearest level."""
    error_feedback: bool = False
    """Add what rounding left out to the site's next change; with `stochastic: false` only, which has a bias."""

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ConfigError(f"bits is {self.bits}; one of {', '.join(map(str, BITS))}")
        if self.bucket < 1:
            raise ConfigError(f"bucket is {self.bucket}; at least 1")
        if self.stochastic and self.error_feedback:
            raise ConfigError("error_feedback is for rounding to the nearest: with it, stochastic must be false")

    @property
    def levels(self) -> int:
        """Give s, the levels above zero."""
        return (1 << (self.bits - 1)) - 1

    def compress(self, change: NDArray[Any], random: np.random.Generator) -> Code:
        """Give `codes`, several to a byte, and `units`, what one level is worth in each bucket."""
        rows = _in_buckets(change, self.bucket)
        units = np.abs(rows).max(axis=1, initial=0) / change.dtype.type(self.levels)
        ratios = rows / np.where(units > 0, units, 1)[:, None]
        if self.stochastic:
            low = np.floor(ratios)
            low += random.random(ratios.shape, np.float32) < ratios - low
            ratios = low
        codes = np.clip(np.rint(ratios), -self.levels, self.levels) + self.levels
        return {"codes": _packed(codes.astype(np.uint8).ravel()[: change.size], self.bits), "units": units}

    def restore(self, code: Mapping[str, NDArray[Any]], size: int, dtype: np.dtype[Any]) -> Change:
        """Multiply each level by its bucket's unit."""
        codes = _unpacked(code["codes"], self.bits)[:size]
        rows = _in_buckets(codes.astype(dtype) - dtype.type(self.levels), self.bucket)
        return (rows * code["units"][:, None]).ravel()[:size], None

    def num_bytes(self, size: int, item_bytes: int) -> int:
        """Count the codes and the scales."""
        return -(-size * self.bits // 8) + -(-size // self.bucket) * item_bytes


def _in_buckets(vector: NDArray[Any], bucket: int) -> NDArray[Any]:
    """Lay a vector out in rows of one bucket, the last one filled up with zeros."""
    rows = np.zeros((-(-vector.size // bucket), bucket), vector.dtype)
    rows.ravel()[: vector.size] = vector
    return rows


def _packed(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Put several codes into each byte, the first one lowest."""
    each = 8 // bits
    columns = _in_buckets(codes, each)
    packed = np.zeros(len(columns), np.uint8)
    for place in range(each):
        packed |= columns[:, place] << np.uint8(place * bits)
    return packed


def _unpacked(packed: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Take the codes out of the bytes again."""
    each, mask = 8 // bits, np.uint8((1 << bits) - 1)
    columns = np.empty((packed.size, each), np.uint8)
    for place in range(each):
        columns[:, place] = (packed >> np.uint8(place * bits)) & mask
    return columns.ravel()
