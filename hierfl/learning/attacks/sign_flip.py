"""Sign flip: the attacker sends the opposite of what it learned, made larger (as in Li et al. 2019, "RSA:
Byzantine-Robust Stochastic Aggregation Methods for Distributed Learning from Heterogeneous Datasets").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hierfl.learning.attacks._fields import above_zero

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from hierfl.learning.local import Vector

__all__ = ["SignFlip"]


@dataclass(frozen=True)
class SignFlip:
    """Sends -`factor` times its own change."""

    knows_honest: ClassVar[bool] = False

    factor: float = 10.0
    """How many times longer than its own change, above 0."""

    def __post_init__(self) -> None:
        above_zero("factor", self.factor)

    def poison(self, data: Dataset[Any]) -> Dataset[Any]:
        """Train on its own data as they are."""
        return data

    def change(self, own: Vector, honest: Vector, num_bad: int) -> Vector:
        """Turn its own change round."""
        turned: Vector = own * own.dtype.type(-self.factor)
        return turned
