"""What a job will take, learned from what jobs took: by work (kind, model), kind of device, and site.

    t = c_s * (a_d + b_d * units)

The line (a, b) belongs to a kind of device and is fitted in log space (`scheduler.line`); the factor c_s is the site's
own, shrunk to 1 until it has data (`scheduler.pace`). It multiplies the overhead too, so that it learns what a site
takes also where the units explain nothing. Work that was never seen on a kind of device has the line of the kind on
which it was seen first, times the ratio of the two kinds in other work if both have seen a site in common.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.line import Line
from scheduler.pace import Pace

__all__ = ["Accuracy", "Durations"]

VERSION = 1

OVERHEAD = 0.1
"""Share of the first job's time that is thought to be overhead until there is a second."""

TINY = 1e-9
"""The shortest duration, for a clock may tell 0; less than that many units are none."""

RESOLUTION = math.log(1.05)
MIN_ERROR = 1e-4


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Absolute relative errors of `num` predictions, each made before its job was observed: median, 90 % quantile."""

    num: int
    median: float
    p90: float


class Durations:
    """Predicted durations in seconds. `units`: batches or samples, whatever the time grows with; always the same ones.

    Multiply all durations by a constant and all predictions are multiplied by it; predictions are positive and grow
    with the units.
    """

    def __init__(self) -> None:
        self._works: dict[tuple[str, str], dict[str, Pace]] = {}
        self._errors: dict[str, dict[int, int]] = {}

    def predict(self, kind: str, site: str, units: float, device: str = "", model: str = "") -> float | None:
        """Predict the duration of `units` of work; None before the first observation of this kind and model."""
        known = self._known(kind, model, device)
        return None if known is None else known[0].predict(site, _checked(units)) * known[1]

    def p90(self, kind: str, site: str, units: float, device: str = "", model: str = "") -> float | None:
        """Predict the duration that nine jobs of ten keep, for deadlines; never below `predict`."""
        known = self._known(kind, model, device)
        return None if known is None else known[0].upper(site, _checked(units)) * known[1]

    def observe(self, kind: str, site: str, units: float, duration_s: float, device: str = "", model: str = "") -> None:
        """Learn from one finished job that had its device for itself."""
        units, seconds = _checked(units), max(TINY, _checked(duration_s))
        predicted = self.predict(kind, site, units, device, model)
        if predicted is not None:
            error = max(MIN_ERROR, abs(predicted / seconds - 1.0))
            counts, place = self._errors.setdefault(kind, {}), round(math.log(error) / RESOLUTION)
            counts[place] = counts.get(place, 0) + 1
        pace = self._works.get((kind, model), {}).get(device)
        if pace is None:
            pace = self._new(kind, model, device, units, seconds)
            self._works.setdefault((kind, model), {})[device] = pace
        pace.observe(site, units, seconds, predicted or seconds)

    def error(self) -> Mapping[str, Accuracy]:
        """Tell by kind of work how good the predictions have been, each compared with the job that followed."""
        return {kind: _accuracy(counts) for kind, counts in self._errors.items()}

    def state(self) -> dict[str, Any]:
        """Return all that was learned, as JSON has it; `from_state` goes on from there with the same bits."""
        works = [
            {"kind": kind, "model": model, "devices": [[device, pace.state()] for device, pace in paces.items()]}
            for (kind, model), paces in self._works.items()
        ]
        errors = {kind: sorted(counts.items()) for kind, counts in self._errors.items()}
        return {"version": VERSION, "works": works, "errors": {kind: list(map(list, e)) for kind, e in errors.items()}}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Durations:
        """Make what `state` returned work again.

        Raises:
            ValueError: if the state is of another version.
        """
        if state.get("version") != VERSION:
            raise ValueError(
                f"durations of version {state.get('version')!r} cannot be read, only {VERSION}: learn anew"
            )
        durations = cls()
        for work in state["works"]:
            paces = durations._works[work["kind"], work["model"]] = {}
            for device, pace in work["devices"]:
                paces[device] = Pace.from_state(pace, next(iter(paces.values()), None))
        durations._errors = {kind: dict(counts) for kind, counts in state["errors"].items()}
        return durations

    def _known(self, kind: str, model: str, device: str) -> tuple[Pace, float] | None:
        """Find what tells of this work on this kind of device, and the factor that its seconds need."""
        paces = self._works.get((kind, model))
        if paces is None:
            return None
        if device in paces:
            return paces[device], 1.0
        reference = next(iter(paces))
        return paces[reference], self._ratio(device, reference)

    def _new(self, kind: str, model: str, device: str, units: float, seconds: float) -> Pace:
        """Begin with a kind of device: the line seen elsewhere, or the one through the first job."""
        known = self._known(kind, model, device)
        if known is None:
            return Pace(Line.through(units, seconds, OVERHEAD / (1.0 - OVERHEAD) * (units or 1.0)))
        return Pace(known[0].line.scaled(known[1]), known[0])

    def speed(self, device: str, reference: str) -> float:
        """Give how much faster one kind of device is than another; 1 until both have worked for the same site."""
        return 1.0 / self._ratio(device, reference)

    def _ratio(self, device: str, reference: str) -> float:
        """Give the seconds on one kind of device over those on another, from work that both have done for a site."""
        for paces in self._works.values():
            here, there = paces.get(device), paces.get(reference)
            if here is not None and there is not None and here.shares(there):
                return here.line(here.usual_units) / there.line(here.usual_units)
        return 1.0


def _checked(value: float) -> float:
    assert math.isfinite(value) and value >= 0.0, f"{value} units or seconds: a finite number of at least 0 is needed"
    return value if value >= TINY else 0.0


def _accuracy(counts: Mapping[int, int]) -> Accuracy:
    """Read the quantiles off a histogram of logarithmic places."""
    num, below = sum(counts.values()), 0
    places: dict[float, int] = {}
    for place, count in sorted(counts.items()):
        below += count
        for quantile in (0.5, 0.9):
            if below >= quantile * num:
                places.setdefault(quantile, place)
    return Accuracy(num, math.exp(places[0.5] * RESOLUTION), math.exp(places[0.9] * RESOLUTION))
