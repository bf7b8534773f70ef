"""Where a thread wakes: at the core of the one that wakes it, where that one is about to sleep.

A system wakes a thread on an idle core. Where two threads take turns, as a hub's step and the training of small sites
do, every turn then begins on a core whose caches hold nothing of what both work on, and which may have to be woken
itself. So who is to go on is called to the caller's core, and is free to run anywhere again as soon as it is awake.

Linux alone lets a thread choose; elsewhere, and where it may not, nothing is done.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable
from functools import cache

__all__ = ["Sleeper"]


class Sleeper:
    """One thread that sleeps again and again until others wake it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._before: set[int] = set()

    def asleep(self) -> Sleeper:
        """Give the context to sleep in: until its end the thread may be called."""
        return self

    def __enter__(self) -> None:
        with self._lock:
            self._thread = threading.get_native_id()

    def __exit__(self, *_: object) -> None:
        self.free()

    def free(self) -> None:
        """Let the thread run anywhere again, and no more be called; needed where a stop came as it woke."""
        with self._lock:
            if self._before and self._thread is not None:
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(self._thread, self._before)
            self._thread, self._before = None, set()

    def call(self) -> None:
        """Have it wake at the core where the caller runs, if it sleeps; the caller is to sleep soon. It does not wake
        it.
        """
        core_of = _core_of()
        if core_of is None:
            return
        with self._lock:
            if self._thread is None or self._before:
                return
            with contextlib.suppress(OSError):
                before = os.sched_getaffinity(self._thread)
                if len(before) > 1 and (core := core_of()) in before:
                    os.sched_setaffinity(self._thread, {core})
                    self._before = before


@cache
def _core_of() -> Callable[[], int] | None:
    """Give what says on which core the calling thread runs; None where threads cannot choose theirs."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    return getattr(ctypes.CDLL(None), "sched_getcpu", None)
