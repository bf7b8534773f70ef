"""What jobs that share a device would have taken alone: their time, weighed by what each moment of it was worth.

Where k jobs run at once and the device's total rate with k jobs is r(k), each goes on at r(k) / k of the rate that it
has alone. The same rates bound the schedule (`scheduler.bounds`), so that the schedule that was is one of those that
the bound is about, and no error in the rates can put the bound above it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

__all__ = ["Company"]


class Company:
    """One device: `spans` of its workers, (start, end) in seconds, and its total `rates` with 1, 2, ... jobs."""

    def __init__(self, spans: Iterable[tuple[float, float]], rates: Sequence[float]) -> None:
        changes: dict[float, int] = {}
        for start, end in spans:
            changes[start] = changes.get(start, 0) + 1
            changes[end] = changes.get(end, 0) - 1
        self._times: list[float] = []
        self._shares: list[float] = []
        self._alone: list[float] = []
        num_jobs, reached_s = 0, 0.0
        for time_s in sorted(changes):
            if self._times:
                reached_s += (time_s - self._times[-1]) * self._shares[-1]
            num_jobs += changes[time_s]
            self._times.append(time_s)
            self._alone.append(reached_s)
            self._shares.append(rates[min(num_jobs, len(rates)) - 1] / num_jobs if num_jobs else 1.0)

    def alone_s(self, start_s: float, end_s: float) -> float:
        """Give what a job that ran from `start_s` to `end_s` takes alone, in seconds."""
        return max(0.0, self._reached(end_s) - self._reached(start_s))

    def _reached(self, time_s: float) -> float:
        """Add up the shares until a time; nobody shares before the first span and after the last."""
        place = bisect_right(self._times, time_s) - 1
        if place < 0:
            return time_s - (self._times[0] if self._times else 0.0)
        return self._alone[place] + (time_s - self._times[place]) * self._shares[place]
