"""Who was busy with what, per round: seconds by phase, and each worker's busy fraction.

A worker may do two things at once (train one site while it loads the next), so busy time is the length of the union
of its intervals, not their sum. Between two commits lies one window; what a worker did not cover of it is waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hierfl.monitor.records import Phase

__all__ = ["PHASES", "Account", "Share", "covered_s"]

PHASES = ("load", "train", "evaluate", "aggregate", "transfer")
"""The phases of a worker or hub, in the order in which they are shown; "wait" is the rest."""


def covered_s(intervals: Iterable[tuple[float, float]]) -> float:
    """Measure the union of intervals (start, end), in seconds."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        if end > reached:
            total += end - max(start, reached)
            reached = end
    return total


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

    def add(self, phase: Phase) -> None:
        """Count one phase."""
        self._phase_s[phase.phase] = self._phase_s.get(phase.phase, 0.0) + phase.end_s - phase.start_s
        self._intervals.setdefault(phase.actor, []).append((phase.start_s, phase.end_s))

    def close(self, time_s: float) -> Share:
        """Close the window at `time_s`, give its figures, and open the next one."""
        window = max(time_s - self.since_s, 0.0)
        busy_s = {
            worker: covered_s(
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
