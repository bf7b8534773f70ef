"""The jobs that wait, in lanes: jobs that are equal in all but their place in the order, sorted by the policy's key.

Whether a device may take a job depends on the job's lane alone, so an event looks at the heads of a few lanes, and at
the jobs behind them only where devices are unequal. Under a binding policy a lane belongs to one device.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from scheduler.eligibility import Reach, Residency, admitted_bytes
from scheduler.policy import Binding, Policy
from scheduler.views import Job, JobKey

__all__ = ["Entry", "Lane", "LaneKey", "Waiting"]

Entry = tuple[tuple[float, ...], int, Job]
"""(the policy's key, the job's turn, the job)."""

LaneKey = tuple[str, str, str, int, Reach, str | None]
"""(group, run, model, bytes where they matter, reach, the device that the policy has bound it to)."""


@dataclass(eq=False)
class Lane:
    """Jobs of one group, run, model and reach; `num_eligible` is what their keys were made with."""

    key: LaneKey
    num_eligible: int
    entries: list[Entry] = field(default_factory=list)
    waiting_s: float = 0.0

    @property
    def head(self) -> Job:
        """The job that goes first."""
        return self.entries[0][2]

    @property
    def run(self) -> str:
        """The run that asks."""
        return self.key[1]

    @property
    def memory_bytes(self) -> int:
        """What its jobs take each where jobs run beside each other, else 0."""
        return self.key[3]

    @property
    def reach(self) -> Reach:
        """The devices that may run it."""
        return self.key[4]

    @property
    def device(self) -> str | None:
        """The only device for it, None if its whole reach will do."""
        return self.key[5]

    @property
    def num_devices(self) -> int:
        """Count the devices that share it."""
        return len(self.reach) if self.device is None else 1


class Waiting:
    """Adds, takes and orders jobs by a policy."""

    def __init__(self, policy: Policy, residency: Residency) -> None:
        self.policy = policy
        self._binding = policy if isinstance(policy, Binding) else None
        self._residency = residency
        self.fresh: dict[LaneKey, Lane] = {}
        """Lanes whose head or key is new since this was last emptied."""
        self._seen = (residency.epoch, residency.num_changes)
        self._is_loose = False
        self._groups: dict[str, dict[LaneKey, Lane]] = {}
        self._reaches: dict[Reach, dict[LaneKey, Lane]] = {}
        self._sorts: dict[int, dict[Reach, dict[LaneKey, Lane]]] = {}
        self._turns = 0
        self._seats: dict[tuple[str, str], int] = {}

    def __contains__(self, group: str) -> bool:
        return group in self._groups

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._groups)

    def ask(self, job: Job) -> None:
        """Add a job."""
        self._put(job, self._turns)
        self._turns += 1

    def take(self, lane: Lane, place: int = 0) -> Job:
        """Take a job out of a lane."""
        _, _, job = lane.entries.pop(place)
        lane.waiting_s -= job.estimate_s or 0.0
        if lane.entries:
            self.fresh[lane.key] = lane
        else:
            self._drop(lane)
        return job

    def withdraw(self, group: str) -> tuple[JobKey, ...]:
        """Take all of a group; return it in the order of asking."""
        entries = self._drain(list(self._groups.get(group, {}).values()))
        return tuple(job.key for _, job in entries)

    def lanes(self) -> Iterator[Lane]:
        """Go through all lanes."""
        for lanes in self._reaches.values():
            yield from lanes.values()

    def reaching(self, names: Mapping[str, int]) -> Iterator[Lane]:
        """Go through the lanes that these devices, given with their sorts, may take from."""
        sorts = set(names.values())
        for reach, lanes in self._reaches.items():
            if not reach.sorts.isdisjoint(sorts):
                yield from (lane for lane in lanes.values() if lane.device is None or lane.device in names)

    def of_sort(self, sort: int) -> Iterator[Lane]:
        """Go through the lanes that devices of a sort may take from, those bound to one of them included."""
        for lanes in self._sorts.get(sort, {}).values():
            yield from lanes.values()

    def demand(self, sort: int) -> float:
        """Give the seconds that wait for devices of a sort, each job's spread over all that it reaches.

        Where no duration is known, a job counts as a second.
        """
        lanes = self.of_sort(sort)
        return math.fsum((lane.waiting_s or len(lane.entries)) / len(lane.reach) for lane in lanes)

    def lane(self, key: LaneKey) -> Lane | None:
        """Give a lane, if jobs wait in it."""
        return self._groups.get(key[0], {}).get(key)

    def first(self, run: str | None, sort: int, device: str | None) -> Lane:
        """Find the lane of a run (None: any) whose head goes first for devices of a sort (or bound to one of them)."""
        mine = (lane for lane in self.of_sort(sort) if run in (None, lane.run) and lane.device == device)
        return min(mine, key=lambda lane: lane.entries[0][:2])

    def free(self, device: str) -> None:
        """Untie the jobs that were bound to a device, which is gone."""
        for turn, job in self._drain([lane for lane in self.lanes() if lane.device == device]):
            self._put(job, turn)

    def settle(self) -> None:
        """Bring every lane up to the devices that are there."""
        epoch, num_changes = self._residency.epoch, self._residency.num_changes
        if self._seen != (epoch, num_changes):
            if self._seen[0] != epoch:
                self.reorder(self.policy)
            self._seen, self._is_loose = (epoch, num_changes), True
            for lane in self.lanes():
                if lane.num_eligible != len(lane.reach):
                    self._rekey(lane, lane.entries)
        if self._binding is not None and self._is_loose:
            self._bind(self._binding)

    def reorder(self, policy: Policy) -> None:
        """Order all that waits by a policy, from the beginning."""
        self.policy = policy
        self._binding = policy if isinstance(policy, Binding) else None
        for turn, job in self._drain(list(self.lanes())):
            self._put(job, turn)

    def refresh(self, renew: Callable[[Job], Job]) -> None:
        """Predict every job anew: its estimate and its chain, nothing else."""
        for lane in self.lanes():
            self._rekey(lane, [(key, turn, renew(job)) for key, turn, job in lane.entries])

    def _put(self, job: Job, turn: int, device: str | None = None) -> None:
        """Put a job into its lane."""
        reach = self._residency.reach(job)
        memory_bytes = admitted_bytes(job.memory_bytes) if reach.shares_memory else 0
        key = (job.group, job.run, job.model, memory_bytes, reach, device)
        lanes = self._groups.setdefault(job.group, {})
        lane = lanes.get(key)
        if lane is None:
            lane = lanes[key] = Lane(key, len(reach))
            if reach not in self._reaches:
                self._reaches[reach] = {}
                for sort in reach.sorts:
                    self._sorts.setdefault(sort, {})[reach] = self._reaches[reach]
            self._reaches[reach][key] = lane
        insort(lane.entries, (self.policy.priority(job, lane.num_eligible), turn, job))
        lane.waiting_s += job.estimate_s or 0.0
        self._is_loose |= device is None
        if lane.head is job:
            self.fresh[key] = lane

    def _bind(self, policy: Binding) -> None:
        """Bind what no device has yet; what nobody may take stays as it is."""
        self._is_loose = False
        loose = [lane for lane in self.lanes() if lane.device is None and len(lane.reach)]
        for turn, job in self._drain(loose):
            names = self._residency.reach(job).names()
            seat = self._seats.setdefault((job.run, job.name), len(self._seats))
            device = policy.device(job, names, turn, seat)
            assert device in names, f"{type(policy).__name__} binds {job.key} to {device!r}, not one of {names}"
            self._put(job, turn, device)

    def _rekey(self, lane: Lane, entries: list[Entry]) -> None:
        """Make a lane's keys anew."""
        lane.num_eligible = len(lane.reach)
        lane.entries = sorted((self.policy.priority(job, lane.num_eligible), turn, job) for _, turn, job in entries)
        self.fresh[lane.key] = lane
        lane.waiting_s = sum(job.estimate_s or 0.0 for _, _, job in lane.entries)

    def _drain(self, lanes: list[Lane]) -> list[tuple[int, Job]]:
        """Empty these lanes; return (turn, job) in the order of asking."""
        for lane in lanes:
            self._drop(lane)
        return sorted(((turn, job) for lane in lanes for _, turn, job in lane.entries), key=lambda entry: entry[0])

    def _drop(self, lane: Lane) -> None:
        """Forget a lane."""
        group, reach = lane.key[0], lane.reach
        del self._groups[group][lane.key], self._reaches[reach][lane.key]
        self.fresh.pop(lane.key, None)
        if not self._groups[group]:
            del self._groups[group]
        if not self._reaches[reach]:
            del self._reaches[reach]
            for sort in reach.sorts:
                del self._sorts[sort][reach]
