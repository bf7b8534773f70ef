"""What a crew knows of its jobs ahead, and what it learns from their ends: seconds, memory, who may take them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property

from hierfl.config.schema import SiteSettings
from hierfl.errors import ConfigError
from hierfl.runtime.blame import MAX_ATTEMPTS, Blame
from hierfl.runtime.estimates import Estimates
from hierfl.runtime.jobs import Inventory, SiteReport
from hierfl.runtime.results import Group
from hierfl.runtime.roster import Call, Roster
from hierfl.runtime.warmth import Warmth
from scheduler import Device, Job, JobKey, infeasible

__all__ = ["ALL_SAMPLES", "WAY_OUT", "Foresight", "check_needs"]

ALL_SAMPLES = 1 << 20
"""The batch size that stands for all of a site's samples at once."""

LEARN_AT = (1, 4, 16)
"""Observations of one kind of work after which what waits is predicted anew: nothing is known before the first."""

WAY_OUT = "give a device more memory_gib, lower training.batch_size"
MOST_NAMED = 5
"""Sites that a message names one by one."""


class Foresight:
    """Makes the scheduler's jobs of a crew's groups; `groups` are those that are open, by name."""

    def __init__(
        self,
        estimates: Estimates,
        sites: Mapping[str, SiteSettings],
        groups: Mapping[str, Group],
        blame: Blame,
        roster: Roster,
    ) -> None:
        self.estimates = estimates
        self.warmth = Warmth()
        self._roster = roster
        self._sites = sites
        self._groups = groups
        self._blame = blame
        self._seen: dict[str, int] = {}
        self._answered: set[tuple[str, str]] = set()
        """(kind of work, site) that has ended in this run."""

    def job(self, group: Group, site: str, order: int) -> Job:
        """Write what the scheduler must know of a site's work, with what it is thought to take.

        A site under which a worker has died counts as unknown, so that it shares a call with no other.
        """
        settings = self._sites.get(site)
        is_guess = (group.kind, site) not in self._answered
        return self.estimates.job(
            *(group, site, order, settings, batch_size(self._sites, site)),
            estimate_s=self._usual_s(group, site, settings.labels if settings is not None else frozenset()),
            is_guess=is_guess,
            is_alone=is_guess and group.one_by_one,  # the hub may go on without it, and must not miss those behind it
        )

    def predict(self, job: Job, device: Device | None) -> float | None:
        """Predict a job's seconds on a device, or on the usual kind of those that may take it."""
        group = self._groups.get(job.group)
        if group is None:
            return None
        return (
            self._seconds(group, job.name, device.kind)
            if device is not None
            else self._usual_s(group, job.name, job.labels)
        )

    def _usual_s(self, group: Group, site: str, labels: frozenset[str]) -> float | None:
        """Predict a site's seconds on the usual kind of device among those that may take it."""
        return self._seconds(group, site, self._roster.usual_kind(labels))

    def _seconds(self, group: Group, site: str, kind: str) -> float | None:
        """Predict a site's seconds on a kind of device; unknown where a worker has died under it."""
        if self._blame.suspects((group.name, site)):
            return None
        return self.estimates.predict(group.kind, site, group.sizes[site], kind)

    def renewed(self, job: Job) -> Job:
        """Predict a waiting job anew."""
        return replace(job, estimate_s=self.predict(job, None))

    @cached_property
    def allowed_s(self) -> Callable[[Job], float] | None:
        """What says how long a job may take, infinite where it has no limit; None if no site has one."""
        limits_s = {site: settings.timeout_s for site, settings in self._sites.items()}
        known_s = {site: limit_s for site, limit_s in limits_s.items() if limit_s is not None}
        return (lambda job: known_s.get(job.name, math.inf)) if known_s else None

    def learn(
        self,
        group: Group,
        durations: Mapping[str, float],
        device: Device,
        others: int,
        company: int | None,
        alone_s: float,
    ) -> tuple[bool, float | None]:
        """Learn durations by site; say whether enough is new that what waits should be predicted anew, and the rate.

        See `Estimates.learn`.
        """
        work = {site: (group.sizes[site], seconds) for site, seconds in durations.items()}
        rate = self.estimates.learn(group.kind, work, device, company, others, alone_s)
        seen = self._seen.get(group.kind, 0)
        self._seen[group.kind] = seen + len(work)
        self._answered.update((group.kind, site) for site in work)
        return any(seen < count <= seen + len(work) for count in LEARN_AT), rate

    def saves(self, job: Job) -> dict[str, float]:
        """Give the devices that hold the data of a job's site, with the seconds that loading them would take."""
        seconds = self.estimates.loads_s.get(job.name, 0.0)
        holders = self.warmth.holders(job.name) if seconds else ()
        return {self._roster.devices[worker].name: seconds for worker in holders}

    def learn_loads(self, worker: str, used: Iterable[SiteReport | Inventory]) -> None:
        """Learn what loading took, and what a worker holds."""
        for item in used:
            if item.load_s and item.is_kept:
                self.estimates.learn_load(item.site, item.load_s)
            self.warmth.used(worker, item.site, was_loaded=item.load_s > 0, is_kept=item.is_kept)

    def learn_memory(self, group: Group, reports: Iterable[SiteReport], device: Device) -> None:
        """Learn measured peaks."""
        for report in reports:
            if report.peak_bytes:
                size = batch_size(self._sites, report.site)
                self.estimates.learn_memory(size, report.peak_bytes, group.round_number, device.kind)

    def without_memory(self, call: Call, group: Group, reports: Iterable[SiteReport], device: Device) -> list[str]:
        """Learn from jobs that ran out of memory; list those that may fit at another time, or in no company."""
        short = [report.site for report in reports if report.out_of_memory]
        again = []
        for job in [job for job in call.work if job.name in short]:
            attempts = self._blame.failed(job.key)
            size = batch_size(self._sites, job.name)
            self.estimates.out_of_memory(size, job, group.round_number, device, call.company - call.others)
            if call.company and attempts < MAX_ATTEMPTS:
                again.append(job.name)
        return again

    def given_up(self, refused: Mapping[JobKey, str]) -> dict[str, dict[str, str]]:
        """Say why work is given up that no device will take: by group and site."""
        found: dict[str, dict[str, str]] = {}
        for (group, site), reason in refused.items():
            found.setdefault(group, {})[site] = f"no device can take it: {reason}"
        return found


