"""Longest remaining chain first (Graham 1969; Hu 1961): what the end of a federation waits for longest goes first.

A federation of several tiers and rounds ends with its longest chain of barriers, so the key is the time from a job's
begin to the end of its federation, not the job alone. The chain is known to some 10% at best; inside such a bucket the
site with the fewest eligible devices goes first, for it is the hardest to place later (least flexible job first,
Pinedo 2016, section 5.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from scheduler.views import Job

__all__ = ["ChainFirst"]


@dataclass(frozen=True, slots=True)
class ChainFirst:
    """The longest remaining chain first; about equals by fewest eligible devices, then the longest."""

    bucket: float = 0.1
    """Relative width within which two chains count as equal, above 0."""

    rollout: bool = True
    """Before a round of the root try other orders in simulated time, for at most 20 ms; one that is predicted to gain
    more than 1% orders this round."""

    claims: ClassVar[bool] = True
    """Whether jobs may wait for a faster device while another job takes the free one."""

    weighs: ClassVar[bool] = True
    """Whether a job must be worth its place beside others, unless it goes first."""

    holds: ClassVar[bool] = True
    """Whether a large job that goes first may have a device's memory held for it."""

    def __post_init__(self) -> None:
        if not self.bucket > 0.0:
            raise ValueError(f"bucket must be above 0, not {self.bucket!r}; 0.1 takes chains within 10% as equal")

    def priority(self, job: Job, num_eligible: int) -> tuple[float, ...]:
        """Unknown durations go before all known ones, by samples; among equals the earliest asked for."""
        if job.estimate_s is None:
            return (0.0, -self._step(job.size), float(num_eligible), -float(job.size), float(job.order))
        left_s = job.chain_s + job.estimate_s
        return (1.0, -self._step(left_s), float(num_eligible), -left_s, float(job.order))

    def reason(self, job: Job) -> str:
        """Say how much hangs on it."""
        if job.estimate_s is None:
            return f"duration unknown ({job.size} samples)"
        return f"longest remaining chain ({job.chain_s + job.estimate_s:.3g} s)"

    def _step(self, value: float) -> float:
        """Number the bucket of a value on the logarithmic scale."""
        return float(math.floor(math.log(max(value, 1e-9)) / math.log1p(self.bucket)))
