"""What jobs are thought to take in a simulation: learned from what was seen, or known beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from scheduler.durations import Durations
from scheduler.views import Job
from scheduler.workload import Actual, Workload, site_path

__all__ = ["Forecast", "Learned", "Oracle"]


class Forecast(Protocol):
    """Predicts durations in seconds by device kind, and hears what jobs took."""

    def predict(self, job: Job, kind: str) -> float | None:
        """Predict a job's seconds, alone on a device of this kind; None if nothing is known."""

    def observe(self, job: Job, kind: str, duration_s: float) -> None:
        """Hear what a finished job took, as if alone on its device."""


class Learned:
    """The model that the live run learns, from nothing (or from what an earlier run has learned)."""

    def __init__(self, durations: Durations | None = None) -> None:
        self.durations = Durations() if durations is None else durations

    def predict(self, job: Job, kind: str) -> float | None:
        """Ask the model."""
        return self.durations.predict("train", job.name, job.size, device=kind, model=job.model)

    def observe(self, job: Job, kind: str, duration_s: float) -> None:
        """Teach the model."""
        self.durations.observe("train", job.name, job.size, duration_s, device=kind, model=job.model)


class Oracle:
    """Knows what every job will take, but for a relative error of log-sd `error` that stays with the job."""

    def __init__(
        self, workload: Workload, actual: Actual, error: float = 0.0, generator: np.random.Generator | None = None
    ) -> None:
        assert error == 0.0 or generator is not None, "errors are drawn from a generator"
        self._speeds: Mapping[str, float] = workload.speeds
        self._seconds = actual
        if generator is not None and error > 0.0:
            factors = np.exp(error * generator.standard_normal(len(actual)))
            self._seconds = {key: actual[key] * float(factor) for key, factor in zip(actual, factors, strict=True)}

    def predict(self, job: Job, kind: str) -> float | None:
        """Look it up."""
        seconds = self._seconds.get(job.key)
        return None if seconds is None else seconds / self._speeds.get(kind, 1.0)

    def observe(self, job: Job, kind: str, duration_s: float) -> None:
        """An oracle learns nothing."""

    @classmethod
    def nominal(cls, workload: Workload, actual: Actual) -> Oracle:
        """Know the sites' own durations, but not the noise of each round."""
        usual = {site_path(fed, hub, site): site.duration_s for fed, hub, site in workload.sites()}
        return cls(workload, {key: usual[key[1]] for key in actual})
