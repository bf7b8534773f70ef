"""Inner-product manipulation: all attackers send the honest sites' mean with its sign turned, so that the aggregate's
inner product with it falls, below 0 if it can (Xie et al. 2019, "Fall of Empires: Breaking Byzantine-tolerant SGD by
Inner Product Manipulation").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hierfl.learning.attacks._fields import above_zero

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from hierfl.learning.local import Vector

__all__ = ["InnerProduct"]


@dataclass(frozen=True)
class InnerProduct:
    """Sends -`epsilon` times the mean of the honest changes."""

    knows_honest: ClassVar[bool] = True

    epsilon: float = 0.5
    """How long, above 0: a small one passes rules that look at distances, a large one moves a mean."""

    def __post_init__(self) -> None:
        above_zero("epsilon", self.epsilon)

    def poison(self, data: Dataset[Any]) -> Dataset[Any]:
        """Train on its own data as they are."""
        return data

    def change(self, own: Vector, honest: Vector, num_bad: int) -> Vector:
        """Turn the honest mean round."""
        sent: Vector = (-self.epsilon * honest.mean(axis=0, dtype=np.float64)).astype(own.dtype)
        return sent
