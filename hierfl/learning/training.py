"""Local training at one site: a loop over batches, deterministic for a seed.

The site's part of FedAvg (McMahan et al. 2017, Algorithm 1, ClientUpdate): `local_epochs` passes or `local_steps`
optimizer steps over batches of `batch_size`, from the model that was loaded.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import Dataset

from hierfl.config.schema import Training
from hierfl.errors import UpdateRefused
from hierfl.learning.batches import Feed, drawn
from hierfl.learning.contract import checked_loss
from hierfl.learning.fitting import advance, fitted
from hierfl.learning.flat import FlatModel
from hierfl.learning.noise import Stream
from hierfl.learning.optimizers import make
from hierfl.learning.privacy import Mechanism
from hierfl.learning.task import Fits, Task, offers

__all__ = ["LocalResult", "Private", "train", "warm_up"]


@dataclass(frozen=True, slots=True)
class LocalResult:
    """What one local training was: optimizer steps, and the mean loss over the samples that it saw."""

    num_steps: int
    loss: float | None


@dataclass(frozen=True, slots=True)
class Private:
    """A privacy mechanism for one training, and the random numbers that are this training's alone."""

    mechanism: Mechanism
    random: Stream


def train(
    model: FlatModel,
    task: Task,
    dataset: Dataset[Any],
    training: Training,
    seed: int,
    *,
    pull: Callable[[], None] | None = None,
    num_steps: int | None = None,
    private: Private | None = None,
) -> LocalResult:
    """Train the model in place. `pull` adds to each step's gradient; `num_steps` stands in for the training's own.

    Under `private` a step follows the mechanism's gradient, and the loss, which no noise covers, is not told. A task
    that has `fit` trains by that.

    Errors: UpdateRefused if the loss is not finite; SiteFailed if it is no loss; ConfigError for an optimizer's wrong
    option; whatever the task raises.
    """
    num_steps = training.num_steps(len(dataset)) if num_steps is None else num_steps  # type: ignore[arg-type]
    if num_steps == 0:
        return LocalResult(0, None)
    model.train_mode()
    model.seed(seed)
    if offers(task, Fits):
        assert private is None, "what a loop of its own does to a record is not known"
        num_steps, told = fitted(model, task, dataset, training, seed, num_steps, pull)
        return LocalResult(num_steps, _finite(told))
    with model.optimizer(training) as optimizer:
        if private is not None:
            gradients = private.mechanism.gradients(model, task, dataset, training, num_steps, private.random)
            for _ in gradients:
                if pull is not None:
                    pull()
                optimizer.step()
            return LocalResult(num_steps, None)
        feed = Feed(task, model.device, training.loader_workers, seed)
        batches = feed.batches(dataset, drawn(task, dataset, training.batch_size, num_steps, seed))
        mean = _steps(model, task, batches, training, optimizer, pull)
    return LocalResult(num_steps, _finite(mean))


def _finite(mean: float | None) -> float | None:
    """Give a mean loss, where there is one. Errors: UpdateRefused if it is not finite."""
    if mean is not None and not math.isfinite(mean):
        raise UpdateRefused(
            f"the training loss is {mean}; lower training.lr, set training.clip_norm, or look at the site's data"
        )
    return mean


def _steps(
    model: FlatModel,
    task: Task,
    batches: Iterator[tuple[Any, int]],
    training: Training,
    optimizer: Optimizer,
    pull: Callable[[], None] | None,
) -> float:
    """Take a step for each batch; return the mean loss over the samples."""
    device = model.device
    parameters = optimizer.param_groups[0]["params"]
    scaler = torch.amp.GradScaler(device.type) if training.precision == "float16" and device.type == "cuda" else None
    total: float | Tensor = 0.0
    seen = 0
    for batch, size in batches:
        for parameter in parameters:
            parameter.grad = None
        with _precision(training, device):
            loss = checked_loss(task, model.module, batch, size)
        (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        advance(optimizer, parameters, training.clip_norm, pull, scaler)
        if scaler is not None:
            scaler.update()
        told = loss.item() if device.type == "cpu" else loss.detach().float()  # a GPU is not waited for
        total = total + told * size
        seen += size
    assert seen, "no batch to train on"
    return float(total) / seen


def warm_up(device: torch.device) -> None:
    """Take one step on nothing: what torch imports and sets up at the first is a second or two, more on a GPU."""
    parameter = torch.nn.Parameter(torch.zeros(1, device=device))
    optimizer = make(Training(), [parameter])
    parameter.square().sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _precision(training: Training, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Give the mixed-precision context; float32, and anything on a CPU, has none."""
    if training.precision == "float32" or device.type != "cuda":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, training.precision))
