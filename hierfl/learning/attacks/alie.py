"""A little is enough: all attackers send the honest sites' mean less z standard deviations, in every coordinate
(Baruch et al. 2019, "A Little Is Enough: Circumventing Defenses For Distributed Learning", Algorithm 3).

z is as large as may be while the attackers still have a majority on their side, with the honest sites that lie further
out: of n sites, m of them bad, they need s = floor(n / 2 + 1) - m more, and z is where the normal distribution has
(n - m - s) / (n - m) below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hierfl.learning.attacks._fields import above_zero

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from hierfl.learning.local import Vector

__all__ = ["Alie", "paper_z"]


@dataclass(frozen=True)
class Alie:
    """Sends mean - z * deviation of the honest changes."""

    knows_honest: ClassVar[bool] = True

    z: float | None = None
    """Deviations away from the mean, above 0; null: the paper's, by the numbers of honest and bad sites."""

    def __post_init__(self) -> None:
        if self.z is not None:
            above_zero("z", self.z)

    def poison(self, data: Dataset[Any]) -> Dataset[Any]:
        """Train on its own data as they are."""
        return data

    def change(self, own: Vector, honest: Vector, num_bad: int) -> Vector:
        """Stay near enough to be taken for honest."""
        rows = honest.astype(np.float64)
        z = self.z if self.z is not None else paper_z(len(rows), num_bad)
        sent: Vector = (rows.mean(axis=0) - z * rows.std(axis=0)).astype(own.dtype)
        return sent


def paper_z(num_honest: int, num_bad: int) -> float:
    """Give the paper's z; 0 where it is below, since the attackers then have no majority to win."""
    needed = (num_honest + num_bad) // 2 + 1 - num_bad
    below = (num_honest - needed) / num_honest
    return max(0.0, NormalDist().inv_cdf(min(below, 1.0 - 1e-9))) if below > 0.0 else 0.0
