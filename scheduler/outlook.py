"""What is thought to come: a site's seconds, a hub's round, the rest of a federation; jobs are asked for with these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from scheduler.bounds import remaining_chain_s, slot_bound
from scheduler.forecast import Forecast
from scheduler.views import Device, Job
from scheduler.workload import Federation, Hub, Site, Workload, eligible, group_name, num_at_once, site_path

__all__ = ["Outlook"]


class Outlook:
    """Turns a hub's round into jobs that carry their predicted duration and the predicted rest of their federation."""

    def __init__(self, workload: Workload, forecast: Forecast) -> None:
        self._forecast = forecast
        self._usual = Counter(device.kind for device in workload.devices).most_common(1)[0][0]
        self._workload = workload
        self._devices: dict[tuple[frozenset[str], int], Sequence[Device]] = {
            (hub.labels, site.memory_bytes): [
                device for device in workload.devices if eligible(hub.labels, site.memory_bytes, device)
            ]
            for _, hub, site in workload.sites()
        }
        self._rounds_s: dict[tuple[str, str], float] = {}

    def estimate_s(self, job: Job) -> float | None:
        """Predict a job's seconds on a device of the usual kind."""
        return self._forecast.predict(job, self._usual)

    def jobs(
        self, federation: Federation, opened: Sequence[tuple[Hub, int, Sequence[Site]]], orders: Iterator[int]
    ) -> list[list[Job]]:
        """Make the jobs of the rounds that hubs of a federation open together: each with its number and who takes part.

        Rounds are counted through, from 0.
        """
        bare = [[_job(federation, hub, number, site, next(orders)) for site in sites] for hub, number, sites in opened]
        return self.renew(federation, [(hub, number, own) for (hub, number, _), own in zip(opened, bare, strict=True)])

    def renew(self, federation: Federation, opened: Sequence[tuple[Hub, int, Sequence[Job]]]) -> list[list[Job]]:
        """Predict the jobs of open rounds anew, and what follows them."""
        for hub, _, own in opened:
            self._rounds_s[federation.name, hub.name] = self._round_s(hub, own)
        chains_s = [self._chain_s(federation, hub, number) for hub, number, _ in opened]
        return [
            [replace(job, estimate_s=self.estimate_s(job), chain_s=chain_s) for job in own]
            for (_, _, own), chain_s in zip(opened, chains_s, strict=True)
        ]

    def _chain_s(self, federation: Federation, hub: Hub, number: int) -> float:
        """Predict the time from the barrier of a hub's round to its federation's end; 0 while nothing is known."""
        rounds_s = {other.name: self._rounds_s.get((federation.name, other.name)) for other in federation.hubs}
        known = {name: round_s for name, round_s in rounds_s.items() if round_s is not None}
        return remaining_chain_s(
            known,
            {other.name: other.rounds for other in federation.hubs},
            hub.name,
            hub.rounds - 1 - number % hub.rounds,
            federation.rounds - 1 - number // hub.rounds,
        )

    def _round_s(self, hub: Hub, jobs: Iterable[Job]) -> float:
        """Predict a hub's round on its devices alone: what slots of their speeds take at least, or all work spread.

        Beside each other jobs are as fast as the devices' total rates say, as many as the memory holds.
        """
        rounds_s = 0.0
        by_need: dict[tuple[frozenset[str], int], list[Job]] = {}
        for job in jobs:
            by_need.setdefault((job.labels, job.memory_bytes), []).append(job)
        spread_s = 0.0
        for need, own in by_need.items():
            kinds = {device.kind for device in self._devices[need]}
            took = {kind: [self._forecast.predict(job, kind) for job in own] for kind in kinds}
            known = {kind: [seconds for seconds in found if seconds] for kind, found in took.items()}
            if any(len(found) < len(own) for found in known.values()):
                return 0.0
            fastest = min(known, key=lambda kind: (sum(known[kind]), kind))
            speeds = {kind: sum(known[fastest]) / sum(found) for kind, found in known.items()}
            devices = self._devices[need]
            slots = [speeds[device.kind] for device in devices for _ in range(device.places)]
            rounds_s = max(rounds_s, slot_bound(known[fastest], slots))
            rates = (speeds[device.kind] * self._workload.rate(num_at_once(device, need[1])) for device in devices)
            spread_s += sum(known[fastest]) / sum(rates)
        return max(rounds_s, spread_s) + hub.transfer_s


def _job(federation: Federation, hub: Hub, number: int, site: Site, order: int) -> Job:
    """Make a job without predictions."""
    return Job(
        group_name(federation, hub, number),
        site_path(federation, hub, site),
        site.size,
        None,
        order,
        run=federation.name,
        labels=hub.labels,
        memory_bytes=site.memory_bytes,
        model=site.model,
    )
