"""Gradients of single records, or patients, clipped and added up exactly, for mechanisms that bound what each can do.

A record's gradient is that of the task's loss on a batch of it alone, so that no other record is in it, whatever the
model does within a batch, or the task as it makes one; a patient's is that of a batch of all of his or her records. By
`torch.func` many are taken at once; one after another where a model does not allow it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import Module
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.data import Dataset

from hierfl.errors import HierflError, SiteFailed
from hierfl.learning.batches import Feed
from hierfl.learning.contract import checked_loss
from hierfl.learning.flat import FlatModel
from hierfl.learning.noise import Stream
from hierfl.learning.task import Collates, Task, offers

__all__ = ["UNITS", "PerRecord", "warm_up"]

UNITS = 2.0**30
"""Units of the grid in the clipping bound: sums of 2^22 records, in double precision, are exact."""

MOST_RECORDS = 2**22

SLACK = 1e-6
"""By so much a gradient is clipped below the bound: more than double precision can err in its norm, below 10^9 weights.
"""

_CHANGED = (
    "the model itself has changed its {!r} in training, which no noise covers; with `privacy` nothing may follow the"
    " records but parameters, by their gradients"
)


class PerRecord:
    """One site's records under one model. `bound`: C; `at_once`: gradients that are held at once, None: no torch.func;
    `patients`: the places of each one's records, where a patient takes the place of a record; None: each is by itself.

    Vectors are (P,), of the parameters that train, one after another; sums are integers, in units of C / 2^30, as
    float64, which is exact.
    """

    def __init__(
        self,
        model: FlatModel,
        task: Task,
        data: Dataset[Any],
        bound: float,
        at_once: int | None = None,
        patients: Sequence[NDArray[np.int64]] | None = None,
    ) -> None:
        self._data, self._feed = data, Feed(task, model.device)
        self._patients = None if patients is None else list(map(torch.from_numpy, patients))
        self._sizes = None if patients is None else torch.tensor([len(places) for places in patients])
        self._size = len(data) if patients is None else len(patients)  # type: ignore[arg-type]
        if self._size > MOST_RECORDS:
            raise SiteFailed(f"{self._size} of them are more than the {MOST_RECORDS} whose gradients add exactly")
        self._model = model
        self._task = task
        self._bound = bound
        self._at_once = at_once
        self._parameters = {name: one for name, one in model.module.named_parameters() if one.requires_grad}
        self._still = {
            name: (one, one.detach().clone()) for name, one in _held(model.module) if name not in self._parameters
        }

    def drawn(self, rate: float, random: Stream) -> Tensor:
        """Draw each record (patient) with probability `rate`, by itself; all at 1. Give their numbers, rising."""
        if rate >= 1.0:
            return torch.arange(self._size)
        return torch.from_numpy(np.flatnonzero(random.uniforms(self._size) < rate))

    def clipped_sum(self, chosen: Tensor) -> NDArray[np.float64]:
        """Add the clipped gradients of records (patients); of none it is 0.

        One that is not finite counts as 0: what it does to the sum has to stay bounded, too.
        """
        total: Tensor | None = None
        before = {name: one.detach().clone() for name, one in self._parameters.items()} if len(chosen) else {}
        if self._sizes is not None:  # alike many records at once; a sum of integers is the same in any order
            chosen = chosen[torch.argsort(self._sizes[chosen], stable=True)]
        for part in torch.split(chosen, self._at_once or 1) if len(chosen) else ():
            rows = self._rows(part)
            added = self._on_grid(rows).sum(dim=0)
            total = added if total is None else total.add_(added)
        for name, held in before.items():
            if not _same_bits(self._parameters[name], held):
                raise SiteFailed(_CHANGED.format(name))
        if total is None:
            return np.zeros(sum(one.numel() for one in self._parameters.values()))
        summed: NDArray[np.float64] = total.cpu().numpy()
        return summed

    def rounded(self, noise: NDArray[np.float64]) -> NDArray[np.float64]:
        """Round noise, in units of C, to the grid: as if it had been added to the sum before."""
        units: NDArray[np.float64] = np.floor(noise * UNITS + 0.5)
        return units

    def give(self, total: NDArray[np.float64], number: int) -> None:
        """Put a sum over a number of records into the parameters' gradients."""
        mean, first = torch.from_numpy(total * (self._bound / UNITS / number)), 0
        for parameter in self._parameters.values():
            part = mean[first : first + parameter.numel()]
            parameter.grad = part.view(parameter.shape).to(parameter)
            first += parameter.numel()

    def check_untouched(self) -> None:
        """Errors: SiteFailed, naming a tensor that the model has changed by itself: it may tell of the records."""
        now = dict(_held(self._model.module))
        for name in self._still.keys() | (now.keys() - self._parameters.keys()):
            held = self._still.get(name)
            # One that was put in another's place may be of a `vmap` that is over: nothing is to be read of it.
            if held is None or now.get(name) is not held[0] or not _same_bits(*held):
                raise SiteFailed(_CHANGED.format(name))
        for name, parameter in self._parameters.items():
            if now.get(name) is not parameter:
                raise SiteFailed(_CHANGED.format(name))

    def _on_grid(self, rows: Tensor) -> Tensor:
        """Clip gradients, shape (n, P), to the bound and cut them towards 0 to the grid."""
        rows = rows.to(torch.float64)
        norms = rows.square().sum(dim=1).sqrt()
        factors = UNITS * (1.0 - SLACK) / torch.clamp(norms, min=self._bound)
        factors = torch.where(torch.isfinite(norms), factors, 0.0)
        return torch.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0).mul_(factors[:, None]).trunc_()

    def _rows(self, chosen: Tensor) -> Tensor:
        """Take the gradients of records (patients), shape (n, P)."""
        collates = offers(self._task, Collates)  # torch's own puts records side by side, as they are
        if self._patients is None and self._at_once is not None and not collates:
            return self._of_one_size(1, chosen)
        places = list(torch.split(chosen, 1) if self._patients is None else map(self._patients.__getitem__, chosen))
        if self._at_once is None:
            (one,) = places
            return _in_rows(self._one(self._feed.taken(self._data, one), len(one)), 1)
        alike: dict[Any, list[Any]] = {}
        if not collates:
            for one in places:
                alike.setdefault(len(one), []).append(one)
            return torch.cat([self._of_one_size(size, torch.cat(many)) for size, many in alike.items()])
        for one in places:
            batch = self._feed.taken(self._data, one)
            alike.setdefault((len(one), _form(batch)), []).append(batch)
        found = [
            _in_rows(self._many(lambda many=many: tree_map(lambda *one: torch.stack(one), *many), size), len(many))  # type: ignore[misc]
            for (size, _), many in alike.items()
        ]
        return torch.cat(found)

    def _of_one_size(self, size: int, places: Tensor) -> Tensor:
        """Take the gradients of records, or of patients with so many of them each, one after the other, (n, P)."""
        whole, number = self._feed.taken(self._data, places), len(places) // size
        return _in_rows(self._many(lambda: tree_map(lambda one: one.unflatten(0, (number, size)), whole), size), number)

    def _one(self, batch: Any, size: int) -> list[Tensor]:
        """Take the gradient of a batch of one record, or patient; 0 for parameters that are not in its loss."""
        loss = checked_loss(self._task, self._model.module, batch, size)
        parameters = list(self._parameters.values())
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        made = [torch.zeros_like(one) if its is None else its for one, its in zip(parameters, found, strict=True)]
        return [one.to_dense() if one.is_sparse else one for one in made]

    def _many(self, batches: Callable[[], Any], size: int) -> list[Tensor]:
        """Take gradients at once. `batches` gives a batch of each record, or patient, alone, one beside the other."""
        whole = _Loss(self._task, self._model.module, size)

        def loss(parameters: dict[str, Tensor], alone: Any) -> Any:
            return functional_call(whole, {f"module.{name}": one for name, one in parameters.items()}, (alone,))

        held = {name: one.detach() for name, one in self._parameters.items()}
        try:
            found = vmap(grad(loss), in_dims=(None, 0), randomness="different")(held, batches())
        except (HierflError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise SiteFailed(
                "the model's gradients cannot be taken for many records at once; privacy: {kind: dp_sgd, method: loop}"
                f" takes one after another:\n{type(error).__name__}: {error}"
            ) from error
        return list(found.values())


def _in_rows(found: list[Tensor], number: int) -> Tensor:
    """Put the parameters' gradients of a number of records side by side, shape (n, P)."""
    return torch.cat([one.reshape(number, -1) for one in found], dim=1)


def _form(batch: Any) -> Any:
    """Say how a batch is made, and of what shapes: those of one form can lie side by side."""
    leaves, made = tree_flatten(batch)
    return str(made), tuple((tuple(one.shape), one.dtype) for one in leaves if isinstance(one, Tensor))


def _held(module: Module) -> Iterator[tuple[str, Tensor]]:
    """Name all tensors that a module keeps."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Compare tensors of one shape, NaN with NaN, too."""
    both = (part.detach().contiguous().reshape(-1).view(torch.uint8) for part in (one, other))
    return torch.equal(*both)


@cache
def warm_up() -> None:
    """Take gradients at once of nothing, once in a process: what torch imports at the first is seconds."""
    vmap(grad(lambda weight, x: weight * x), in_dims=(None, 0), randomness="different")(torch.zeros(()), torch.zeros(1))


class _Loss(Module):
    """A task's loss as a module, which `functional_call` can give other parameters."""

    def __init__(self, task: Task, module: Module, size: int) -> None:
        super().__init__()
        self.module = module
        self._task, self._size = task, size

    def forward(self, batch: Any) -> Tensor:
        """Take the loss."""
        return checked_loss(self._task, self.module, batch, self._size)
