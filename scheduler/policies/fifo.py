"""First in, first out: what Ray and Flower do."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.views import Job

__all__ = ["Fifo"]


@dataclass(frozen=True, slots=True)
class Fifo:
    """In the order in which the work was asked for."""

    def priority(self, job: Job, num_eligible: int) -> tuple[float, ...]:
        """The earliest asked for goes first."""
        return (float(job.order),)

    def reason(self, job: Job) -> str:
        """Say which place it had."""
        return f"next in order (number {job.order})"
