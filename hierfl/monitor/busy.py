"""Who was busy with what, per round: seconds by phase, and each worker's busy fraction.

A worker may do two things at once (train one site while it loads the next), so busy time is the length of the union
of its intervals, not their sum. Between two commits lies one window; what a worker did not cover of it is waiting.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice

from hierfl.monitor.records import Phase
from scheduler.eventlog import merge, union_s

__all__ = ["PHASES", "Account", "Covered", "Share", "without"]

PHASES = ("load", "train", "evaluate", "aggregate", "transfer")
"""The phases of a worker or hub, in the order in which they are shown; "wait" is the rest."""


class Covered:
    """The union of intervals, made to be asked for many windows."""

    def __init__(self, intervals: Iterable[tuple[float, float]]) -> None:
        self._united = merge(intervals)
        self._before_s = [0.0, *accumulate(end - start for start, end in self._united)]

    def inside_s(self, start_s: float, end_s: float) -> float:
        """Measure how much of a window is covered, in seconds."""
        return self._until(end_s) - self._until(start_s)

    def _until(self, time_s: float) -> float:
        place = bisect_right(self._united, (time_s, math.inf))
        if not place:
            return 0.0
        start, end = self._united[place - 1]
        return self._before_s[place - 1] + min(time_s, end) - start


def without(
    intervals: Iterable[tuple[float, float]], holes: Iterable[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Cut holes out of intervals (start, end), in seconds; what is left, in order."""
    left: list[tuple[float, float]] = []
    cuts, first = sorted(holes), 0
    for start, end in sorted(intervals):
        while first < len(cuts) and cuts[first][1] <= start:
            first += 1
        for begun, ended in islice(cuts, first, None):
            if begun >= end:
                break
            if begun > start:
                left.append((start, begun))
            start = max(start, ended)
        if end > start:
            left.append((start, end))
    return left


@dataclass(frozen=True, slots=True)
class Share:
    """One window's figures: `phase_s` by phase (all of PHASES and "wait"), `busy` the busy fraction by worker."""

    phase_s: dict[str, float]
    busy: dict[str, float]


@dataclass(slots=True)
class Account:
    """Adds up phases between two commits. `workers`: whose idle time counts; hubs' phases count by phase only."""

    workers: Sequence[str]
    since_s: float
    _phase_s: dict[str, float] = field(default_factory=dict)
    _intervals: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    _trained: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, phase: Phase) -> None:
        """Count one phase; loading within a training is not training."""
        if phase.phase == "train":
            self._trained[phase.actor] = phase.start_s, phase.end_s
        elif phase.phase == "load":
            start_s, end_s = self._trained.get(phase.actor, (0.0, 0.0))
            inside_s = min(end_s, phase.end_s) - max(start_s, phase.start_s)
            self._phase_s["train"] = self._phase_s.get("train", 0.0) - max(0.0, inside_s)
        self._phase_s[phase.phase] = self._phase_s.get(phase.phase, 0.0) + phase.end_s - phase.start_s
        self._intervals.setdefault(phase.actor, []).append((phase.start_s, phase.end_s))

    def close(self, time_s: float) -> Share:
        """Close the window at `time_s`, give its figures, and open the next one."""
        window = max(time_s - self.since_s, 0.0)
        busy_s = {
            worker: union_s(
                (max(start, self.since_s), min(end, time_s))
                for start, end in self._intervals.get(worker, ())
                if end > self.since_s and start < time_s
            )
            for worker in self.workers
        }
        phase_s = dict.fromkeys(PHASES, 0.0) | self._phase_s
        phase_s["wait"] = max(window * len(self.workers) - sum(busy_s.values()), 0.0)
        self.since_s, self._phase_s, self._intervals = time_s, {}, {}
        return Share(phase_s, {worker: spent / window if window else 0.0 for worker, spent in busy_s.items()})