def batch_size(sites: Mapping[str, SiteSettings], site: str) -> int:
    """Give the batch size by which a site's memory is learned."""
    settings = sites.get(site)
    return (settings.training.batch_size if settings is not None else None) or ALL_SAMPLES


def check_needs(estimates: Estimates, sites: Mapping[str, SiteSettings], devices: Iterable[Device]) -> None:
    """Look for sites that need more memory than earlier runs of them have left on any device.

    Errors: ConfigError that names them all.
    """
    jobs = [
        estimates.job(Group("", "train", "", 0, {site: 0}), site, 0, settings, batch_size(sites, site))
        for site, settings in sites.items()
    ]
    reasons: dict[str, list[str]] = {}
    for (_, site), reason in infeasible(jobs, devices).items():
        reasons.setdefault(reason, []).append(site)
    if not reasons:
        return
    listed = []
    for reason, found in reasons.items():
        more = f" and {len(found) - MOST_NAMED} more sites" if len(found) > MOST_NAMED else ""
        listed.append(f"{', '.join(found[:MOST_NAMED])}{more}: each {reason}")
    forget = f", or remove {estimates.path} to learn anew" if estimates.path is not None else ""
    raise ConfigError(f"runtime.devices: no device can train {'; '.join(listed)}; {WAY_OUT}{forget}")
