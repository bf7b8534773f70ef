"""What a dispatch policy is: an order among the jobs that wait."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from scheduler.views import Job

__all__ = ["Policy"]


@runtime_checkable
class Policy(Protocol):
    """One kind is one file in `scheduler/policies/`: a frozen dataclass whose fields are the YAML's keys."""

    def priority(self, job: Job) -> tuple[float, ...]:
        """Give the job's sort key; the smallest goes first. Pure: equal jobs, equal keys."""

    def reason(self, job: Job) -> str:
        """Say in a few words why this job goes now."""
