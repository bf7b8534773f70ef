"""Round robin: jobs are dealt to the devices in turn, whatever they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from scheduler.views import Job

__all__ = ["RoundRobin"]


@dataclass(frozen=True, slots=True)
class RoundRobin:
    """Each job goes to the next device in turn; a baseline, which leaves devices idle."""

    work_conserving: ClassVar[bool] = False

    def priority(self, job: Job, num_eligible: int) -> tuple[float, ...]:
        """The earliest asked for goes first on its device."""
        return (float(job.order),)

    def device(self, job: Job, devices: Sequence[str], turn: int, seat: int) -> str:
        """Deal the jobs."""
        return devices[turn % len(devices)]

    def reason(self, job: Job) -> str:
        """Say that there was no choice."""
        return "its device's turn"
