"""A deadline in terms of what the members are predicted to take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.participations._fields import above

__all__ = ["After"]


@dataclass(frozen=True, slots=True)
class After:
    """`p90` times the 90th percentile (nearest rank) of the members' predicted durations."""

    p90: float = 1.5

    def __post_init__(self) -> None:
        above("p90", self.p90, 0.0)

    def seconds(self, forecast_s: Sequence[float]) -> float:
        """Give the deadline in seconds; infinity while nothing can be predicted."""
        if not forecast_s:
            return math.inf
        return self.p90 * sorted(forecast_s)[math.ceil(0.9 * len(forecast_s) - 1e-9) - 1]
