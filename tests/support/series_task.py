"""A task on series of unlike lengths, and a small model of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from hierfl.learning.flat import FlatModel

__all__ = ["Padding", "network", "series"]


class Padding:
    """Pads to the longest of a batch, and takes the mean over what is padded, too."""

    def collate(self, samples: Sequence[Any]) -> Any:
        series, labels = zip(*samples, strict=True)
        return {"x": pad_sequence([*series], batch_first=True), "y": torch.tensor(labels)}

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch["x"]).mean(dim=1), batch["y"])


def series(lengths: Sequence[int] = (4, 9, 4, 2, 9, 6)) -> list[tuple[Tensor, int]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(length, 5, generator=generator), place % 3) for place, length in enumerate(lengths)]


def network() -> FlatModel:
    torch.manual_seed(3)
    return FlatModel(nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)))
