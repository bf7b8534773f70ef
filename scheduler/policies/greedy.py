"""Greedy by samples: the site with the most samples first, whatever its device takes for them (as pfl-research)."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.views import Job

__all__ = ["Greedy"]


@dataclass(frozen=True, slots=True)
class Greedy:
    """The most samples first."""

    def priority(self, job: Job, num_eligible: int) -> tuple[float, ...]:
        """The largest goes first; among equals the earliest asked for."""
        return (-float(job.size), float(job.order))

    def reason(self, job: Job) -> str:
        """Say how large it is."""
        return f"largest waiting ({job.size} samples)"
