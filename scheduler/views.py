"""What policies see: frozen headers of work and devices, never data."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Assign", "Job", "JobKey"]

JobKey = tuple[str, str]
"""(group, name): the hub's path (or another group) and the work inside it; unique among the open jobs."""


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work for one device: a site to train, measure or describe.

    `group`: jobs of one group (a hub's round) may share a call; `estimate_s`: predicted duration, None if unknown;
    `size`: samples; `order`: the position in which the work was asked for.
    """

    group: str
    name: str
    size: int
    estimate_s: float | None
    order: int

    @property
    def key(self) -> JobKey:
        """Identify the job among the open ones."""
        return (self.group, self.name)


@dataclass(frozen=True, slots=True)
class Assign:
    """Decision: this device runs these jobs of one group next, in order, for a reason."""

    device: str
    jobs: tuple[Job, ...]
    reason: str
