"""What a job will take, learned from what jobs took: a rate per unit of work, and each site's own factor.

`t = rate * units * factor(site)`: the rate forgets slowly over all sites, the factor follows the site itself. Useful
after the first job of a kind; None before.
"""

from __future__ import annotations

__all__ = ["Durations"]

FORGET = 0.9
"""Weight that the past keeps at each observation."""


class Durations:
    """Predicted durations in seconds, by kind of work ("train", "evaluate" ...) and site."""

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}
        self._factors: dict[tuple[str, str], float] = {}

    def predict(self, kind: str, site: str, units: float) -> float | None:
        """Predict the duration of `units` of work (optimizer steps or samples); None without any observation."""
        rate = self._rates.get(kind)
        return None if rate is None else rate * max(units, 1.0) * self._factors.get((kind, site), 1.0)

    def observe(self, kind: str, site: str, units: float, duration_s: float) -> None:
        """Learn from one finished job."""
        seen = max(duration_s, 1e-6) / max(units, 1.0)
        rate = self._rates.get(kind)
        self._rates[kind] = seen if rate is None else FORGET * rate + (1.0 - FORGET) * seen
        factor = self._factors.get((kind, site))
        now = seen / self._rates[kind]
        self._factors[kind, site] = now if factor is None else 0.5 * factor + 0.5 * now
