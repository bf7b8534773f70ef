"""Long vectors, block by block: what is done to a block stays in a core's cache, and blocks share no element.

So several threads may each do some of a long vector's blocks, in any order, and the bits are the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

__all__ = ["BLOCK", "THREADS", "blocks", "each_block", "threads"]

BLOCK = 65536
"""Elements per block at most: the working set of one block stays in a core's cache."""

THREADS = min(4, os.cpu_count() or 1)
"""Threads that share a long vector: more than memory can feed gain nothing."""

LONG = 16
"""Blocks from which on threads gain more than it costs to wake them."""


def blocks(size: int) -> list[slice]:
    """Cut a vector into blocks of the same size, but for the last: no short one is left over that costs as much."""
    step = -(-size // -(-size // BLOCK)) if size else 1
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def each_block(work: Callable[[list[slice]], None], size: int) -> None:
    """Have `work` done on all blocks of a vector of `size` elements: a long one's are shared out among threads.

    `work` takes blocks one after another and must not touch what is outside them; an error of one ends the whole.
    """
    cuts = blocks(size)
    if THREADS < 2 or len(cuts) < LONG:
        work(cuts)
        return
    share = -(-len(cuts) // THREADS)
    list(threads().map(work, (cuts[first : first + share] for first in range(0, len(cuts), share))))


@cache
def threads() -> ThreadPoolExecutor:
    """Give the process's threads for long vectors. What runs in them must not wait for another of their tasks."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix="vector")


os.register_at_fork(after_in_child=threads.cache_clear)
