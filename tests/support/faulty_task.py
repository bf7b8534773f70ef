"""A task whose sites can be told, by files in a folder, to kill their worker, to fail, or to wait.

A site is one letter; each of its samples carries that letter's number, so that `loss` knows whose step it takes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from hierfl.learning.task import Prediction, SiteData


@dataclass(frozen=True)
class FaultyTask:
    """Two classes, four features; `folder` holds the orders and what was noted; a step takes at least `takes_s`."""

    folder: str
    takes_s: float = 0.0

    def model(self) -> nn.Module:
        self._obey("model")
        return nn.Linear(4, 2)

    def data(self, site: str, patients: int = 32) -> SiteData:
        generator = torch.Generator().manual_seed(ord(site))
        x = torch.randn(patients, 4, generator=generator)
        y = (x[:, 0] - x[:, 1] > 0).long()
        whose = torch.full((patients,), ord(site))
        half = patients // 2
        return SiteData(
            TensorDataset(x[:half], y[:half], whose[:half]), TensorDataset(x[half:], y[half:], whose[half:])
        )

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, y, whose = batch
        if model.training:
            time.sleep(self.takes_s)
            self._obey(chr(int(whose[0])))
        return cross_entropy(model(x), y)

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Prediction:
        x, y, _ = batch
        return Prediction(scores=torch.softmax(model(x), 1)[:, 1], labels=y)

    def _obey(self, who: str) -> None:
        """Note that this step began, then do what the folder says.

        `kill-a` and `oom-a` hold how many times; `hold-a` says to wait while it is there, from the step after so many
        on; `fail-a` holds which steps fail, counted from 1, and where it is empty all do.
        """
        folder = Path(self.folder)
        with (folder / f"steps-{who}").open("a") as notes:
            notes.write(f"{os.getpid()}\n")
        steps = len((folder / f"steps-{who}").read_text().splitlines())
        order = folder / f"kill-{who}"
        left = int(order.read_text()) if order.exists() else 0
        if left > 0:
            order.write_text(str(left - 1))
            os.kill(os.getpid(), signal.SIGKILL)
        short = folder / f"oom-{who}"
        left = int(short.read_text()) if short.exists() else 0
        if left > 0:
            short.write_text(str(left - 1))
            raise torch.OutOfMemoryError(f"site {who} was told to need more memory than there is")
        order = folder / f"fail-{who}"
        if order.exists() and str(steps) in (order.read_text().split() or [str(steps)]):
            raise ValueError(f"site {who} was told to fail")
        hold = folder / f"hold-{who}"
        with contextlib.suppress(FileNotFoundError):  # it may go between two looks
            while steps > int(hold.read_text()):
                time.sleep(0.02)
