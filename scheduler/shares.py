"""A minimum share for every run: over a window, none that waits gets much less than the others that wait with it.

Whenever a device is given out, every run that had work for it is entitled to an equal part of the device-seconds, and
the run that gets them is credited. A run is behind while its credit in the window is below `min_share` of its
entitlement, with patience by more than the longest piece of work: at the beginning of a window it would else be a turn
for each, however urgent the others are. Nobody earns a claim while it has nothing to run, or while nobody else has.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

__all__ = ["MIN_SHARE", "WINDOW_S", "Shares"]

MIN_SHARE = 0.1
"""Against starving, not for fairness: a quarter makes federations of unequal memory 1 % slower in simulation."""

WINDOW_S = 600.0
"""Long beside a job: over a window of a few jobs a share is a turn for each run, however urgent the others are."""

UNKNOWN_S = 1.0
"""What a chunk of unknown duration counts before there is a known one."""


class Shares:
    """Device-seconds by run over the last `window_s` seconds; `min_share`: 0 (no guarantee) to 1 (equal shares).

    `patience`: how many of the longest pieces of work a run may lack before it is behind.
    """

    def __init__(self, min_share: float, window_s: float, patience: float = 0.0) -> None:
        assert 0.0 <= min_share <= 1.0 and window_s > 0.0, (min_share, window_s)
        self.min_share = min_share
        self.window_s = window_s
        self.patience = patience
        self._given: deque[tuple[float, str, float, tuple[str, ...]]] = deque()
        self._credit: defaultdict[str, float] = defaultdict(float)
        self._entitled: defaultdict[str, float] = defaultdict(float)
        self._longest_s = 0.0

    def forget(self, now_s: float) -> None:
        """Drop what lies before the window."""
        while self._given and self._given[0][0] <= now_s - self.window_s:
            _, run, seconds, waiting = self._given.popleft()
            self._book(run, -seconds, waiting)
        if not self._given:
            self._credit.clear()
            self._entitled.clear()
            self._longest_s = 0.0

    def give(self, now_s: float, run: str, seconds: float | None, waiting: Sequence[str]) -> None:
        """Credit a run with device-seconds that all of `waiting` (itself among them) could have had.

        An unknown duration counts as the mean of the window.
        """
        if len(waiting) < 2:
            return
        if seconds is None:
            seconds = sum(self._credit.values()) / len(self._given) if self._given else UNKNOWN_S
        self._longest_s = max(self._longest_s, seconds)
        self._given.append((now_s, run, seconds, tuple(waiting)))
        self._book(run, seconds, waiting)

    def behind(self, run: str) -> bool:
        """Say whether a run has had less than its minimum share."""
        lacks_s = self.min_share * self._entitled[run] - self._credit[run]
        return lacks_s > self.patience * self._longest_s + 1e-9

    def _book(self, run: str, seconds: float, waiting: Sequence[str]) -> None:
        self._credit[run] += seconds
        for each in waiting:
            self._entitled[each] += seconds / len(waiting)
