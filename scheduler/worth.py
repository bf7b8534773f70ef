"""Worth of company: a job that would shut better company out does not join others for a trifle.

One more job nearly always raises what a device does per second, but not what that is worth: where jobs need unequal
memory places are scarce, and a small job that takes the last one beside a middling one keeps out the job that would
have filled the memory. So the classes of open work (by model and memory) have prices, those of the linear program that
bounds the time (`scheduler.prices`), and what a device may hold at once is worth its work per second at these prices. A
job joins where that is worth a tenth more with it, which is what a job has to gain elsewhere too
(`scheduler.colocation`), or where the best company that those who are there may still get is as good with it. What goes
first of all that wait for the device joins in any case, so that nothing urgent waits for its price, and a device
without work takes what it may.

The work of a class is that of the rounds that are open, with what of them is done: what waits at the moment says
nothing of what is scarce when a round ends. Prices rest while the mix is about the same. Labels are not in them: of two
jobs with equal needs neither is worth more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from scheduler.colocation import GAIN
from scheduler.eligibility import admitted_bytes
from scheduler.prices import Make, best_prices
from scheduler.views import Device, Job

__all__ = ["Total", "Worth"]

Total = Callable[[Sequence[str], Device], float | None]
"""The total rate of jobs of these models at once on a device, relative to one alone; None if it is not known."""

FULL = 0.99
"""A company worth this part of another one counts as worth as much."""

STEP = 1.1
"""A class whose work has changed by this factor has new prices made."""

MAX_SETS = 500
"""Sets of jobs on all makes of devices beyond which there are no prices, and any company will do."""

_Class = tuple[str, int]
"""(model, bytes as admitted)."""

_Company = tuple[_Class, ...]
"""Classes in sorted order, with repetition."""

_Make = tuple[str, int | None, int]
"""What prices tell of a device: its kind, memory and places."""


@dataclass(slots=True)
class _Open:
    """A run's open work of one class: jobs, those of known duration, and their seconds; the last job that came."""

    sample: Job
    num: int = 0
    num_known: int = 0
    known_s: float = 0.0

    def count(self, job: Job, times: int) -> None:
        """Count a job in (1) or out (-1)."""
        self.num += times
        if job.estimate_s is not None:
            self.num_known += times
            self.known_s += times * job.estimate_s

    @property
    def seconds(self) -> float | None:
        """What all of it takes, the mean for those of unknown duration; None if no duration is known."""
        return self.known_s / self.num_known * self.num if self.num_known else None


