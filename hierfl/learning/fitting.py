"""A task's own training loop at one site, and what it is given for it.

A loop of its own is for what one loss per batch does not say: several optimizers, a step on the gradients of several
batches, a library's trainer. What goes around it stays: the model is loaded before and read after, random numbers are
the site's, and the update is summed as any other.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from hierfl.errors import SiteFailed
from hierfl.learning import optimizers
from hierfl.learning.batches import Feed, drawn

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from hierfl.config.schema import Training
    from hierfl.learning.flat import FlatModel
    from hierfl.learning.task import Task

__all__ = ["LocalTraining", "advance", "fitted"]


def advance(
    optimizer: Optimizer,
    parameters: Iterable[Tensor],
    clip_norm: float | None,
    pull: Callable[[], None] | None,
    scaler: torch.amp.GradScaler | None,
) -> None:
    """Take an optimizer's step on its `parameters`' gradients: with what a strategy adds to them, then clipped."""
    if scaler is not None:
        scaler.unscale_(optimizer)
    if pull is not None:
        pull()
    if clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)


class LocalTraining:
    """One site's training, for the task's `fit`.

    `dataset`: the site's training data. `settings`: its `training` as the YAML has it, with the learning rate of the
    round. `num_steps`: the optimizer steps that these come to. `seed`: this training's own; torch's, NumPy's and
    Python's generators are seeded already. `device`: where the model is.
    """

    def __init__(
        self,
        model: FlatModel,
        task: Task,
        dataset: Dataset[Any],
        settings: Training,
        seed: int,
        num_steps: int,
        pull: Callable[[], None] | None,
    ) -> None:
        self.dataset = dataset
        self.settings = settings
        self.seed = seed
        self.num_steps = num_steps
        self.device = model.device
        self._module = model.module
        self._task = task
        self._pull = pull
        self._taken: Counter[int] = Counter()

    @property
    def num_taken(self) -> int:
        """The steps of the model that were taken by `step`: as many as the parameter has that took the most, so that
        two optimizers, each with a part of the model, take no more than one.
        """
        return max(self._taken.values(), default=0)

    def batches(self) -> Iterator[Any]:
        """Give `num_steps` batches on the device, drawn and collated as hierfl's own loop has them; call it again for
        as many more, which are the same.
        """
        feed = Feed(self._task, self.device, self.settings.loader_workers, self.seed)
        orders = drawn(self._task, self.dataset, self.settings.batch_size, self.num_steps, self.seed)
        for batch, _ in feed.batches(self.dataset, orders):
            yield batch

    def optimizer(self, parameters: Iterable[Any] | None = None) -> Optimizer:
        """Make the optimizer of the YAML: of all parameters that train, or of these, or groups of these with settings
        of their own, {"params": ..., "lr": ...}. Errors: ConfigError for an option that it does not take.
        """
        if parameters is None:
            parameters = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
        return optimizers.make(self.settings, parameters, is_lent=False)

    def step(self, optimizer: Optimizer, scaler: torch.amp.GradScaler | None = None) -> None:
        """Take a step in the place of `optimizer.step()`, of any optimizer: with what the strategy adds to the
        gradients (FedProx, SCAFFOLD ...), clipped to `training.clip_norm`, and counted; then clear these gradients.

        With a `scaler` it is its `step(optimizer)`; its `update()` comes after all optimizers' steps, as ever.
        """
        mine = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        here, models = set(map(id, mine)), list(self._module.parameters())
        others = [(one, one.grad) for one in models if id(one) not in here and one.grad is not None]
        for one, _ in others:
            one.grad = None  # what is added to another optimizer's gradients is added at its own step
        advance(optimizer, mine, self.settings.clip_norm, self._pull, scaler)
        for one, gradient in others:
            one.grad = gradient
        for one in mine:
            one.grad = None
        self._taken.update(here.intersection(map(id, models)))


def fitted(
    model: FlatModel,
    task: Any,
    dataset: Dataset[Any],
    settings: Training,
    seed: int,
    num_steps: int,
    pull: Callable[[], None] | None,
) -> tuple[int, float | None]:
    """Let a task train the model in place; return its steps and its mean loss, None where it tells none.

    Errors: SiteFailed for a loop that leaves out what the strategy adds to each step, or gives no loss; whatever the
    loop raises.
    """
    for parameter in model.module.parameters():
        parameter.grad = None
    local = LocalTraining(model, task, dataset, settings, seed, num_steps, pull)
    with torch.enable_grad(), _without_its_hooks(model.module):  # who turns gradients off does so for itself alone
        given = task.fit(model.module, local)
    model.check_still()
    if pull is not None and not local.num_taken:
        raise SiteFailed(
            "the strategy adds to the gradient of each step, and the task's fit() took none by local.step(optimizer):"
            " let it stand in the place of optimizer.step(), or choose a strategy that adds nothing (fedavg, fedadam)"
        )
    if isinstance(given, Tensor | np.ndarray) and math.prod(given.shape) == 1:
        given = given.item()
    if given is not None and (isinstance(given, bool) or not isinstance(given, Real)):
        raise SiteFailed(f"the task's fit() gave a {type(given).__name__}; needed: its mean loss, a number, or nothing")
    return local.num_taken or num_steps, None if given is None else float(given)


@contextlib.contextmanager
def _without_its_hooks(module: Module) -> Iterator[None]:
    """Take away, when all is done, the hooks that were set on layers and parameters meanwhile: the next site's training
    would have them, too.
    """
    layers = [
        (vars(layer)[name], dict(vars(layer)[name]))
        for layer in module.modules()
        for name in vars(layer)
        if name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called"))
        and isinstance(vars(layer)[name], dict)
    ]
    tensors = [
        (parameter, name, set(getattr(parameter, name) or ()))
        for parameter in module.parameters()
        for name in ("_backward_hooks", "_post_accumulate_grad_hooks")
    ]
    try:
        yield
    finally:
        for hooks, first in layers:
            if hooks.keys() != first.keys():
                hooks.clear()
                hooks.update(first)
        for parameter, name, before in tensors:
            held = getattr(parameter, name) or {}
            for key in held.keys() - before:
                del held[key]
