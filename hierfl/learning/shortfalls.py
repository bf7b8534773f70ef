"""What a site keeps of an update that has not counted whole: as much as its hub has counted.

SCAFFOLD and FedDyn hold where the hub's vector is the mean of what the sites keep (Karimireddy et al. 2020, Algorithm
1; Acar et al. 2021, Algorithm 1). A site that reports too late, or whose update is discounted, is told so with its next
order. It then goes on from b + f (a - b): what it kept before that training, b, and after it, a, by the fraction f of
the update's weight that has counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hierfl.learning.local import State, Vector
from tiers.messages import Shortfall

__all__ = ["BEFORE", "Settling"]

BEFORE = "before."
"""What a site kept before its last training goes by this, the training's round, and its own name."""


@dataclass(frozen=True, slots=True)
class Settling:
    """What a site is told as it trains for a round of its hub: which of its updates did not count whole."""

    round_number: int
    shortfalls: Sequence[Shortfall]

    def settled(self, kept: State) -> dict[str, Vector]:
        """Give what a site keeps, once it agrees with what has counted; without what was before."""
        found = {name: vector for name, vector in kept.items() if not name.startswith(BEFORE)}
        for key, before in kept.items():
            if key.startswith(BEFORE):
                number, _, name = key.removeprefix(BEFORE).partition(".")
                found[name] = self._counted(int(number), before, found[name])
        return found

    def remembering(self, before: State, after: State) -> dict[str, Vector]:
        """Give what a site keeps from this training on, with what it kept before: nothing is zeros."""
        return {
            **after,
            **{
                f"{BEFORE}{self.round_number}.{name}": before.get(name, np.zeros_like(vector))
                for name, vector in after.items()
            },
        }

    def _counted(self, round_number: int, before: Vector, after: Vector) -> Vector:
        for one in reversed(self.shortfalls):
            if one.round_number == round_number or (not one.counted and one.round_number < round_number):
                part: Vector = before + after.dtype.type(one.counted / one.weight) * (after - before)
                return part
        return after
