"""A random part of the members in each round (McMahan et al. 2017, Algorithm 1: m = max(C * K, 1) of K clients).

Every member draws a number from (seed, hub, round, its name) and the first m take part: a resumed run draws the same,
in whatever order the members stand. With `by: samples` the draws are exponential with the members' training samples as
rates, whatever the members weigh in the mean (Efraimidis and Spirakis 2006: sampling without replacement, the first
draw in proportion to the rates); the mean over the members drawn is then the unweighted one: give the hub's strategy
`weights: uniform` (Li et al. 2020, "On the Convergence of FedAvg on Non-IID Data", scheme I). Of one member drawn that
mean is unbiased; of several large members are in it somewhat less, since scheme I may draw a member twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from scheduler.draws import RANGE, draw
from scheduler.participation import (
    Admission,
    Candidates,
    Choice,
    Ending,
    Limits,
    Participation,
    RoundView,
    reported_so_far,
)
from scheduler.participations._fields import at_least, fraction, one_of
from scheduler.participations._lateness import never

__all__ = ["Sample"]


@dataclass(frozen=True, slots=True)
class Sample:
    """Ask some, drawn anew in each round, and wait for all of them."""

    may_close_early: ClassVar[bool] = False
    rolling: ClassVar[bool] = False

    fraction: float = 0.1
    """The part of the members that is drawn, rounded; at least one member."""
    count: int | None = None
    """How many are drawn, in place of `fraction`."""
    by: str = "uniform"
    """uniform: all are as likely; samples: in proportion to the members' training samples, whatever they weigh."""
    probe_after: int | None = 3
    """Losses in a row after which a member is asked only every second, fourth, eighth round; null: whenever drawn."""

    def __post_init__(self) -> None:
        fraction("fraction", self.fraction)
        at_least("count", self.count, 1)
        one_of("by", self.by, ("uniform", "samples"))
        at_least("probe_after", self.probe_after, 1)

    def knowing(self, num_samples: Mapping[str, int]) -> Participation:
        """Give the policy that draws by these, the members' training samples by name, and not by their weights."""
        return _Knowing(self, num_samples) if self.by == "samples" else self

    def choose(self, candidates: Candidates) -> Choice:
        """Draw among those who can; the others do not count as missing."""
        free, unable = candidates.free, candidates.unable
        everyone = len(free) + len(unable)
        wanted = self.count if self.count is not None else math.floor(self.fraction * everyone + 0.5)
        number = min(len(free), max(1, wanted))
        drawn = set(sorted(free, key=lambda name: (self._draw(candidates, name), name))[:number])
        why = f"not drawn: {number} of {everyone} take part"
        skipped = {name: why for name in (*free, *unable) if name not in drawn}
        return Choice(tuple(name for name in free if name in drawn), skipped)

    def limits(self, forecast_s: Sequence[float]) -> Limits:
        """Time does not matter."""
        return Limits()

    def decide(self, view: RoundView) -> Ending | None:
        """Close once nobody is waited for."""
        return None if view.num_waiting else Ending(reported_so_far(view))

    def admit(self, weight: int, staleness: int) -> Admission:
        """Nothing is late where all that were drawn are waited for."""
        return never(staleness)

    def _draw(self, candidates: Candidates, name: str) -> float:
        """Draw a member's place in a round; the smallest take part."""
        drawn = draw(candidates.seed, "participation", candidates.hub, candidates.round_number, name)
        if self.by == "uniform":
            return float(drawn)
        return -math.log((drawn + 1) / RANGE) / candidates.free[name]


@dataclass(frozen=True, slots=True)
class _Knowing:
    """A sample that knows how many training samples each member has."""

    may_close_early: ClassVar[bool] = False
    rolling: ClassVar[bool] = False

    sample: Sample
    num_samples: Mapping[str, int]

    @property
    def probe_after(self) -> int | None:
        """As the sample says."""
        return self.sample.probe_after

    def choose(self, candidates: Candidates) -> Choice:
        """Draw by samples where the policy is told weights."""
        return self.sample.choose(replace(candidates, free={name: self.num_samples[name] for name in candidates.free}))

    def limits(self, forecast_s: Sequence[float]) -> Limits:
        """As the sample says."""
        return self.sample.limits(forecast_s)

    def decide(self, view: RoundView) -> Ending | None:
        """As the sample says."""
        return self.sample.decide(view)

    def admit(self, weight: int, staleness: int) -> Admission:
        """As the sample says."""
        return self.sample.admit(weight, staleness)
