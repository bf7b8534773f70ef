"""A part of a site's data, where a site is split over devices: every n-th sample; and the data of several together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from hierfl.learning.task import SiteData

__all__ = ["joined", "part_of", "together"]


def part_of(data: SiteData, part: int, number: int) -> SiteData:
    """Give the samples `part`, `part + number`, `part + 2 number` ... of both datasets; all parts make up the whole."""
    return SiteData(_cut(data.train, part, number), _cut(data.test, part, number))


def together(sites: Sequence[SiteData]) -> SiteData:
    """Put the data of at least one site together, one after the other."""
    return SiteData(joined([site.train for site in sites]), joined([site.test for site in sites]))


def joined(datasets: Sequence[Dataset[Any]]) -> Dataset[Any]:
    """Put at least one data set after the other."""
    tables = [dataset.tensors for dataset in datasets if isinstance(dataset, TensorDataset)]
    if len(tables) == len(datasets) and len(set(map(len, tables))) == 1:
        return TensorDataset(*(torch.cat(columns) for columns in zip(*tables, strict=True)))
    return ConcatDataset(datasets)


def _cut(dataset: Dataset[Any], part: int, number: int) -> Dataset[Any]:
    if isinstance(dataset, TensorDataset):
        return TensorDataset(*(tensor[part::number] for tensor in dataset.tensors))
    return Subset(dataset, range(part, len(dataset), number))  # type: ignore[arg-type]
