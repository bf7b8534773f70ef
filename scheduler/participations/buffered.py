"""Buffered asynchronous aggregation (FedBuff, Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous
Aggregation", Algorithm 1): the hub steps whenever `goal` updates are in, and nobody waits for the slowest.

A round is one filling of the buffer. A member trains on from the newest model as soon as it reports; one that has
already trained from the newest model waits for the next step, since it would only send the same update again. An
update that comes s rounds after the one in which it was asked for counts 1 / sqrt(1 + s) of its weight (section 5.1):
the step is along the mean over what counts, where the paper divides by K, so that a step from updates that are all as
late, or from one alone, is no shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from scheduler.participation import Admission, Candidates, Choice, Ending, Limits, RoundView, reported_so_far
from scheduler.participations._fields import at_least, one_of
from scheduler.participations._lateness import DISCOUNTS, admit_within

__all__ = ["Buffered"]


@dataclass(frozen=True, slots=True)
class Buffered:
    """Step whenever `goal` updates are in."""

    may_close_early: ClassVar[bool] = True
    rolling: ClassVar[bool] = True

    goal: int = 10
    """The buffer's size K: updates per step. Fewer close a round only where nobody else is at work."""
    staleness: int = 10
    """How many rounds late an update may be to count."""
    discount: str = "sqrt"
    """What an update counts, s rounds late: sqrt: 1 / sqrt(1 + s) of its weight; linear: 1 / (1 + s); none: all."""
    probe_after: int | None = 3
    """Losses in a row after which a member is asked only every second, fourth, eighth round; null: in every round."""

    def __post_init__(self) -> None:
        at_least("goal", self.goal, 1)
        at_least("staleness", self.staleness, 1)
        one_of("discount", self.discount, DISCOUNTS)
        at_least("probe_after", self.probe_after, 1)

    def choose(self, candidates: Candidates) -> Choice:
        """Ask everybody who is not at work."""
        return Choice(tuple(candidates.free))

    def limits(self, forecast_s: Sequence[float]) -> Limits:
        """Time does not matter."""
        return Limits()

    def decide(self, view: RoundView) -> Ending | None:
        """Step at the goal, or with fewer if nobody else can come."""
        if view.num_updates >= self.goal:
            return Ending(f"{view.num_updates} updates are in, the goal is {self.goal}")
        if not view.num_waiting and not view.num_late:
            return Ending(f"{reported_so_far(view)}: fewer than the goal of {self.goal}")
        return None

    def admit(self, weight: int, staleness: int) -> Admission:
        """Count what is within the bound, the less the later."""
        return admit_within(weight, staleness, self.staleness, self.discount)
