"""A robust line in log space: `t = overhead + rate * units`, fitted to what many sites took.

The residuals are relative (logarithms of measured over fitted), so that a site of a second counts as much as one of an
hour. Jobs of one site share the site's own factor, a random effect, so that the data fall into two parts (Fuller and
Battese 1974): a job against the mean of its site tells of the slope whatever the site's factor, with the noise of a job
as its error; the means of the sites tell of level and slope, with the spread of the sites as theirs. Weights after
Huber (1964) bound what an outlier can do. The start and the spread are lower tertiles: imports, loading and company
make a job slower and nothing makes it faster, so that even half of the sites may have been slow when first seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Line", "Point", "fit"]

Floats = NDArray[np.float64]

STEPS = 3
"""Gauss-Newton steps at each fit; the next fit goes on where this one ended."""

HUBER = 1.5
"""Scales beyond which a residual counts as if it stood there."""

STARTS = (-4.0, -2.0, 0.0, 2.0, 4.0)
"""Shapes from which a fit may start instead of the last one."""

MEDIAN = 1.4826
"""Standard deviations in the median of absolute normal residuals."""

TERTILE = 2.3214
"""Standard deviations in the lower tertile of absolute normal residuals."""

MIN_SPREAD = 0.01
MAX_LOGIT = 9.0
MAX_STEP = 1.5
PRIOR_SD = 2.5
"""Uncertainty, as a logit, of the share of the time that grows with the units, before anything is known."""

PRIOR_SPREAD = 0.3
"""Spread of sites about the line, as a logarithm, that counts like one job."""


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds for some units of work: both parts are positive, so that more work never takes less time."""

    overhead_s: float
    unit_s: float

    def __call__(self, units: float) -> float:
        """Give the seconds for `units` of work."""
        return self.overhead_s + self.unit_s * units

    def scaled(self, factor: float) -> Line:
        """Give the line of a device on which everything takes `factor` times as long."""
        return Line(self.overhead_s * factor, self.unit_s * factor)

    @property
    def overhead_units(self) -> float:
        """Give the work that takes as long as the overhead."""
        return self.overhead_s / self.unit_s

    @classmethod
    def through(cls, units: float, seconds: float, overhead_units: float) -> Line:
        """Give the line through one point whose overhead is worth so many units."""
        unit_s = seconds / (overhead_units + units)
        return cls(overhead_units * unit_s, unit_s)


@dataclass(frozen=True, slots=True)
class Point:
    """One job, and what its site usually takes: seconds without the factor that is known of the site from elsewhere.

    `count`: jobs behind the site's means.
    """

    units: float
    seconds: float
    mean_units: float
    mean_s: float
    count: float


