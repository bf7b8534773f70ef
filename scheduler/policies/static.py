"""Static partition: a site always on the same device, as with one process per share of the clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from scheduler.views import Job

__all__ = ["Static"]


@dataclass(frozen=True, slots=True)
class Static:
    """Each site keeps one device for the run, by equal numbers of sites; a baseline, which leaves devices idle."""

    work_conserving: ClassVar[bool] = False

    def priority(self, job: Job, num_eligible: int) -> tuple[float, ...]:
        """The earliest asked for goes first on its device."""
        return (float(job.order),)

    def device(self, job: Job, devices: Sequence[str], turn: int, seat: int) -> str:
        """Seat the sites round the devices."""
        return devices[seat % len(devices)]

    def reason(self, job: Job) -> str:
        """Say that there was no choice."""
        return "its site's own device"
