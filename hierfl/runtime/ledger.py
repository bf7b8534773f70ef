"""How busy the workers were: seconds of work that counted, span by span, for the figures of `scheduler.idle`."""

from __future__ import annotations

import time
from collections.abc import Iterable

from scheduler import Idle, measure

__all__ = ["Ledger"]


class Ledger:
    """Adds up work between barriers; a span is one round of training, or one measurement."""

    def __init__(self, workers: Iterable[str]) -> None:
        self._busy_s = dict.fromkeys(workers, 0.0)
        self._spans: list[tuple[float, list[float]]] = []
        self._last_busy_s = dict(self._busy_s)
        self._opened_s = 0.0
        self._jobs: list[float] = []

    def join(self, worker: str) -> None:
        """A worker counts from now on."""
        self._busy_s.setdefault(worker, 0.0)
        self._last_busy_s.setdefault(worker, 0.0)

    def open(self) -> None:
        """A span begins."""
        self._opened_s = time.perf_counter()
        self._jobs = []
        self._last_busy_s = dict(self._busy_s)

    def work(self, worker: str, duration_s: float) -> None:
        """A worker has done a job that counts."""
        self._busy_s[worker] += duration_s
        self._jobs.append(duration_s)

    def close(self) -> None:
        """The span is over: its barrier is reached."""
        self._spans.append((time.perf_counter() - self._opened_s, self._jobs))

    def last(self) -> Idle:
        """Give the figures of the last span."""
        busy_s = {worker: spent - self._last_busy_s[worker] for worker, spent in self._busy_s.items()}
        return measure(busy_s, self._spans[-1:])

    def total(self) -> Idle:
        """Give the figures of the whole run."""
        return measure(self._busy_s, self._spans)
