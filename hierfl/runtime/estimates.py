"""What a run learns about its work: durations, memory, and whether sharing a device pays. Kept in a file on wish.

The file is JSON and holds no data of a site but its path: how long its work takes, what memory it needs. A later run of
the same federation begins with it, and schedules its first round as well as its last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hierfl.config.schema import SiteSettings
from hierfl.errors import ConfigError, OutputError
from hierfl.runtime.results import Group
from hierfl.runtime.seats import PROCESS
from scheduler import Colocation, Device, Durations, Job, Memory, Model
from scheduler.eligibility import admitted_bytes

__all__ = ["Estimates"]

VERSION = 1

EAGER = (PROCESS,)

LONG_S = 1.0
"""Longer work shares a process without a comparison: it has not many jobs to learn from."""


class Estimates:
    """Predictions for one model; `model` names it in the file, so that other models' figures stay apart."""

    def __init__(self, model: str, path: Path | None = None) -> None:
        self.model = model
        self.path = path
        self.durations = Durations()
        self.memory = Memory()
        self.colocation = Colocation(EAGER)
        self.loads_s: dict[str, float] = {}
        """What loading a site's data takes, by path."""

    @classmethod
    def open(cls, model: str, path: Path | None, *, named: str = "runtime.estimates:") -> Estimates:
        """Read what earlier runs learned, if they kept it; `named`: what named the file.

        Errors: ConfigError for one that cannot be read, or is no file of estimates.
        """
        made = cls(model, path)
        if path is None or not path.exists():
            return made
        try:
            content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if content["version"] != VERSION:
                way = "remove it to learn anew, or name another file"
                raise ConfigError(f"{named} {path} is of version {content['version']}, not {VERSION}; {way}")
            made.durations = Durations.from_state(content["durations"])
            made.memory = Memory.from_state(content["memory"])
            made.colocation = Colocation.from_state(content["colocation"], EAGER)
            made.loads_s = {str(site): float(seconds) for site, seconds in content.get("loads_s", {}).items()}
        except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
            said = error if isinstance(error, OSError) else f"it is no file of estimates, which a run writes ({error})"
            raise ConfigError(f"{named} {path} cannot be read: {said}; name another file") from error
        return made

    def save(self) -> None:
        """Write what was learned, at once or not at all. Errors: OutputError."""
        if self.path is None:
            return
        content = {
            "version": VERSION,
            "durations": self.durations.state(),
            "memory": self.memory.state(),
            "colocation": self.colocation.state(),
            "loads_s": self.loads_s,
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            beside.write_text(json.dumps(content), encoding="utf-8")
            beside.replace(self.path)
        except OSError as error:
            raise OutputError(f"runtime.estimates: {self.path}: {error.strerror or error}") from error

    def predict(self, kind: str, site: str, units: float, device: str = "") -> float | None:
        """Predict the seconds of a site's work; None before anything of its kind was seen."""
        return self.durations.predict(kind, site, units, device, self.model)

    def learn(
        self,
        kind: str,
        work: Mapping[str, tuple[float, float]],
        device: Device,
        company: int | None,
        others: int = 0,
        alone_s: float = 0.0,
    ) -> float | None:
        """Learn from a chunk of work, units and seconds by site, that had so many other jobs beside it all the time.

        None: the company changed. What was in company tells little of durations, and is learned only until something
        was alone. A rate is told against what is known of jobs alone: there is none before. `others`: so many of the
        company are of other runs; what that gives is learned where all of them are known. `alone_s`: so long the work
        went on by itself when its company was done; of two jobs that share unevenly both tell, not the faster one only.
        Give the rate (as of `Colocation.observe`), if there is one to be told.
        """
        knows, is_alone = self.durations.knows(kind, device.kind, self.model), company == 0
        took_s = sum(seconds for _, seconds in work.values())
        if is_alone or not knows:
            jobs = ((site, units, seconds) for site, (units, seconds) in work.items())
            known = self.durations.observe_all(kind, jobs, device.kind, self.model, is_alone=is_alone)
        else:
            known = [self.predict(kind, site, units, device.kind) for site, (units, _) in work.items()]
        known_s = sum(seconds or 0.0 for seconds in known)
        if device.places == 1 or kind != "train" or company is None or not took_s:
            return None
        if not knows:
            if company and not others:
                self.colocation.tried(self.model, [self.model] * company, device.kind)
            return None
        known_s, took_s = known_s - alone_s, took_s - alone_s
        if known_s <= 0.0 or took_s < alone_s:  # it was alone for most of the time
            return None
        if not others:
            self.colocation.observe(self.model, [self.model] * company, known_s / took_s, device.kind)
        return known_s / took_s if company == others else None

    def trains(self, device: Device) -> Model:
        """Say what the run trains, for company of other runs: its largest job, and what its own jobs gain together."""
        memory_bytes = admitted_bytes(self.memory.largest(self.model, device.kind) or 0)
        return Model(
            self.model, memory_bytes, max(self.colocation.curve(self.model, device.kind).values(), default=1.0)
        )

    def learn_memory(self, batch_size: int, peak_bytes: int, round_number: int, device: str) -> None:
        """Learn the peak that a device has measured."""
        self.memory.observe(self.model, batch_size, peak_bytes, round_number, device)

    def learn_load(self, site: str, seconds: float) -> None:
        """Learn what loading a site's data took; the newest counts for half."""
        self.loads_s[site] = (self.loads_s.get(site, seconds) + seconds) / 2

    def out_of_memory(self, batch_size: int, job: Job, round_number: int, device: Device, company: int) -> None:
        """Learn that a job's memory did not suffice, beside so many others."""
        if job.memory_bytes:
            self.memory.out_of_memory(self.model, batch_size, job.memory_bytes, round_number, device.kind)
        if company:
            self.colocation.out_of_memory([self.model] * (company + 1), device.kind)

    def job(
        self,
        group: Group,
        site: str,
        order: int,
        settings: SiteSettings | None,
        batch_size: int,
        *,
        estimate_s: float | None = None,
        is_guess: bool = False,
        is_alone: bool = False,
    ) -> Job:
        """Write what the scheduler must know of a site's work, with the seconds that it is thought to take."""
        need = self.need_bytes(batch_size) if group.kind in ("train", "fine_tune") else 0
        labels: frozenset[str] = settings.labels if settings is not None else frozenset()
        return Job(
            *(group.name, site, group.sizes[site], estimate_s, order),
            chain_s=group.chain_s,
            labels=labels,
            memory_bytes=need,
            model=self.model,
            is_guess=is_guess,
            is_alone=is_alone,
        )

    def errors(self) -> dict[str, dict[str, float]]:
        """Give, by kind of work, how far predictions were off: the median and the 90th percentile, relative."""
        return {
            kind: {"num": float(found.num), "median": found.median, "p90": found.p90}
            for kind, found in self.durations.error().items()
        }

    def need_bytes(self, batch_size: int, device: str = "") -> int:
        """Predict the peak memory of a job; 0 if it was never measured."""
        return self.memory.predict(self.model, batch_size, device) or 0

    def rates(self, device: Device) -> tuple[float, ...]:
        """Give a device's total rate with 1, 2, ... jobs, as measured; else one more adds all of its own."""
        measured = self.colocation.curve(self.model, device.kind)
        found = [1.0]
        for num in range(2, device.places + 1):
            found.append(min(float(num), measured.get(num, found[-1] + 1.0)))
        return tuple(found)

    def total(self, models: Sequence[str], device: Device) -> float | None:
        """Give the total rate of jobs of these models at once on a device, as measured; None if it was not."""
        return self.colocation.total(models, device.kind)

    def gains(self, running: Sequence[Job], job: Job, device: Device) -> bool:
        """Say whether a job should join others on a device."""
        if device.kind in EAGER and (job.estimate_s or 0.0) > LONG_S:
            return True
        taken = sum(other.memory_bytes for other in running)
        free = None if device.memory_bytes is None else device.memory_bytes - taken
        models = [other.model for other in running]
        return self.colocation.gain(models, job.model, device.kind, device.places, job.memory_bytes, free)
