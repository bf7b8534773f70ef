"""Checks of attacks' fields."""

from __future__ import annotations

import math

from hierfl.errors import ConfigError

__all__ = ["above_zero"]


def above_zero(name: str, value: float) -> None:
    """Refuse a field that is no finite number above 0, by name. Errors: ConfigError."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} is {value}; a number above 0")