def fit(line: Line, overhead_units: float, points: Sequence[Point], noise: float) -> tuple[Line, float]:
    """Improve a line by what was seen; return it with the sites' spread about it.

    `overhead_units` is the prior guess of the overhead, which matters as long as the points have no other opinion.
    `noise` and the spread are standard deviations of logarithms: of a site's jobs about its mean, of sites about the
    line.
    """
    data = _Data.of(points, noise)
    prior = math.log(data.centre / overhead_units)
    level, logit = _start(data, math.log(data.centre / line.overhead_units), prior)
    error = 0.0
    for _ in range(STEPS):
        across, inside = data.residuals(level, logit)
        error = error or max(MIN_SPREAD, TERTILE * float(np.sort(np.abs(across[0]))[len(points) // 3]))
        up, turn = _step(
            _normal(*across, error, data.num_sites / len(points)),
            _normal(*inside, noise, 1.0),
            prior - logit,
        )
        level, logit = level + up, min(MAX_LOGIT, max(-MAX_LOGIT, logit + turn))
    share, seconds = 1.0 / (1.0 + math.exp(-logit)), math.exp(level)
    between = MEDIAN * float(np.sort(np.abs(data.residuals(level, logit)[0][0]))[len(points) // 2])
    found = math.sqrt(max(MIN_SPREAD**2, between**2 - data.mean_noise**2))
    spread = found * (PRIOR_SPREAD / found) ** (1.0 / (len(points) + 1))
    return Line((1.0 - share) * seconds, share * seconds / data.centre), spread


@dataclass(frozen=True, slots=True)
class _Data:
    """The points as arrays; units in multiples of the `centre`, their mean, and seconds as logarithms."""

    centre: float
    units: Floats
    log_s: Floats
    mean_units: Floats
    log_mean_s: Floats
    num_sites: int
    noise: float
    mean_noise: float

    @classmethod
    def of(cls, points: Sequence[Point], noise: float) -> _Data:
        units, seconds, mean_units, mean_s, count = np.array(
            [(p.units, p.seconds, p.mean_units, p.mean_s, p.count) for p in points]
        ).T
        centre = float(units.mean()) or 1.0
        sites = {(point.mean_units, point.mean_s) for point in points}
        mean_noise = noise * math.sqrt(float(np.mean(1.0 / count)))
        units, mean_units, log_s, log_mean_s = units / centre, mean_units / centre, np.log(seconds), np.log(mean_s)
        return cls(centre, units, log_s, mean_units, log_mean_s, len(sites), noise, mean_noise)

    def residuals(self, level: float, logit: float) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Give residuals and their slopes in the logit: of the sites' means, and of the jobs against these."""
        curve, slope = _shape(logit, self.units)
        mean_curve, mean_slope = _shape(logit, self.mean_units)
        inside = self.log_s - self.log_mean_s - curve + mean_curve
        return (self.log_mean_s - level - mean_curve, mean_slope), (inside, slope - mean_slope)


def _shape(logit: float, units: Floats) -> tuple[Floats, Floats]:
    """Give the logarithm of the line over its value at the centre, and its slope in the logit."""
    share = 1.0 / (1.0 + math.exp(-logit))
    relative = 1.0 - share + share * units
    return np.log(relative), share * (1.0 - share) * (units - 1.0) / relative


def _start(data: _Data, logit: float, prior: float) -> tuple[float, float]:
    """Find the level, and whether another shape than today's explains the points far better."""
    num, middle = len(data.units), len(data.units) // 2
    logits = np.array([min(MAX_LOGIT, max(-MAX_LOGIT, logit)), *STARTS])
    share = 1.0 / (1.0 + np.exp(-logits[:, np.newaxis]))
    curves, mean_curves = (np.log(1.0 - share + share * units) for units in (data.units, data.mean_units))
    across = np.sort(data.log_mean_s - mean_curves, axis=1)
    levels = across[:, (num - 1) // 3]
    across = MEDIAN * np.sort(np.abs(across - levels[:, np.newaxis]), axis=1)[:, middle]
    inside = np.sort(np.abs(data.log_s - data.log_mean_s - curves + mean_curves), axis=1)
    inside = MEDIAN * inside[:, middle]
    cost = 0.5 * ((logits - prior) / PRIOR_SD) ** 2
    cost += max(0, data.num_sites - 2) * np.log(np.hypot(across, data.mean_noise))
    cost += (num - data.num_sites) * np.log(np.hypot(inside, data.noise))
    cost[0] -= 1.0
    best = int(np.argmin(cost))
    return float(levels[best]), float(logits[best])


def _normal(residual: Floats, slope: Floats, error: float, share: float) -> tuple[float, ...]:
    """Give the reweighted sums of the normal equations, a share of them: 1, slope, slope^2; residual, and by slope."""
    weight = share / error**2 * np.minimum(1.0, HUBER * error / np.maximum(np.abs(residual), error))
    turned = weight * slope
    return tuple(map(float, (weight.sum(), turned.sum(), turned @ slope, weight @ residual, turned @ residual)))


def _step(across: tuple[float, ...], inside: tuple[float, ...], to_prior: float) -> tuple[float, float]:
    """Take one Gauss-Newton step in (level, logit); only what lies across sites tells of the level."""
    a, b, c, right, left = across
    c += inside[2] + PRIOR_SD**-2
    left += inside[4] + to_prior * PRIOR_SD**-2
    turn = max(-MAX_STEP, min(MAX_STEP, (a * left - b * right) / (a * c - b * b)))
    return (right - b * turn) / a, turn
