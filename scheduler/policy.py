"""What a dispatch policy is: an order among the jobs that wait and, for baselines, a fixed device for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

from scheduler.views import Job

__all__ = ["Binding", "Policy"]


@runtime_checkable
class Policy(Protocol):
    """One kind is one file in `scheduler/policies/`: a frozen dataclass whose fields are the YAML's keys."""

    def priority(self, job: Job, num_eligible: int) -> tuple[float, ...]:
        """Give the job's sort key; the smallest goes first. Pure: equal jobs, equal keys.

        `num_eligible`: how many of the devices that are there may ever take the job, by residency and memory.
        """

    def reason(self, job: Job) -> str:
        """Say in a few words why this job goes now."""


@runtime_checkable
class Binding(Policy, Protocol):
    """A policy that ties each job to one device beforehand, so that others may idle while it waits: a baseline."""

    work_conserving: ClassVar[bool]

    def device(self, job: Job, devices: Sequence[str], turn: int, seat: int) -> str:
        """Give the one of `devices` (eligible, sorted, at least one) that runs the job. Pure.

        `turn` counts the jobs in the order in which they were asked for, `seat` the sites in the order in which they
        were first asked for: a site keeps its seat from round to round.
        """
