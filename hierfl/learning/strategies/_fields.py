"""Checks of strategies' fields."""

from __future__ import annotations

from hierfl.errors import ConfigError

__all__ = ["between"]


def between(name: str, value: float, low: float, high: float = float("inf"), *, open_low: bool = True) -> None:
    """Refuse a field outside its range, by name. Errors: ConfigError."""
    if not ((value > low if open_low else value >= low) and value < high):
        above = "above" if open_low else "at least"
        below = "" if high == float("inf") else f" and below {high:g}"
        raise ConfigError(f"{name} is {value}; {above} {low:g}{below}")