class Worth:
    """Prices of open work, and what companies are worth at them. `predict`: a job's seconds on a device."""

    def __init__(self, total: Total, predict: Callable[[Job, Device], float | None]) -> None:
        self._total = total
        self._predict = predict
        self._jobs: dict[str, dict[str, Job]] = {}
        self._open: dict[str, dict[_Class, _Open]] = {}
        self.is_stale = True
        """Whether work was asked for, or devices have changed, since prices were last looked at."""
        self._seen: object = None
        self._values: Mapping[_Make, Mapping[_Company, float]] = {}
        self._mosts: dict[tuple[_Company, _Make], float] = {}

    def ask(self, job: Job) -> None:
        """A job is asked for, in place of the one of its name in the round before, or is predicted anew."""
        jobs, classes = self._jobs.setdefault(job.run, {}), self._open.setdefault(job.run, {})
        before = jobs.get(job.name)
        if before is not None:
            found = classes[_class(before)]
            found.count(before, -1)
            if not found.num:
                del classes[_class(before)]
        jobs[job.name] = job
        found = classes.setdefault(_class(job), _Open(job))
        found.sample, self.is_stale = job, True
        found.count(job, 1)

    def settle(self, runs: Collection[str], devices: Iterable[Device]) -> bool:
        """Take in which runs have work still, and what devices there are; True if there are new prices."""
        self.is_stale = False
        for gone in [run for run in self._jobs if run not in runs]:
            del self._jobs[gone], self._open[gone]
        work: dict[_Class, float | None] = {}
        samples: dict[_Class, Job] = {}
        for classes in self._open.values():
            for key, found in classes.items():
                seconds, so_far = found.seconds, work.get(key, 0.0)
                work[key] = None if seconds is None or so_far is None else so_far + seconds
                samples[key] = found.sample
        known = {key: seconds for key, seconds in sorted(work.items()) if seconds}
        makes: dict[_Make, list[Device]] = {}
        for device in devices:
            makes.setdefault(_make(device), []).append(device)
        rates = self._rates(samples, makes) if 2 <= len(known) == len(work) else {}
        seen = (
            {key: round(math.log(seconds, STEP)) for key, seconds in known.items()},
            {make: len(alike) for make, alike in makes.items()},
            {make: {held: round(rate, 2) for held, rate in found.items()} for make, found in rates.items()},
        )
        if seen == self._seen:
            return False
        self._seen, self._values, self._mosts = seen, {}, {}
        if rates:
            self._price(known, samples, makes, rates)
        return True

    def joins(self, beside: Sequence[Job], job: Job, device: Device) -> bool:
        """Say whether a job should join others on a device: it gains a tenth, or shuts nothing better out."""
        make = _make(device)
        values = self._values.get(make, {})
        before, after = (tuple(sorted(map(_class, company))) for company in (beside, (*beside, job)))
        if before not in values or after not in values or values[after] >= GAIN * values[before]:
            return True
        return self._most(after, make) >= FULL * self._most(before, make)

    def _most(self, company: _Company, make: _Make) -> float:
        """Give what the best company that begins with this one is worth."""
        found = self._mosts.get((company, make))
        if found is None:
            inside = Counter(company)
            larger = (value for held, value in self._values[make].items() if not inside - Counter(held))
            found = self._mosts[company, make] = max(larger)
        return found

    def _price(
        self,
        work: Mapping[_Class, float],
        samples: Mapping[_Class, Job],
        makes: Mapping[_Make, Sequence[Device]],
        rates: Mapping[_Make, Mapping[_Company, float]],
    ) -> None:
        """Put prices on this work and these devices, and with them values on all companies."""
        places = {key: place for place, key in enumerate(work)}
        rows: dict[_Make, dict[_Company, list[float]]] = {make: {} for make in makes}
        for make, alike in makes.items():
            speeds = {key: self._speed(samples[key], alike[0]) for key in work}
            for held, rate in rates[make].items():
                row = rows[make][held] = [0.0] * len(work)
                for key in held:
                    row[places[key]] += speeds[key] * rate / len(held)
        if not all(any(row[place] for made in rows.values() for row in made.values()) for place in places.values()):
            return
        fleet = [Make(len(makes[make]), list(made.values())) for make, made in rows.items()]
        prices, _ = best_prices(list(work.values()), fleet)
        self._values = {
            make: {held: float(np.dot(row, prices)) for held, row in made.items()} for make, made in rows.items()
        }

    def _rates(
        self, samples: Mapping[_Class, Job], makes: Mapping[_Make, Sequence[Device]]
    ) -> dict[_Make, dict[_Company, float]]:
        """List what devices may hold at once, with its total rate where that is known; nothing if there is too much."""
        found: dict[_Make, dict[_Company, float]] = {make: {} for make in makes}
        classes, num_sets = sorted(samples), 0
        for make, alike in makes.items():
            capacity = math.inf if alike[0].memory_bytes is None else alike[0].memory_bytes
            for num in range(1, alike[0].places + 1):
                num_sets += math.comb(len(classes) + num - 1, num)
                if num_sets > MAX_SETS:
                    return {}
                for held in combinations_with_replacement(classes, num):
                    if num == 1 and samples[held[0]].memory_bytes <= capacity:
                        found[make][held] = 1.0  # as measured, not as admitted beside others
                    elif num > 1 and sum(memory for _, memory in held) <= capacity:
                        rate = self._total([model for model, _ in held], alike[0])
                        found[make] |= {} if rate is None else {held: rate}
        return found

    def _speed(self, job: Job, device: Device) -> float:
        """Give the speed of a device at a class, relative to the usual device; 1 while that is not known."""
        seconds = self._predict(job, device)
        return job.estimate_s / seconds if job.estimate_s and seconds else 1.0


def _class(job: Job) -> _Class:
    return (job.model, admitted_bytes(job.memory_bytes))


def _make(device: Device) -> _Make:
    return (device.kind, device.memory_bytes, device.places)
