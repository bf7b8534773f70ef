"""A run's log as a case to be simulated, and as what has run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from statistics import median

from hierfl.errors import OutputError
from hierfl.planning.case import Case
from hierfl.planning.costs import from_log
from hierfl.planning.log import Log, Training
from hierfl.planning.ran import Ran, Worked
from hierfl.planning.shape import SiteWork
from scheduler.eligibility import usual_kind
from scheduler.views import Device
from tiers.federation import parent, rounds_per_round

__all__ = ["as_it_ran", "case_of_log", "newest"]


def newest(log: Log, rounds: int) -> Log:
    """Keep the newest rounds of the root, at least one, and what happened in them."""
    if len(log.rounds) <= rounds:
        return log
    kept = log.rounds[-rounds:]
    return replace(log, rounds=kept, calls=tuple(call for call in log.calls if call.end_s > kept[0].start_s))


def case_of_log(log: Log) -> Case:
    """Make the case of what a run has done. Errors: OutputError if it has no whole round."""
    there = _devices(log)
    speeds = _speeds(log)
    trained = list(_counted(log))
    first = log.rounds[0].number if log.rounds else 0
    if not trained:
        raise OutputError(f"{log.run_dir} has no whole round in its events.jsonl: there is nothing to replay")
    took: dict[tuple[str, int], dict[str, float]] = {}
    for done in trained:
        spent = max(1e-9, done.seconds * speeds[log.kinds[done.worker]])
        took.setdefault((parent(done.site) or "", done.number), {})[done.site] = spent
    places = max(device.places for device in there)
    tree = log.config.federation
    return Case(
        *(tree, _sites(log, took, {done.site: done.steps for done in trained}), took, there, len(log.rounds)),
        *(speeds, tuple(float(k) for k in range(1, places + 1))),
        pauses=log.pauses,
        first=first,
        seed=log.config.seed,
        is_log=True,
    )


def as_it_ran(log: Log, case: Case) -> Ran:
    """Give the run as it was."""
    worked = []
    for call in log.calls:
        device, site = log.devices[call.actor], call.nodes[0]
        if site in case.sites and call.end_s > call.start_s:
            work_s = (call.end_s - call.start_s) * case.speeds.get(device.kind, 1.0)
            worked.append(Worked(device.name, call.start_s, call.end_s, case.sites[site].labels, 0, work_s))
    return Ran(tuple(worked), (tuple((found.start_s, found.end_s) for found in log.rounds),))


def _devices(log: Log) -> tuple[Device, ...]:
    return tuple({device.name: device for device in log.devices.values()}.values())


def _speeds(log: Log) -> dict[str, float]:
    """Say how fast each kind of device was, the usual one 1."""
    there = _devices(log)
    known = from_log(log)
    assert known.estimates is not None
    usual = usual_kind(there)
    return {kind: known.estimates.durations.speed(kind, usual) for kind in {device.kind for device in there}}


def _counted(log: Log) -> Iterator[Training]:
    """Give the trainings of whole rounds of the root."""
    whole = {found.number for found in log.rounds}
    for done in log.trained:
        if done.steps and done.number // rounds_per_round(log.config.federation, parent(done.site) or "") in whole:
            yield done


def _sites(
    log: Log, took: Mapping[tuple[str, int], Mapping[str, float]], steps: Mapping[str, int]
) -> dict[str, SiteWork]:
    """Say what each site takes usually; one that was asked and never heard of takes as long as the run."""
    seen: dict[str, list[float]] = {}
    for own in took.values():
        for site, spent in own.items():
            seen.setdefault(site, []).append(spent)
    works = {}
    for site, settings in log.config.sites.items():
        num_samples = log.num_samples.get(site, 1)
        if site in seen:
            works[site] = SiteWork(median(seen[site]), steps[site], max(1, num_samples), settings.labels)
        elif site in log.asked and num_samples:
            least = settings.training.num_steps(num_samples)
            works[site] = SiteWork(max(1e-9, log.makespan_s), max(1, least), num_samples, settings.labels)
    return works
