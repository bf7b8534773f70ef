"""What a job will take, learned from what jobs took: by work (kind, model), kind of device, and site.

    t = c_s * (a_d + b_d * units)

The line (a, b) belongs to a kind of device and is fitted in log space (`scheduler.line`); the factor c_s is the site's
own, shrunk to 1 until it has data (`scheduler.pace`). It multiplies the overhead too, so that it learns what a site
takes also where the units explain nothing. What a site takes on a kind of device that never worked for it is what it
takes elsewhere, times the ratio of the two kinds (`scheduler.ratio`): by the sites that both have worked for, in this
work or else in other work. A site that nobody has seen has the line of the kind, or of the kind seen first.

What jobs took beside others is learned apart: it stands in on a kind of device on which no job of this work was alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.line import Line
from scheduler.pace import Pace
from scheduler.ratio import Shared, best_known, by_lines, shrunk

__all__ = ["Accuracy", "Durations"]

VERSION = 1

OVERHEAD = 0.1
"""Share of the first job's time that is thought to be overhead until there is a second."""

TINY = 1e-9
"""The shortest duration, for a clock may tell 0; less than that many units are none."""

RESOLUTION = math.log(1.05)
MIN_ERROR = 1e-4


_Work = tuple[str, str, bool]
"""A kind of work, its model, and whether its jobs were alone."""


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
        self._works: dict[_Work, dict[str, Pace]] = {}
        self._shared: dict[_Work, Shared] = {}
        self._errors: dict[str, dict[int, int]] = {}

    def predict(self, kind: str, site: str, units: float, device: str = "", model: str = "") -> float | None:
        """Predict the duration of `units` of work; None before the first observation of this kind and model."""
        paces = self._works.get((kind, model, True))
        if paces is not None and len(paces) == 1 and device in paces:  # one kind of device is the most frequent case
            return paces[device].predict(site, _checked(units))
        known = self._known(kind, model, device, site)
        return None if known is None else known[0].predict(site, _checked(units)) * known[1]

    def p90(self, kind: str, site: str, units: float, device: str = "", model: str = "") -> float | None:
        """Predict the duration that nine jobs of ten keep, for deadlines; never below `predict`."""
        known = self._known(kind, model, device, site)
        return None if known is None else known[0].upper(site, _checked(units)) * known[1]

    def knows(self, kind: str, device: str = "", model: str = "") -> bool:
        """Say whether a job of this work was ever alone on this kind of device."""
        return device in self._works.get((kind, model, True), {})

    def observe(
        self,
        kind: str,
        site: str,
        units: float,
        duration_s: float,
        device: str = "",
        model: str = "",
        *,
        is_alone: bool = True,
    ) -> float | None:
        """Learn from one finished job, which had its device for itself or not; give what was predicted for it."""
        return self.observe_all(kind, [(site, units, duration_s)], device, model, is_alone=is_alone)[0]

    def observe_all(
        self,
        kind: str,
        jobs: Iterable[tuple[str, float, float]],
        device: str = "",
        model: str = "",
        *,
        is_alone: bool = True,
    ) -> list[float | None]:
        """Learn from jobs that were done one after another and are heard of at once: (site, units, seconds) each; give
        what was predicted for them before.
        """
        found = [(site, _checked(units), max(TINY, _checked(seconds))) for site, units, seconds in jobs]
        predictions = [self.predict(kind, site, units, device, model) for site, units, _ in found]
        if not found:
            return []
        work = (kind, model, is_alone)
        paces, shared = self._works.setdefault(work, {}), self._shared.setdefault(work, Shared())
        for (site, units, seconds), predicted in zip(found, predictions, strict=True):
            if predicted is not None:
                error = max(MIN_ERROR, abs(predicted / seconds - 1.0))
                counts, place = self._errors.setdefault(kind, {}), round(math.log(error) / RESOLUTION)
                counts[place] = counts.get(place, 0) + 1
            if device not in paces:
                paces[device] = self._new(work, device, units, seconds)
            paces[device].observe(site, units, seconds, predicted)
            shared.saw(paces, device, site)
        return predictions

    def error(self) -> Mapping[str, Accuracy]:
        """Tell by kind of work how good the predictions have been, each compared with the job that followed."""
        return {kind: _accuracy(counts) for kind, counts in self._errors.items()}

    def state(self) -> dict[str, Any]:
        """Return all that was learned, as JSON has it; `from_state` goes on from there with the same bits."""
        works = [
            {
                "kind": kind,
                "model": model,
                "is_alone": is_alone,
                "devices": [[device, pace.state()] for device, pace in paces.items()],
            }
            for (kind, model, is_alone), paces in self._works.items()
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
            key = work["kind"], work["model"], work.get("is_alone", True)
            paces = durations._works[key] = {}
            for device, pace in work["devices"]:
                paces[device] = Pace.from_state(pace, next(iter(paces.values()), None))
            durations._shared[key] = Shared.of(paces)
        durations._errors = {kind: dict(counts) for kind, counts in state["errors"].items()}
        return durations

    def speed(self, device: str, reference: str, kind: str = "train") -> float:
        """Give how much faster one kind of device is than another at a kind of work, or at any that tells.

        Only sites that both have worked for tell; it is 1 until there are any.
        """
        if device == reference:
            return 1.0
        logs = [log for work in self._works if work[0] == kind for log in self._logs(work, device, reference)]
        return 1.0 / shrunk(logs or self._all_logs(device, reference))

    def _known(self, kind: str, model: str, device: str, site: str) -> tuple[Pace, float] | None:
        """Find what tells most of a site's work on this kind of device, and the factor that its seconds need."""
        works = [work for work in ((kind, model, True), (kind, model, False)) if work in self._works]
        if not works:
            return None
        work = next((each for each in works if device in self._works[each]), works[0])
        paces = self._works[work]
        here = paces.get(device)
        if here is not None and (len(paces) == 1 or site in here.sites):
            return here, 1.0
        elsewhere = best_known(paces, site, paces)
        if elsewhere is None and here is not None:
            return here, 1.0
        found = elsewhere or next(iter(paces))
        return paces[found], self._ratio(work, device, found)

    def _new(self, work: _Work, device: str, units: float, seconds: float) -> Pace:
        """Begin with a kind of device: the line seen elsewhere, or the one through the first job."""
        paces = self._works[work]
        if not paces:
            return Pace(Line.through(units, seconds, OVERHEAD / (1.0 - OVERHEAD) * (units or 1.0)))
        name, reference = next(iter(paces.items()))
        return Pace(reference.line.scaled(self._ratio(work, device, name)), reference)

    def _ratio(self, work: _Work, device: str, reference: str) -> float:
        """Give the seconds on one kind of device over those on another, from what tells most of this work."""
        logs = self._logs(work, device, reference) or self._all_logs(device, reference)
        paces = self._works[work]
        return by_lines(paces[device], paces[reference]) if not logs and device in paces else shrunk(logs)

    def _logs(self, work: _Work, device: str, reference: str) -> Sequence[float]:
        return self._shared[work].logs(self._works[work], device, reference)

    def _all_logs(self, device: str, reference: str) -> Sequence[float]:
        return [log for work in self._works for log in self._logs(work, device, reference)]


def _checked(value: float) -> float:
    assert 0.0 <= value < math.inf, f"{value} units or seconds: a finite number of at least 0 is needed"
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
