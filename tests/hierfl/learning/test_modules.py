"""Modules of unusual make: they train as in torch's own loop, or are refused by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from hierfl.config.schema import Evaluation, Training
from hierfl.learning import training
from hierfl.learning.flat import FlatModel
from hierfl.learning.measuring import measure
from hierfl.learning.task import Prediction

DATA = TensorDataset(torch.randn(12, 3, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 2)


class Bound:
    """A task whose model is given to it."""

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(module(batch[0])[:, 0], batch[1].float())

    def predict(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Prediction:
        return Prediction(scores=module(batch[0])[:, 0].sigmoid(), labels=batch[1])


class Places(nn.Module):
    """Makes what stands for places at its first batch, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        found = KEPT.setdefault(x.shape[1], torch.arange(3.0) + 1.0)
        made: Tensor = self.layer(x * (found * self.scale))
        return made


KEPT: dict[int, Tensor] = {}


def test_what_a_module_keeps_of_measuring_can_be_trained_with() -> None:
    bound = FlatModel(Places())
    try:
        measure(bound.module, Bound(), DATA, Evaluation(), bound.device)  # type: ignore[arg-type]
        training.train(bound, Bound(), DATA, Training(local_steps=1), 0)  # type: ignore[arg-type]
    finally:
        KEPT.clear()
