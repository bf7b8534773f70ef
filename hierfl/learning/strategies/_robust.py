"""Rules that hold out against bad members: each looks at all changes and lets none move the model far.

Every rule has the same frame. `num_byzantine` is f, the members that may send anything at all, together and knowing
what the others send (Blanchard et al. 2017); a rule states how many members n that takes. `mixing` replaces each change
by the mean of its n - f nearest, its own included, before the rule (nearest-neighbour mixing, Allouah et al. 2023,
Algorithm 2), which is what makes such rules work where honest members differ, too.

Sums are taken in float64, members in the order of their names: the same bits for any order of arrival.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import UpdateRefused
from hierfl.learning.strategies._fields import between
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.learning.strategy import State, Strategy, Vector

__all__ = ["Robust", "blocks", "distances"]

BLOCK = 65536
"""Parameters at a time, so that n rows of them stay in a core's cache."""


@dataclass(frozen=True)
class Robust(FedAvg):
    """A rule over all members' changes; one with `num_byzantine` bad members is worth what it promises."""

    linear: ClassVar[bool] = False
    stays_among: ClassVar[bool] = True
    """Whether what comes out lies among the members' changes of this round."""

    num_byzantine: int = 1
    """f: members that may send anything, from 0."""
    mixing: bool = False
    """Replace each change by the mean of its n - f nearest before the rule: for members whose data differ."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between("num_byzantine", self.num_byzantine, 0, open_low=False)

    def inherited(self) -> Strategy:
        """An inner hub that names no strategy averages: it has no defence of its own."""
        return FedAvg(weights=self.weights)

    def least(self) -> int:
        """Give the fewest members with which the rule keeps its promise: n > 2 f."""
        return 2 * self.num_byzantine + 1

    @property
    def tolerates(self) -> int:
        """Count the members that may send anything at all: f."""
        return self.num_byzantine

    def shortage(self, num_members: int) -> str:
        """Say why so many members are too few; empty if they are enough."""
        least = self.least()
        if num_members >= least:
            return ""
        most = max(
            (f for f in range(self.num_byzantine) if replace(self, num_byzantine=f).least() <= num_members),
            default=None,
        )
        way_out = f"num_byzantine: {most} at most" if most is not None else "another strategy"
        return f"num_byzantine {self.num_byzantine} takes at least {least} members, there are {num_members}; {way_out}"

    def promise(self, num_members: int) -> str:
        """Say what the rule holds out against."""
        return f"holds out against any {self.num_byzantine} of {num_members} members"

    def reduce(self, deltas: Vector, weights: NDArray[np.float64], state: State) -> Vector:
        """Make one change (P,) of the members' (n, P). Errors: UpdateRefused if they are too few."""
        short = self.shortage(len(deltas))
        if short:
            raise UpdateRefused(short)
        return self.rule(self._mixed(deltas) if self.mixing else deltas, weights, state)

    def rule(self, deltas: Vector, weights: NDArray[np.float64], state: State) -> Vector:
        """Make one change of the members', mixed already where that is wanted."""
        raise NotImplementedError

    def _mixed(self, deltas: Vector) -> Vector:
        """Replace each change by the mean of the n - f that are nearest to it."""
        nearest = np.argsort(distances(deltas), axis=1, kind="stable")[:, : len(deltas) - self.num_byzantine]
        chosen = np.zeros((len(deltas), len(deltas)))
        np.put_along_axis(chosen, nearest, 1.0 / nearest.shape[1], axis=1)
        mixed = np.empty_like(deltas)
        for cut in blocks(deltas):
            mixed[:, cut] = np.einsum("ij,jp->ip", chosen, deltas[:, cut], dtype=np.float64, casting="same_kind")
        return mixed


def blocks(deltas: Vector) -> list[slice]:
    """Cut the parameters into blocks."""
    return [slice(first, first + BLOCK) for first in range(0, deltas.shape[1], BLOCK)]


def distances(deltas: Vector) -> NDArray[np.float64]:
    """Give the squared Euclidean distances of all pairs of rows, shape (n, n)."""
    n = len(deltas)
    found = np.zeros((n, n))
    for cut in blocks(deltas):
        rows = deltas[:, cut].astype(np.float64)
        for i in range(n):
            found[i, i + 1 :] += np.square(rows[i + 1 :] - rows[i]).sum(axis=1)
    return found + found.T
