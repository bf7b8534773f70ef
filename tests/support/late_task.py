"""A task whose sites take their time: some to train, all to be measured, one until the model is measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from hierfl.learning.task import Prediction, SiteData

__all__ = ["LateTask"]

FAILS, GATED = -1.0, -2.0


@dataclass(frozen=True)
class LateTask:
    """Two classes, four features; a site's data say how long each of its steps waits, or that they fail.

    `gate`: a file; while it is there the steps of gated sites wait, and a measurement takes it away.
    """

    measure_s: float = 0.0
    gate: str = ""

    def model(self) -> nn.Module:
        return nn.Linear(4, 2)

    def data(
        self, site: str, step_s: float = 0.0, fails: bool = False, gated: bool = False, patients: int = 8
    ) -> SiteData:
        generator = torch.Generator().manual_seed(sum(site.encode()))
        x = torch.randn(patients, 4, generator=generator)
        y = (x[:, 0] > 0).long()
        wait = torch.full((patients,), FAILS if fails else GATED if gated else step_s)
        return SiteData(TensorDataset(x, y, wait), TensorDataset(x[:4], y[:4], wait[:4]))

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, y, wait = batch
        if model.training:
            if wait[0] == FAILS:
                raise ValueError("a power cut")
            while wait[0] == GATED and Path(self.gate).exists():
                time.sleep(0.01)
            time.sleep(max(0.0, float(wait[0])))
        return cross_entropy(model(x), y)

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor, Any]) -> Prediction:
        if self.gate:
            Path(self.gate).unlink(missing_ok=True)
        time.sleep(self.measure_s)
        x, y, _ = batch
        return Prediction(scores=torch.softmax(model(x), 1)[:, 1], labels=y)
