"""A part of a site's data, where a site is split over devices: every n-th sample."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset, Subset, TensorDataset

from hierfl.learning.task import SiteData

__all__ = ["part_of"]


def part_of(data: SiteData, part: int, number: int) -> SiteData:
    """Give the samples `part`, `part + number`, `part + 2 number` ... of both datasets; all parts make up the whole."""
    return SiteData(_cut(data.train, part, number), _cut(data.test, part, number))


def _cut(dataset: Dataset[Any], part: int, number: int) -> Dataset[Any]:
    if isinstance(dataset, TensorDataset):
        return TensorDataset(*(tensor[part::number] for tensor in dataset.tensors))
    return Subset(dataset, range(part, len(dataset), number))  # type: ignore[arg-type]
