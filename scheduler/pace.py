"""How fast one kind of device does one kind of work: a line over all sites, and each site's own factor.

`t = factor(site) * line(units)`. A site's factor is its mean seconds over the line at its mean units, taken against the
line of today, so that a better line never spoils what a site has shown; as far as it is not certain it is shrunk to 1
(or to the factor that the site has on the device kind on which this work was first seen, the reference) by the ratio of
the variances between and within sites (James and Stein 1961; Efron and Morris 1972 for the sites that stand apart).

Beside a reference the line goes through the sites that the reference knows too, less their factors there, as soon as
there are `MIN_SHARED` of them: which other sites a kind of device was given must not look like its speed.

One surprise is chance, two in a row on one side are a change: the first is clipped, the second starts the site anew. A
site whose first job was slow starts anew at once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heappush, heappushpop
from typing import Any
from zlib import crc32

from scheduler.line import PRIOR_SPREAD, Line, Point, fit

__all__ = ["Pace"]

MAX_COUNT = 10
"""Jobs that a site's mean reaches back: the past keeps nine tenths of its weight at each job."""

SURPRISE = 4.0
"""Standard deviations of noise beyond which a job is a surprise."""

FIRST_SPREADS = 4.0
"""What a site's only job may say about it, in spreads of all sites."""

PRIOR_NOISE = 0.1
PRIOR_REPEATS = 3
MIN_NOISE = 0.005
NOISE_GAIN = 0.02
ABSOLUTE = math.sqrt(math.pi / 2)
"""Standard deviations in a mean absolute deviation of normal residuals."""

QUANTILE = 0.9
QUANTILE_GAIN = 0.05
NORMAL_QUANTILE = 1.2816

SAMPLE_SITES = 32
"""Sites whose jobs draw the line: those with the smallest hashes, an even sample whatever the order of the work."""

SAMPLE_JOBS = 64
FIT_EVERY = SAMPLE_JOBS
"""Jobs of known sites in the sample from one fit of the line to the next, at most: by then it has been renewed whole. A
new site is fitted at once.
"""

MIN_SHARED = 2

MAX_SITES = 100_000


@dataclass(slots=True)
class Seen:
    """What one site took: means over `count` jobs, and the side on which the last one was a surprise (-1, 0, 1)."""

    count: int
    units: float
    seconds: float
    surprise: int = 0


