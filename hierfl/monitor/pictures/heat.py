"""Every model on every site's data, as a heat map: rows are models, columns where they were measured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from hierfl.monitor.cross_site import Matrix
from hierfl.monitor.cross_site import short as apart
from hierfl.monitor.pictures.style import GREY, INK, SIZE, figure, heading, short, width_in
from hierfl.monitor.words import finite, metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["heat"]

_MOST_NUMBERS = 16
"""Beyond so many rows or columns cells have colours only."""

_MOST_NAMES = 3 * _MOST_NUMBERS
_MOST_SLANTED = 22
"""Names of more columns stand upright, for slanted ones would touch."""


def heat(matrix: Matrix) -> Figure:
    """Draw the table that `Matrix.shown` chooses; undefined cells stay white. Errors: ValueError without any model."""
    name, table = matrix.shown()
    if not table:
        raise ValueError("no model was measured")
    rows, columns = list(table), matrix.columns
    values = np.array([[_number(table[row][column]) for column in columns] for row in rows])
    falls = matrix.lower_is_better(name)
    names = {path: short(name) for path, name in apart(list(dict.fromkeys((*columns, *rows)))).items()}
    beside, under = ([names[path] if len(paths) <= _MOST_NAMES else "" for path in paths] for paths in (rows, columns))
    angle = 30 if len(columns) <= _MOST_SLANTED else 90
    left, low = (max(map(width_in, told)) for told in (beside, under))
    left, low = max(2.4, left + 0.25), max(1.0, low * math.sin(math.radians(angle)) + 0.4)
    tall = min(12.0, 1.6 + low + 0.34 * len(rows))
    made = figure(12, tall)
    axes = made.add_axes((left / 12, low / tall, 0.9 - left / 12, (tall - low - 1.1) / tall))
    drawn = axes.imshow(values, aspect="auto", cmap="viridis_r" if falls else "viridis")
    few = len(rows) <= _MOST_NUMBERS and len(columns) <= _MOST_NUMBERS
    middle = (np.nanmin(values) + np.nanmax(values)) / 2 if np.isfinite(values).any() else 0.0
    for (row, column), value in np.ndenumerate(values) if few else ():
        dark = np.isfinite(value) and ((value > middle) == falls)
        axes.text(column, row, metric(float(value)), ha="center", va="center", size=SIZE, color="w" if dark else INK)
    side = "right" if angle < 90 else "center"
    axes.set_xticks(range(len(columns)), under, rotation=angle, ha=side, size=SIZE)
    axes.set_yticks(range(len(rows)), beside, size=SIZE)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)
    axes.tick_params(length=0, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = made.colorbar(drawn, cax=made.add_axes((0.92, low / tall, 0.015, (tall - low - 1.1) / tall)))
    bar.ax.tick_params(labelsize=SIZE, labelcolor=GREY, length=0)
    bar.outline.set_visible(False)
    heading(made, "Every model on every site's data", f"{matrix.legend()}; after round {matrix.rounds}")
    return made


def _number(value: object) -> float:
    number = finite(value)
    return float("nan") if number is None else number
