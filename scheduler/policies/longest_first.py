"""Longest predicted job first (LPT, Graham 1969): at most 4/3 - 1/(3m) of the optimum on m identical devices."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.views import Job

__all__ = ["LongestFirst"]


@dataclass(frozen=True, slots=True)
class LongestFirst:
    """The longest predicted job first; unknown durations by samples, before all known ones."""

    def priority(self, job: Job, num_eligible: int) -> tuple[float, ...]:
        """The longest goes first; among equals the earliest asked for."""
        if job.estimate_s is None:
            return (0.0, -float(job.size), float(job.order))
        return (1.0, -job.estimate_s, float(job.order))

    def reason(self, job: Job) -> str:
        """Say how long it is thought to take."""
        return "duration unknown" if job.estimate_s is None else f"longest waiting ({job.estimate_s:.3g} s)"
