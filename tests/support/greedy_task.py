"""A task whose training takes a share of its card's memory, and some time, at every step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hierfl.learning.task import Prediction, SiteData
from hierfl.tasks.synthetic import Synthetic

__all__ = ["GreedyTask"]


@dataclass(frozen=True)
class GreedyTask:
    """`share` of the card's whole memory; two sites at once want twice as much. On a CPU they take none."""

    share: float = 0.6
    step_s: float = 0.05

    @property
    def task(self) -> Synthetic:
        return Synthetic(num_test=8)

    def model(self) -> nn.Module:
        return self.task.model()

    def data(self, site: str) -> SiteData:
        return self.task.data(site)

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        if model.training:
            card = batch[0].device
            taken = self.share * torch.cuda.get_device_properties(card).total_memory if card.type == "cuda" else 0
            held = torch.empty(int(taken), dtype=torch.uint8, device=card)
            time.sleep(self.step_s)
            del held
        return self.task.loss(model, batch)

    def predict(self, model: nn.Module, batch: Any) -> Prediction:
        return self.task.predict(model, batch)
