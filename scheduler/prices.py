"""Prices of work: what a second of each class of jobs is worth on devices that hold several of them at once.

A device that holds a set of jobs does so much work of each class per second. Fractionally, all work is done soonest by
a mix of such sets, and the dual of that linear program (Gilmore and Gomory 1961) puts a price on a second of each
class: at these prices no set is worth more than what a device may earn, those of the best mix are worth exactly that,
and what is worth less holds everybody up. Bounds take the prices of the work as it was (`scheduler.bounds`), the
dispatcher those of the work that is open (`scheduler.worth`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Make", "best_prices"]

Array: TypeAlias = NDArray[np.float64]

MAX_PIVOTS = 1000
RAISE = 1e-6
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
_EPS = 1e-10


@dataclass(frozen=True, slots=True)
class Make:
    """Devices that are equal: how many, and the sets of jobs that one may hold at once.

    `sets`: a row for each, the work of each class that is done in it per second.
    """

    count: int
    sets: Sequence[Sequence[float]]


def best_prices(work: Sequence[float], makes: Sequence[Make]) -> tuple[Array, Array]:
    """Price the classes, of which there is so much work (seconds) each; with it what a device of each make may earn.

    The work at its prices over what all devices earn per second bounds the time that it takes, and no other prices
    give a larger bound.
    """
    values = np.array([row for make in makes for row in make.sets], dtype=float)
    makers = np.repeat(np.arange(len(makes)), [len(make.sets) for make in makes])
    counts = np.array([make.count for make in makes], dtype=float)
    gains = np.concatenate([np.asarray(work, dtype=float), np.zeros(len(makes))])
    budget = np.concatenate([np.zeros(len(work)), counts])
    limits = np.zeros(len(values) + 1)
    limits[-1] = 1.0
    found = _simplex(np.vstack([np.hstack([values, -np.eye(len(makes))[makers]]), budget]), limits, gains)
    prices = found[: len(work)]
    earned = np.zeros(len(makes))
    np.maximum.at(earned, makers, values @ prices)
    return prices, earned


def _simplex(matrix: Array, limits: Array, gains: Array) -> Array:
    """Maximise gains v with matrix v <= limits (all >= 0), v >= 0: the simplex method (Dantzig 1951), condensed.

    Limits of 0 make steps that gain nothing, hundreds of them in a circle at worst, and small pivots on the way. So the
    steps go by limits that are raised a little, each by another amount (Charnes 1952); the v returned is that of the
    limits as they were. Where it stops early v is some prices, which bound too.
    """
    rows, columns = matrix.shape
    raised = limits + RAISE * (1.0 + np.modf(GOLDEN * np.arange(rows))[0])
    table = np.zeros((rows + 1, columns + 2))
    table[:rows, :columns], table[:rows, columns], table[:rows, -1] = matrix, limits, raised
    table[-1, :columns] = -gains / gains.max()
    outside, inside = list(range(columns)), list(range(columns, columns + rows))
    for _ in range(MAX_PIVOTS):
        j = int(np.argmin(table[-1, :columns]))
        leaving = np.flatnonzero(table[:rows, j] > _EPS)
        if table[-1, j] >= -_EPS or not leaving.size:
            break
        i = int(leaving[np.argmin(table[leaving, -1] / table[leaving, j])])
        column = table[:, j].copy()
        table[i] /= column[i]
        line = table[i].copy()
        table -= np.outer(column, line)
        table[i] = line
        table[:, j] = -column / column[i]
        table[i, j] = 1.0 / column[i]
        outside[j], inside[i] = inside[i], outside[j]
    found = np.zeros(columns)
    for row, variable in enumerate(inside):
        if variable < columns:
            found[variable] = max(0.0, table[row, columns])
    return found
