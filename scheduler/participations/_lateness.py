"""What an update is worth that comes late: weights stay integers, so that sums stay exact."""

from __future__ import annotations

import math

from scheduler.participation import Admission

__all__ = ["DISCOUNTS", "admit_within", "discounted", "never"]

DISCOUNTS = ("sqrt", "linear", "none")
"""A late update's part of its weight, s rounds late: 1 / sqrt(1 + s), 1 / (1 + s), or all of it."""


def discounted(weight: int, staleness: int, discount: str) -> int:
    """Give the integer next to the discounted weight, at least 1; in integers alone, the same on every machine."""
    if discount == "none":
        return weight
    if discount == "linear":
        return max(1, (2 * weight + 1 + staleness) // (2 * (1 + staleness)))
    return max(1, (math.isqrt(4 * weight * weight // (1 + staleness)) + 1) // 2)


def admit_within(weight: int, staleness: int, bound: int, discount: str) -> Admission:
    """Admit an update that is at most `bound` rounds late, discounted."""
    late = f"late by {_rounds(staleness)}"
    if staleness > bound:
        return Admission(0, f"{late}, and at most {_rounds(bound)} count")
    counted = discounted(weight, staleness, discount)
    return Admission(counted, f"{late}, weight {100 * counted / weight:.0f}% of {weight}")


def never(staleness: int) -> Admission:
    """Refuse whatever is late."""
    return Admission(0, f"late by {_rounds(staleness)}, and late updates do not count here")


def _rounds(number: int) -> str:
    return f"{number} round" if number == 1 else f"{number} rounds"
