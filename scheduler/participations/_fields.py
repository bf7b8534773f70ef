"""Checks of the policies' fields."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence

__all__ = ["above", "at_least", "fraction", "one_of"]


def fraction(name: str, value: float) -> None:
    """Refuse what is no fraction above 0, at most 1. Errors: ValueError."""
    if not 0.0 < value <= 1.0:
        raise ValueError(f"{name} is {value}; a fraction above 0, at most 1")


def above(name: str, value: float | None, low: float) -> None:
    """Refuse what is not a finite number above `low`; None passes. Errors: ValueError."""
    if value is not None and not (value > low and math.isfinite(value)):
        raise ValueError(f"{name} is {value}; a number above {low:g}")


def at_least(name: str, value: int | None, low: int) -> None:
    """Refuse what is below `low`; None passes. Errors: ValueError."""
    if value is not None and value < low:
        raise ValueError(f"{name} is {value}; at least {low}")


def one_of(name: str, value: str, words: Sequence[str]) -> None:
    """Refuse what is none of the words. Errors: ValueError."""
    if value not in words:
        near = difflib.get_close_matches(value, words, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"{name} is {value!r} ({hint}allowed: {', '.join(words)})")
