"""Label flip: the attacker trains on wrong labels, class c as class C - 1 - c (as in Fang et al. 2020, "Local Model
Poisoning Attacks to Byzantine-Robust Federated Learning"), and sends honestly what it learned of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hierfl.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from hierfl.learning.local import Vector

__all__ = ["LabelFlip"]


@dataclass(frozen=True)
class LabelFlip:
    """Trains on class C - 1 - c in place of c; for `TensorDataset`s whose last tensor holds the classes."""

    knows_honest: ClassVar[bool] = False

    num_classes: int
    """C: how many classes there are, 2 or more."""

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ConfigError(f"num_classes is {self.num_classes}; at least 2")

    def poison(self, data: Dataset[Any]) -> Dataset[Any]:
        """Turn the labels round. Errors: DataError for data of another kind, or labels that are none of the classes."""
        import torch
        from torch.utils.data import TensorDataset

        *features, labels = data.tensors if isinstance(data, TensorDataset) else (None, None)
        if labels is None or labels.dtype not in (torch.int64, torch.int32, torch.uint8):
            raise DataError("attack label_flip takes a TensorDataset whose last tensor holds classes as whole numbers")
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise DataError(
                f"attack label_flip: labels go from {int(labels.min())} to {int(labels.max())}, and num_classes"
                f" {self.num_classes} means 0 to {self.num_classes - 1}"
            )
        return TensorDataset(*features, self.num_classes - 1 - labels)

    def change(self, own: Vector, honest: Vector, num_bad: int) -> Vector:
        """Send what it learned."""
        return own
