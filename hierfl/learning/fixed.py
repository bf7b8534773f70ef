"""Sums with the same bits in any order: of real numbers as integers in units of 2^-40, and of products of counts."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

__all__ = ["FRACTION_BITS", "dot", "quantised"]

FRACTION_BITS = 40


def quantised(value: float) -> int:
    """Round a finite float64 to units of 2^-40, half to even."""
    return round(Fraction(value) * (1 << FRACTION_BITS))


def dot(left: NDArray[np.int64], right: NDArray[np.int64]) -> int:
    """Return sum(left * right) of counts, (n,) each, exactly; in Python's integers where 64 bits might not do."""
    if int(left.sum()) * int(right.max(initial=0)) < 2**63:
        return int(left @ right)
    return sum(int(a) * int(b) for a, b in zip(left, right, strict=True))
