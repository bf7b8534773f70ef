"""Every model on every site's data, as a heat map: rows are models, columns where they were measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hierfl.monitor.cross_site import Matrix
from hierfl.monitor.cross_site import short as apart
from hierfl.monitor.pictures.style import GREY, INK, SIZE, figure, heading, short
from hierfl.monitor.words import finite, metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["heat"]

_MOST_NUMBERS = 16
"""Beyond so many rows or columns cells have colours only."""


def heat(matrix: Matrix) -> Figure:
    """Draw the table that `Matrix.shown` chooses; undefined cells stay white. Errors: ValueError without any model."""
    name, table = matrix.shown()
    if not table:
        raise ValueError("no model was measured")
    rows, columns = list(table), matrix.columns
    values = np.array([[_number(table[row][column]) for column in columns] for row in rows])
    falls = matrix.lower_is_better(name)
    tall = min(12.0, 2.6 + 0.34 * len(rows))
    made = figure(12, tall)
    axes = made.add_axes((0.2, 1.0 / tall, 0.7, (tall - 2.1) / tall))
    drawn = axes.imshow(values, aspect="auto", cmap="viridis_r" if falls else "viridis")
    few = len(rows) <= _MOST_NUMBERS and len(columns) <= _MOST_NUMBERS
    middle = (np.nanmin(values) + np.nanmax(values)) / 2 if np.isfinite(values).any() else 0.0
    for (row, column), value in np.ndenumerate(values) if few else ():
        dark = np.isfinite(value) and ((value > middle) == falls)
        axes.text(column, row, metric(float(value)), ha="center", va="center", size=SIZE, color="w" if dark else INK)
    names = {path: short(name) for path, name in apart(list(dict.fromkeys((*columns, *rows)))).items()}
    if len(columns) <= 3 * _MOST_NUMBERS:
        axes.set_xticks(range(len(columns)), [names[path] for path in columns], rotation=30, ha="right", size=SIZE)
    else:
        axes.set_xticks([])
    told = [names[path] if len(rows) <= 3 * _MOST_NUMBERS else "" for path in rows]
    axes.set_yticks(range(len(rows)), told, size=SIZE)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)
    axes.tick_params(length=0, labelcolor=INK)
    for side in axes.spines.values():
        side.set_visible(False)
    bar = made.colorbar(drawn, cax=made.add_axes((0.92, 1.0 / tall, 0.015, (tall - 2.1) / tall)))
    bar.ax.tick_params(labelsize=SIZE, labelcolor=GREY, length=0)
    bar.outline.set_visible(False)
    heading(made, "Every model on every site's data", f"{matrix.legend()}; after round {matrix.rounds}")
    return made


def _number(value: object) -> float:
    number = finite(value)
    return float("nan") if number is None else number
