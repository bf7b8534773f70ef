"""Batches of a site's records: in which order samples are drawn, how they become one, and who takes them.

A `TensorDataset` is cut by index. Of any other data set samples are taken one by one and collated, by this process or,
with `training.loader_workers`, by processes of their own that work ahead while the model trains.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from copy import copy as shallow_copy
from copy import deepcopy
from dataclasses import dataclass
from itertools import repeat
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from hierfl.learning.contract import checked_batch, checked_weights
from hierfl.learning.seeds import derive, seed_globally
from hierfl.learning.task import Collates, Task, WeighsSamples, offers

__all__ = ["Feed", "Order", "drawn", "in_order", "moved"]

Order: TypeAlias = Tensor | range
"""The places of a batch's samples in their data set."""

AHEAD = 2
"""Batches that each loading process makes before they are asked for."""


@dataclass(frozen=True)
class Feed:
    """How batches are made of a task's data sets. `workers`: processes that take samples, whose random numbers come of
    `seed` and the batch's number: the same for any number of them, but other ones than without any.
    """

    task: Task
    device: torch.device
    workers: int = 0
    seed: int = 0

    def batches(self, dataset: Dataset[Any], orders: Iterable[Order]) -> Iterator[tuple[Any, int]]:
        """Yield (batch, size) for each order. A batch is the task's to change in place, as layers with `inplace` do: it
        shares no memory with the data set.
        """
        if not self.workers or self._is_cut(dataset):
            for chosen in orders:
                yield self.taken(dataset, chosen), len(chosen)
            return
        loader: DataLoader[Any] = DataLoader(
            _Numbered(self, dataset),
            batch_size=None,
            sampler=_Numbers(orders),
            num_workers=min(self.workers, _num_cores()),
            collate_fn=_as_it_is,
            prefetch_factor=AHEAD,
            generator=torch.Generator(),  # without one it draws from the global one
        )
        for batch, size in loader:
            yield moved(batch, self.device), size

    def taken(self, dataset: Dataset[Any], chosen: Order) -> Any:
        """Collate the chosen samples on the device; tensors are cut at once."""
        if self._is_cut(dataset):
            return _cut(dataset, chosen, self.device)
        return moved(self.collated(dataset, chosen), self.device, copy=offers(self.task, Collates))

    def collated(self, dataset: Dataset[Any], chosen: Order) -> Any:
        """Take samples one by one, and make a batch of them."""
        places: Sequence[int] = chosen if isinstance(chosen, range) else chosen.tolist()
        samples = [dataset[place] for place in places]
        return self.task.collate(samples) if offers(self.task, Collates) else checked_batch(places, samples)

    def _is_cut(self, dataset: Dataset[Any]) -> TypeGuard[TensorDataset]:
        return isinstance(dataset, TensorDataset) and not offers(self.task, Collates)


def _num_cores() -> int:
    """Count the cores that this process may use: more loading processes than these only wait for each other."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def drawn(task: Task, dataset: Dataset[Any], batch_size: int | None, num_steps: int, seed: int) -> Iterator[Order]:
    """Yield the orders of `num_steps` batches: every pass over the data set is shuffled anew, or drawn by the task's
    weights, as many samples as there are, with replacement.

    A batch of all samples keeps the data set's order: its gradient is the same in any.
    """
    num_samples = len(dataset)  # type: ignore[arg-type]
    size = min(batch_size or num_samples, num_samples)
    weights = checked_weights(task.sample_weights(dataset), num_samples) if offers(task, WeighsSamples) else None
    if weights is None and size == num_samples:
        yield from repeat(range(num_samples), num_steps)
        return
    generator = torch.Generator().manual_seed(seed)
    done = 0
    while done < num_steps:
        if weights is None:
            order = torch.randperm(num_samples, generator=generator)
        else:
            order = torch.multinomial(weights, num_samples, replacement=True, generator=generator)
        for chosen in torch.split(order, size)[: num_steps - done]:
            yield chosen
            done += 1


def in_order(num_samples: int, batch_size: int) -> Iterator[Order]:
    """Yield orders once over a data set; no sampler, which would draw from torch's global generator."""
    for first in range(0, num_samples, batch_size):
        yield range(first, min(first + batch_size, num_samples))


def _cut(dataset: TensorDataset, chosen: Order, device: torch.device) -> tuple[Tensor, ...]:
    """Cut the chosen samples out of tensors, on the device."""
    if isinstance(chosen, range):
        parts = dataset.tensors
        if len(chosen) < len(dataset):
            parts = tuple(one[chosen.start : chosen.stop] for one in parts)
        return tuple(one.clone() if one.device == device else one.to(device, copy=True) for one in parts)
    return tuple(one[chosen].to(device) for one in dataset.tensors)


def moved(batch: Any, device: torch.device, *, copy: bool = False) -> Any:
    """Move every tensor of a collated batch to the device; `copy`: also those that are there, and arrays.

    Mappings of any class keep it; what is no container and has a `to` moves itself (a `PackedSequence`, a graph).
    """
    if isinstance(batch, Tensor):
        return batch.to(device, copy=copy)
    if isinstance(batch, np.ndarray):
        return batch.copy() if copy else batch
    if isinstance(batch, Mapping):
        return _refilled(batch, {key: moved(value, device, copy=copy) for key, value in batch.items()})
    if callable(getattr(batch, "to", None)):
        return (deepcopy(batch) if copy else batch).to(device)
    if isinstance(batch, (list, tuple)):
        made = [moved(value, device, copy=copy) for value in batch]
        return type(batch)(*made) if hasattr(batch, "_fields") else type(batch)(made)
    return batch


def _refilled(batch: Mapping[Any, Any], values: dict[Any, Any]) -> Mapping[Any, Any]:
    """Give a mapping like a batch with these values in it; a dict where its class cannot be filled."""
    if type(batch) is dict or not isinstance(batch, MutableMapping):
        return values
    made = shallow_copy(batch)
    made.update(values)
    return made


@dataclass(frozen=True)
class _Numbers:
    """Hands loading processes the orders, with their numbers."""

    orders: Iterable[Order]

    def __iter__(self) -> Iterator[tuple[int, Order]]:
        return enumerate(self.orders)


@dataclass(frozen=True)
class _Numbered(Dataset[Any]):
    """Makes batches in a loading process, each on random numbers of its own."""

    feed: Feed
    dataset: Dataset[Any]

    def __getitem__(self, which: tuple[int, Order]) -> tuple[Any, int]:
        number, chosen = which
        seed_globally(derive(self.feed.seed, "batch", number))
        return self.feed.collated(self.dataset, chosen), len(chosen)


def _as_it_is(batch: Any) -> Any:
    """Collate nothing: the data set gives whole batches."""
    return batch
