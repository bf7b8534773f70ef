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
from typing import NamedTuple

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


class Point(NamedTuple):
    """One job, and what its site usually takes: seconds without the factor that is known of the site from elsewhere.

    `num_jobs`: those behind the site's means.
    """

    units: float
    seconds: float
    mean_units: float
    mean_s: float
    num_jobs: float


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
        up, turn = _step(_normal(*across, error, data.num_sites / len(points)), _inside(*inside, noise), prior - logit)
        level, logit = level + up, min(MAX_LOGIT, max(-MAX_LOGIT, logit + turn))
    share, seconds = 1.0 / (1.0 + math.exp(-logit)), math.exp(level)
    between = MEDIAN * float(np.sort(np.abs(data.across(level, share)))[len(points) // 2])
    found = math.sqrt(max(MIN_SPREAD**2, between**2 - data.mean_noise**2))
    spread = found * (PRIOR_SPREAD / found) ** (1.0 / (len(points) + 1))
    return Line((1.0 - share) * seconds, share * seconds / data.centre), spread


@dataclass(frozen=True, slots=True)
class _Data:
    """The points as arrays (n,); units in multiples of the `centre`, their mean, and seconds as logarithms.

    `both`: (2n,), the jobs' units and then those of their sites' means: NumPy takes as long to be called as to reckon.
    `apart`: a job's logarithm less its site's.
    """

    centre: float
    both: Floats
    log_mean_s: Floats
    apart: Floats
    num_sites: int
    noise: float
    mean_noise: float

    @classmethod
    def of(cls, points: Sequence[Point], noise: float) -> _Data:
        units, seconds, mean_units, mean_s, num_jobs = (np.array(column) for column in zip(*points, strict=True))
        centre = float(units.mean()) or 1.0
        sites = {(point.mean_units, point.mean_s) for point in points}
        mean_noise = noise * math.sqrt(float(np.mean(1.0 / num_jobs)))
        both, log_s, log_mean_s = np.concatenate((units, mean_units)) / centre, np.log(seconds), np.log(mean_s)
        return cls(centre, both, log_mean_s, log_s - log_mean_s, len(sites), noise, mean_noise)

    @property
    def num(self) -> int:
        """Count the points."""
        return len(self.apart)

    def residuals(self, level: float, logit: float) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Give residuals and their slopes in the logit: of the sites' means, and of the jobs against these."""
        share, num = 1.0 / (1.0 + math.exp(-logit)), self.num
        relative = 1.0 - share + share * self.both
        curves, slopes = np.log(relative), share * (1.0 - share) * (self.both - 1.0) / relative
        mean_curve, mean_slope = curves[num:], slopes[num:]
        inside = self.apart - curves[:num] + mean_curve
        return (self.log_mean_s - level - mean_curve, mean_slope), (inside, slopes[:num] - mean_slope)

    def across(self, level: float, share: float) -> Floats:
        """Give the residuals of the sites' means alone."""
        return self.log_mean_s - level - np.log(1.0 - share + share * self.both[self.num :])


def _start(data: _Data, logit: float, prior: float) -> tuple[float, float]:
    """Find the level, and whether another shape than today's explains the points far better."""
    num, middle = data.num, data.num // 2
    logits = np.array([min(MAX_LOGIT, max(-MAX_LOGIT, logit)), *STARTS])
    share = 1.0 / (1.0 + np.exp(-logits[:, np.newaxis]))
    curves = np.log(1.0 - share + share * data.both)
    mean_curves = curves[:, num:]
    across = np.sort(data.log_mean_s - mean_curves, axis=1)
    levels = across[:, (num - 1) // 3]
    across = MEDIAN * np.sort(np.abs(across - levels[:, np.newaxis]), axis=1)[:, middle]
    inside = MEDIAN * np.sort(np.abs(data.apart - curves[:, :num] + mean_curves), axis=1)[:, middle]
    cost = 0.5 * ((logits - prior) / PRIOR_SD) ** 2
    cost += max(0, data.num_sites - 2) * np.log(np.hypot(across, data.mean_noise))
    cost += (num - data.num_sites) * np.log(np.hypot(inside, data.noise))
    cost[0] -= 1.0
    best = int(np.argmin(cost))
    return float(levels[best]), float(logits[best])


def _normal(residual: Floats, slope: Floats, error: float, share: float) -> tuple[float, ...]:
    """Give the reweighted sums of the normal equations, a share of them: 1, slope, slope^2; residual, and by slope."""
    weight = _weights(residual, error, share)
    turned = weight * slope
    return tuple(map(float, (weight.sum(), turned.sum(), turned @ slope, weight @ residual, turned @ residual)))


def _inside(residual: Floats, slope: Floats, error: float) -> tuple[float, float]:
    """Give those that tell of the logit alone: slope^2, and residual by slope."""
    turned = _weights(residual, error, 1.0) * slope
    return float(turned @ slope), float(turned @ residual)


def _weights(residual: Floats, error: float, share: float) -> Floats:
    """Weigh residuals after Huber, each by a share of one over its variance."""
    return share / error**2 * np.minimum(1.0, HUBER * error / np.maximum(np.abs(residual), error))


def _step(across: tuple[float, ...], inside: tuple[float, float], to_prior: float) -> tuple[float, float]:
    """Take one Gauss-Newton step in (level, logit); only what lies across sites tells of the level."""
    a, b, c, right, left = across
    c += inside[0] + PRIOR_SD**-2
    left += inside[1] + to_prior * PRIOR_SD**-2
    turn = max(-MAX_STEP, min(MAX_STEP, (a * left - b * right) / (a * c - b * b)))
    return (right - b * turn) / a, turn
