"""Real numbers as integers in units of 2^-40, so that their sums have the same bits in any order."""

from __future__ import annotations

from fractions import Fraction

__all__ = ["FRACTION_BITS", "quantised"]

FRACTION_BITS = 40


def quantised(value: float) -> int:
    """Round a finite float64 to units of 2^-40, half to even."""
    return round(Fraction(value) * (1 << FRACTION_BITS))
