"""How much of a hub one identity may take: calls at once, calls and messages per second."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

__all__ = ["AT_ONCE", "Bucket", "Limits"]

AT_ONCE: Mapping[str, int] = {"Control": 2, "Fetch": 2, "Deliver": 2, "Hand": 2}
"""Two: after a cut, the old connection may not be known to be dead yet."""

CALLS_PER_S, BURST = 50.0, 200.0


class Bucket:
    """A token bucket: `rate` per second, up to `burst` at once. `now`: seconds, never back."""

    def __init__(self, rate: float, burst: float, now: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._now = now
        self._tokens = burst
        self._since_s = now()

    def take(self) -> bool:
        """Take one; say whether there was one."""
        now_s = self._now()
        self._tokens = min(self._burst, self._tokens + (now_s - self._since_s) * self._rate)
        self._since_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Limits:
    """The limits of every identity at one hub; safe among threads."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._buckets: dict[str, Bucket] = {}
        self._open: Counter[tuple[str, str]] = Counter()

    def enter(self, node: str, call: str) -> str | None:
        """Count one more call, or say why an identity may not make it now."""
        with self._lock:
            bucket = self._buckets.setdefault(node, Bucket(CALLS_PER_S, BURST, self._now))
            if not bucket.take():
                return f"{node} calls more than {CALLS_PER_S:g} times per second"
            if self._open[node, call] >= AT_ONCE[call]:
                return f"{node} has {AT_ONCE[call]} calls of {call} open"
            self._open[node, call] += 1
            return None

    def leave(self, node: str, call: str) -> None:
        """A call that entered has ended."""
        with self._lock:
            self._open[node, call] -= 1
