"""Everybody: a round waits for all of its members (the synchronous barrier of FedAvg, McMahan et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from scheduler.participation import Admission, Candidates, Choice, Ending, Limits, RoundView, reported_so_far
from scheduler.participations._fields import at_least
from scheduler.participations._lateness import never

__all__ = ["All"]


@dataclass(frozen=True, slots=True)
class All:
    """Ask all, wait for all."""

    may_close_early: ClassVar[bool] = False
    rolling: ClassVar[bool] = False

    probe_after: int | None = None
    """Losses in a row after which a member is asked only every second, fourth, eighth round; null: in every round."""

    def __post_init__(self) -> None:
        at_least("probe_after", self.probe_after, 1)

    def choose(self, candidates: Candidates) -> Choice:
        """Ask everybody."""
        return Choice(tuple(candidates.free))

    def limits(self, forecast_s: Sequence[float]) -> Limits:
        """Time does not matter."""
        return Limits()

    def decide(self, view: RoundView) -> Ending | None:
        """Close once nobody is waited for."""
        return None if view.num_waiting else Ending(reported_so_far(view))

    def admit(self, weight: int, staleness: int) -> Admission:
        """Nothing is late where all are waited for."""
        return never(staleness)