class Pace:
    """Durations of one kind of work on one kind of device; costs microseconds per job, memory per site."""

    def __init__(self, line: Line, reference: Pace | None = None) -> None:
        self.line = line
        self._reference = reference
        self._overhead_units = line.overhead_units
        self._spread = PRIOR_SPREAD
        self._noise = PRIOR_NOISE
        self._repeats = PRIOR_REPEATS
        self._quantile = NORMAL_QUANTILE
        self._sites: dict[str, Seen] = {}
        self._sample: list[tuple[int, str]] = []
        self._sampled: set[str] = set()
        self._jobs: deque[tuple[str, float, float]] = deque()
        self._taken = 0
        self._learned = 0
        self._factors: dict[str, float] = {}
        self._predicted: dict[tuple[str, float], float] = {}
        self._factors_of = 0

    def predict(self, site: str, units: float) -> float:
        """Predict seconds: the median of what is thought possible; kept until there is more to go by."""
        self._look()
        found = self._predicted.get((site, units))
        if found is None:
            found = self._predicted[site, units] = self.line(units) * math.exp(self.factor(site))
        return found

    def upper(self, site: str, units: float) -> float:
        """Predict the seconds that nine jobs of ten keep, from the errors so far."""
        return self.predict(site, units) * math.exp(max(0.0, self._quantile) * self._deviation(site))

    def factor(self, site: str) -> float:
        """Give the logarithm of a site's factor, as far as it is certain; kept until there is more to go by."""
        self._look()
        found = self._factors.get(site)
        if found is None:
            found = self._factors[site] = self._factor(site)
        return found

    def _look(self) -> None:
        """Forget what was worked out before more was learned."""
        now = self._learned + (self._reference._learned if self._reference is not None else 0)
        if now != self._factors_of:
            self._factors, self._predicted, self._factors_of = {}, {}, now

    def _factor(self, site: str) -> float:
        """Work a site's factor out."""
        base = self._base(site)
        seen = self._sites.get(site)
        if seen is None:
            return base
        apart = math.log(seen.seconds / self.line(seen.units)) - base
        error = self._noise**2 / seen.count
        spread = self._spread_of(site)
        trust = spread**2 / (spread**2 + error)
        if seen.count == 1:
            limit = FIRST_SPREADS * math.hypot(spread, self._noise)
            apart = max(-limit, min(limit, apart))
        elif apart:
            trust = max(trust, 1.0 - 4.0 * error / apart**2)
        return base + trust * apart

    @property
    def usual_units(self) -> float:
        """Give the mean units of the sampled jobs."""
        return sum(job[1] for job in self._jobs) / max(1, len(self._jobs))

    @property
    def sites(self) -> Mapping[str, Seen]:
        """Give what was seen, by site."""
        return self._sites

    @property
    def spread(self) -> float:
        """Give the standard deviation of the logarithms of the sites' factors."""
        return self._spread

    def observe(self, site: str, units: float, seconds: float, predicted_s: float | None) -> None:
        """Learn from one job of positive duration, which was thought to take `predicted_s`, if anything was thought."""
        if self._sites and predicted_s is not None:
            self._learn_quantile(math.log(seconds / predicted_s) / self._deviation(site))
        seen = self._sites.pop(site, None)
        if seen is None:
            self._admit(site)
        self._sites[site] = Seen(1, units, seconds) if seen is None else self._add(seen, units, seconds)
        if site in self._sampled:
            self._jobs.append((site, units, seconds))
            if len(self._jobs) > SAMPLE_JOBS:
                self._jobs.popleft()
            self._taken += 1
            if seen is None or self._taken % min(FIT_EVERY, self._taken // 8 + 1) == 0:
                self._fit()
        self._learned += 1

    def _add(self, seen: Seen, units: float, seconds: float) -> Seen:
        """Add a job to what its site took; a change starts the site anew."""
        expected = seen.seconds * self.line(units) / self.line(seen.units)
        error = math.log(seconds / expected)
        limit = SURPRISE * self._noise
        surprise = 0 if abs(error) <= limit else (1 if error > 0 else -1)
        if surprise and (surprise == seen.surprise or (surprise < 0 and seen.count == 1)):
            return Seen(1, units, seconds)
        if not surprise:
            self._learn_noise(abs(error) / math.sqrt(1.0 + 1.0 / seen.count))
        seconds = expected * math.exp(max(-limit, min(limit, error)))
        count = min(MAX_COUNT, seen.count + 1)
        return Seen(
            count,
            seen.units + (units - seen.units) / count,
            seen.seconds + (seconds - seen.seconds) / count,
            surprise,
        )

    def _learn_noise(self, size: float) -> None:
        """Follow the standard deviation of a site's jobs about its mean."""
        self._repeats += 1
        gain = max(NOISE_GAIN, 1.0 / self._repeats)
        self._noise = max(MIN_NOISE, self._noise + gain * (ABSOLUTE * size - self._noise))

    def _learn_quantile(self, deviations: float) -> None:
        """Follow the upper quantile of the errors (Robbins and Monro 1951), in standard deviations."""
        self._quantile += QUANTILE_GAIN * (QUANTILE - (deviations <= self._quantile))

    def _admit(self, site: str) -> None:
        """Make room for a new site, in the sample too if its hash is among the smallest."""
        if len(self._sites) >= MAX_SITES:
            del self._sites[next(iter(self._sites))]
        entry = (-crc32(site.encode()), site)
        if site in self._sampled:
            return
        self._sampled.add(site)
        if len(self._sample) < SAMPLE_SITES:
            heappush(self._sample, entry)
            return
        dropped = heappushpop(self._sample, entry)[1]
        self._sampled.remove(dropped)
        if dropped != site:
            self._jobs = deque(job for job in self._jobs if job[0] != dropped)

    def _fit(self) -> None:
        """Draw the line anew through the sample's jobs."""
        jobs = [job for job in self._jobs if job[0] in self._sites]
        shared = [job for job in jobs if self._is_shared(job[0])] if self._reference is not None else []
        if len({site for site, _, _ in shared}) >= MIN_SHARED:
            jobs = shared
        points = []
        for site, units, seconds in jobs:
            seen, known = self._sites[site], math.exp(-self._base(site))
            points.append(Point(units, seconds * known, seen.units, seen.seconds * known, seen.count))
        if points:
            self.line, self._spread = fit(self.line, self._overhead_units, points, self._noise)

    def _base(self, site: str) -> float:
        """Give what is known of a site's factor from the device kind on which this work was first seen."""
        return self._reference.factor(site) if self._reference is not None else 0.0

    def _is_shared(self, site: str) -> bool:
        """Say whether the reference knows a site."""
        return self._reference is not None and site in self._reference._sites

    def _spread_of(self, site: str) -> float:
        """Give what a site's factor may be about its base: wider for one that the reference does not know."""
        if self._reference is None or self._is_shared(site):
            return self._spread
        return max(PRIOR_SPREAD, self._spread, self._reference._spread)

    def _deviation(self, site: str) -> float:
        """Give the standard deviation of the logarithm of a site's next job."""
        seen = self._sites.get(site)
        return math.hypot(self._noise, self._spread_of(site) if seen is None else self._noise / math.sqrt(seen.count))

    def state(self) -> dict[str, Any]:
        """Return all that was learned, as JSON has it."""
        return {
            "line": [self.line.overhead_s, self.line.unit_s],
            "overhead_units": self._overhead_units,
            "spread": self._spread,
            "noise": self._noise,
            "repeats": self._repeats,
            "quantile": self._quantile,
            "sites": [
                [site, seen.count, seen.units, seen.seconds, seen.surprise] for site, seen in self._sites.items()
            ],
            "jobs": [list(job) for job in self._jobs],
            "taken": self._taken,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], reference: Pace | None = None) -> Pace:
        """Make what `state` returned work again."""
        pace = cls(Line(*state["line"]), reference)
        for site, count, units, seconds, surprise in state["sites"]:
            pace._admit(site)
            pace._sites[site] = Seen(count, units, seconds, surprise)
        pace._overhead_units = state["overhead_units"]
        pace._spread, pace._noise = state["spread"], state["noise"]
        pace._repeats, pace._quantile = state["repeats"], state["quantile"]
        pace._jobs = deque((site, units, seconds) for site, units, seconds in state["jobs"])
        pace._taken = state["taken"]
        return pace
