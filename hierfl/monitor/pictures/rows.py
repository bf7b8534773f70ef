"""Rows of bars over time, drawn quickly however many bars there are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.collections import PolyCollection

from hierfl.monitor.pictures.style import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["IDLE", "by_number", "draw_spans", "title", "unit_of"]

IDLE = "#e9edf0"
_FINEST = 3000
"""Bars closer than one part in so many of the whole are drawn as one: a pixel's width."""


def by_number(name: str) -> list[tuple[int, str]]:
    """Sort worker-10 after worker-9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def title(name: str) -> str:
    """Name a row, of the longest path so that bars have room beside it."""
    return short(name, 48)


def unit_of(whole_s: float) -> tuple[float, str]:
    """Choose the axis' unit: its seconds and its name."""
    return (60.0, "minutes") if whole_s > 600 else (1.0, "seconds")


def draw_spans(
    axes: Axes,
    place: float,
    spans: Sequence[tuple[float, float]],
    hue: str,
    *,
    whole_s: float,
    scale: float,
    half: float = 0.31,
) -> None:
    """Draw bars of one colour, `half` as high to either side, in a row of a picture `whole_s` seconds long."""
    low, high = place - half, place + half
    boxes = [
        [(a / scale, low), (a / scale, high), (b / scale, high), (b / scale, low)]
        for a, b in _joined(spans, whole_s / _FINEST)
    ]
    if boxes:
        axes.add_collection(PolyCollection(boxes, facecolors=hue, edgecolors=hue, linewidths=0.4), autolim=False)


def _joined(spans: Sequence[tuple[float, float]], finest: float) -> list[tuple[float, float]]:
    """Join spans that no pixel would keep apart, so that a long run stays quick to draw."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if joined and start - joined[-1][1] < finest:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined
