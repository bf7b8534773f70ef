"""A task whose sites fail now and then: the trainings at which each does are counted in this process."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from hierfl.learning.task import Prediction, SiteData

__all__ = ["TRAININGS", "StumblingTask"]

TRAININGS: Counter[int] = Counter()


@dataclass(frozen=True)
class StumblingTask:
    """Two classes, four features. A site fails at every `odd`-th of its trainings, of one step each; at none with 0."""

    def model(self) -> nn.Module:
        return nn.Linear(4, 2)

    def data(self, site: str, number: int, odd: int = 0, patients: int = 8) -> SiteData:
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(patients, 4, generator=generator)
        y = (x[:, 0] > 0).long()
        own = torch.tensor([[number, odd]]).expand(patients, 2)
        return SiteData(TensorDataset(x, y, own), TensorDataset(x, y, own))

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, y, own = batch
        if model.training:
            number, odd = own[0].tolist()
            TRAININGS[number] += 1
            if odd and TRAININGS[number] % odd == 0:
                raise ValueError("a power cut")
        return cross_entropy(model(x), y)

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Prediction:
        return Prediction(scores=torch.softmax(model(batch[0]), 1)[:, 1], labels=batch[1])
