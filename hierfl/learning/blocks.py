"""Long vectors, block by block: what is done to a block stays in a core's cache, and blocks share no element.

So several threads may each do some of a long vector's blocks, in any order, and the bits are the same.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "SCRATCH", "THREADS", "blocks", "each_block", "threads"]

BLOCK = 65536
"""Elements per block at most: the working set of one block stays in a core's cache."""

THREADS = min(4, os.cpu_count() or 1)
"""Threads that share a long vector: more than memory can feed gain nothing."""

LONG = 16
"""Blocks from which on threads gain more than it costs to wake them."""

WIDE = 4
"""Blocks that are done as one where little is kept of each: memory gives more the longer it is read at one place."""


class _Scratch(threading.local):
    """A thread's vectors for one block, kept: at small models fresh memory costs half as much as the arithmetic."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, np.dtype[Any]], NDArray[Any]] = {}

    def vector(self, name: str, size: int, dtype: Any) -> NDArray[Any]:
        """Give a vector of at least one block's size, which may hold anything, and is written over by the next use."""
        key = name, np.dtype(dtype)
        kept = self._kept.get(key)
        if kept is None or kept.size < size:
            kept = self._kept[key] = np.empty(size, dtype)
        return kept[:size]


SCRATCH = _Scratch()


def blocks(size: int, wide: int = 1, shares: int = 1) -> list[slice]:
    """Cut a vector into blocks of the same size, but for the last: no short one is left over that costs as much.

    `wide`: so many times as long ones; `shares`: so that they can be shared out in so many equal parts.
    """
    if not size:
        return []
    num = -(-size // (wide * BLOCK))
    step = -(-size // (-(-num // shares) * shares))
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def each_block(work: Callable[[list[slice]], None], size: int) -> None:
    """Have `work` done on all blocks of a vector of `size` elements: a long one's are shared out among threads.

    `work` takes blocks, `WIDE` ones, one after another and must not touch what is outside them. Errors: the first of
    any, once no thread touches the vector any more.
    """
    if THREADS < 2 or size <= BLOCK * (LONG - 1):
        work(blocks(size, WIDE))
        return
    cuts = blocks(size, WIDE, THREADS)
    share = -(-len(cuts) // THREADS)
    parts = [threads().submit(work, cuts[first : first + share]) for first in range(0, len(cuts), share)]
    wait(parts)
    for part in parts:
        part.result()


@cache
def threads() -> ThreadPoolExecutor:
    """Give the process's threads for long vectors. What runs in them must not wait for another of their tasks."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix="vector")


os.register_at_fork(after_in_child=threads.cache_clear)
