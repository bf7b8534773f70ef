"""How the C library's malloc shares memory out among threads: in few arenas, for a process that lives for weeks.

glibc gives threads arenas of their own, eight for each core, and each keeps what its busiest minute took. Chunks of a
MiB pass through many threads here, so that memory would grow with their number and not with what is in use.
"""

from __future__ import annotations

import ctypes

__all__ = ["use_few_arenas"]

M_ARENA_MAX = -8
ARENAS = 2


def use_few_arenas() -> None:
    """Let this process' threads share a few arenas from now on; where the C library is not glibc, nothing changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, ARENAS)
