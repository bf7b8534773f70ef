"""Every member's sum of one round by itself, for strategies that look at each: one row of floats a member.

A round with n members holds n updates until it closes, not one sum. What is decoded is exact, rows stand in the order
of the members' names, and so nothing depends on who came when.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.ring import Grid, PartialSum, check_part, decode, sum_all
from hierfl.learning.state import Layout
from hierfl.learning.strategy import Vector

__all__ = ["Gathered"]


class Gathered:
    """The members' updates of one open round."""

    def __init__(self, grid: Grid, layout: Layout) -> None:
        self.grid = grid
        self.layout = layout
        self.weight = 0
        self._parts: dict[str, list[PartialSum]] = {}

    def add(self, member: str, part: PartialSum) -> None:
        """Keep a member's sum; a late and a present one of the same member count as one.

        Errors: UpdateRefused if its shape, dtype or weight cannot belong to this round.
        """
        check_part(part, self.grid, self.layout, self.weight)
        self.weight += part.weight
        self._parts.setdefault(member, []).append(part)

    def rows(self) -> tuple[Vector, NDArray[np.float64], NDArray[np.int64]]:
        """Give the members' mean changes (n, P), their weights (n,), which add up to 1, and the mean of all integer
        buffers (Q,), which is the plain weighted one.
        """
        deltas = np.empty((len(self._parts), self.layout.num_floats), self.grid.dtype)
        weights = np.empty(len(self._parts))
        ints = []
        for row, member in enumerate(sorted(self._parts)):
            parts = self._parts[member]
            own = parts[0] if len(parts) == 1 else sum_all(parts, self.grid, self.layout)
            decode(own, self.grid, out=deltas[row])
            weights[row] = own.weight
            ints.append(PartialSum(np.zeros(0, self.grid.integer), own.ints, own.weight))
        counted = PartialSum(ints[0].floats, np.sum([part.ints for part in ints], axis=0), self.weight)
        return deltas, weights / weights.sum(), decode(counted, self.grid)[1]
