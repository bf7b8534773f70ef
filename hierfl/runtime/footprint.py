"""What a site's data take in memory, found by looking through them: which memory is held, and how many bytes of it."""

from __future__ import annotations

import logging
import mmap
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from enum import Enum
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hierfl.learning.task import SiteData

__all__ = ["Held", "footprint"]

UNKNOWN_BYTES = 1 << 27
"""What data sets count that hold something whose size nobody can tell: so few of them are kept at a time."""

MOST_LOOKS = 200_000
"""Of more objects than that it would take longer to count than is worth it: their size is not known."""

_SMALL = (
    *(bool, int, float, complex, str, bytes, bytearray, range, slice, type, PurePath, Enum),
    *(FunctionType, BuiltinFunctionType, MethodType, ModuleType, torch.dtype, torch.device, np.dtype, np.generic),
    *(torch.Generator, np.random.Generator, np.random.RandomState, logging.Logger, type(threading.Lock())),
)
"""What holds no records, or tells its size itself."""


def footprint(data: SiteData) -> dict[int, int]:
    """Give the bytes of what a site's data sets hold, by its address: views of one memory are counted once, here and
    among sites. A `Subset`, lists, and data sets of one's own are looked through by what their attributes are.
    """
    found: dict[int, int] = {}
    for part in (data.train, data.test):
        try:
            is_known = _look_through(part, found)
        except Exception:  # what their own attributes and lists raise when they are looked at
            is_known = False
        if not is_known:
            found[id(part)] = UNKNOWN_BYTES
    return found


def _look_through(part: Any, found: dict[int, int]) -> bool:
    """Find what an object holds; say whether that is all."""
    seen: set[int] = set()
    waiting = [part]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        memory = _memory(one)
        if memory is not None:
            found[memory[0]] = memory[1]
            continue
        inside = _inside(one)
        if inside is None or len(seen) > MOST_LOOKS:
            return False
        waiting.extend(inside)
    return True


def _memory(one: Any) -> tuple[int, int] | None:
    """Give address and bytes of what holds no other object; None for all else."""
    if isinstance(one, Tensor) and one.layout == torch.strided:
        storage = one.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    if isinstance(one, np.ndarray):
        while isinstance(one.base, np.ndarray):
            one = one.base
        if isinstance(one.base, Tensor):
            return _memory(one.base)
        is_on_disk = isinstance(one.base, mmap.mmap)
        return (one.ctypes.data, 0 if is_on_disk else one.nbytes) if one.dtype != object else None
    if isinstance(one, _SMALL) or isinstance(type(one).__sizeof__, FunctionType):  # a data frame's, say
        return id(one), sys.getsizeof(one)
    num_bytes = getattr(one, "nbytes", None)  # an Arrow table's, say
    return (id(one), num_bytes) if isinstance(num_bytes, int) else None


def _inside(one: Any) -> Iterator[Any] | None:
    """Give what an object is made of; None where nobody can tell."""
    if isinstance(one, Mapping):
        return iter([*one.keys(), *one.values()])
    if isinstance(one, list | tuple | Set):
        return iter(one)
    if isinstance(one, np.ndarray):
        return iter(one.ravel().tolist())
    slots = [name for kind in type(one).__mro__ for name in _names(vars(kind).get("__slots__", ()))]
    if not hasattr(one, "__dict__") and not slots:
        return None
    return iter([*getattr(one, "__dict__", {}).values(), *(getattr(one, name, None) for name in slots)])


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


class Held:
    """Adds up the memory of what is held, each once, however many hold it."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self._sizes: dict[int, int] = {}
        self._holders: Counter[int] = Counter()

    def add(self, of: Mapping[int, int]) -> None:
        """Count what is held from now on."""
        for place, size in of.items():
            if not self._holders[place]:
                self._sizes[place] = size
                self.num_bytes += size
            self._holders[place] += 1

    def drop(self, of: Iterable[int]) -> None:
        """Count what is held no more."""
        for place in of:
            self._holders[place] -= 1
            if not self._holders[place]:
                del self._holders[place]
                self.num_bytes -= self._sizes.pop(place)
