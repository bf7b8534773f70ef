"""Tensors that lie in the same memory though they are not one: tied by `.data`, or views of another.

Bound to a vector, each would have memory of its own, and what a step does to one would not reach the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import groupby

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

__all__ = ["has_values", "is_expanded", "overlapping"]


def overlapping(tensors: Mapping[str, Tensor], bound: Set[str]) -> tuple[str, str] | None:
    """Name two tensors that are not one object and have a byte in common, at least one of them among `bound`; None
    where there are none. What has no elements, or no memory yet, overlaps with nothing.
    """
    unique = {id(tensor): (name, tensor) for name, tensor in tensors.items() if _has_memory(tensor)}
    places = sorted(
        ((tensor.untyped_storage().data_ptr(), *_span(tensor), name) for name, tensor in unique.values()),
        key=lambda place: place[:2],
    )
    for _, there in groupby(places, key=lambda place: place[0]):
        for one, other in _meeting((start, end, name) for _, start, end, name in there):
            if not bound.isdisjoint((one, other)) and _share_bytes(tensors[one], tensors[other]):
                names = list(tensors)
                return (one, other) if names.index(one) < names.index(other) else (other, one)
    return None


def has_values(tensor: Tensor) -> bool:
    """Say whether a tensor's values lie in memory by strides: a lazy one has none yet, a sparse one has others."""
    return not is_lazy(tensor) and tensor.layout is torch.strided


def is_expanded(tensor: Tensor) -> bool:
    """Say whether several elements lie in one place, so that torch writes to none of them."""
    return has_values(tensor) and any(
        size > 1 and not step for size, step in zip(tensor.shape, tensor.stride(), strict=True)
    )


def _has_memory(tensor: Tensor) -> bool:
    return has_values(tensor) and not tensor.is_meta and tensor.numel() > 0


def _span(tensor: Tensor) -> tuple[int, int]:
    """Give the first byte of a tensor in its storage, and the one after its last."""
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    start = int(tensor.storage_offset())
    return start * tensor.itemsize, (start + int(last) + 1) * tensor.itemsize


def _meeting(spans: Iterable[tuple[int, int, str]]) -> Iterator[tuple[str, str]]:
    """Give the pairs of spans that meet, of spans by their start."""
    open_: list[tuple[int, str]] = []
    for start, end, name in spans:
        open_ = [(until, other) for until, other in open_ if until > start]
        yield from ((other, name) for _, other in open_)
        open_.append((end, name))


def _share_bytes(one: Tensor, other: Tensor) -> bool:
    """Say whether tensors whose spans meet have a byte in common; columns of one matrix have none."""
    if one.is_contiguous() and other.is_contiguous():
        return True
    start = min(_span(one)[0], _span(other)[0])
    taken = torch.zeros(max(_span(one)[1], _span(other)[1]) - start, dtype=torch.bool)
    _bytes(taken, one, start).fill_(True)
    return bool(_bytes(taken, other, start).any())


def _bytes(marks: Tensor, tensor: Tensor, start: int) -> Tensor:
    """Give the marks of a tensor's bytes, from byte `start` of the storage on."""
    width = tensor.itemsize
    steps = [step * width if size > 1 else 0 for size, step in zip(tensor.shape, tensor.stride(), strict=True)]
    return marks.as_strided([*tensor.shape, width], [*steps, 1], tensor.storage_offset() * width - start)
