"""How far from each other the members' models are, at hubs where each member keeps its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hierfl.monitor.words import UNDEFINED, finite, plural

__all__ = ["apart_in", "consensus", "distance"]

_MOST_NAMED = 3


def distance(value: object) -> str:
    """Write a distance with three digits ("0.0194"), a dash where there is none."""
    number = finite(value)
    return UNDEFINED if number is None else f"{number:.3g}"


def apart_in(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Give the hubs' distances among their metrics, by path."""
    found = {path: finite(figures.get("consensus_distance")) for path, figures in nodes.items()}
    return {path: value for path, value in found.items() if value is not None}


def consensus(apart: Mapping[str, float]) -> str:
    """Say how far apart the members of hubs are, the furthest first; empty where no hub's members keep models."""
    order = sorted(apart, key=lambda path: (-apart[path], path))
    said = ", ".join(f"{path} {distance(apart[path])}" for path in order[:_MOST_NAMED])
    rest = f" and {plural(len(order) - _MOST_NAMED, 'hub')} with less" if len(order) > _MOST_NAMED else ""
    return f"consensus distance {said}{rest}" if order else ""
