"""Lower bounds of the makespan: what no schedule can beat, however clever, from the durations as they turned out.

Three arguments, each a maximum over its instances, and a round's bound is the largest:

- *Slots.* A device with p places is p slots of its speed. The k longest jobs use at most k slots at a time, so they
  take at least (k longest) / (k fastest slots); of the q m + 1 longest on m slots some slot runs q + 1, so it takes at
  least the q + 1 shortest of them at the highest speed (q = 1 is the classical p_m + p_{m+1}). On unequal devices the
  few longest jobs alone take at least their own optimum, for a job is on one device, not spread over the fast ones.
- *Regions.* The same, for the jobs that residency and memory confine to a set of devices, and these devices alone.
- *Prices.* Put a price y_c on a second of work of each class c of jobs with equal labels and memory. A device in a
  second processes at most the dearest set of jobs that it may hold at once, so
  T >= sum_c W_c y_c / sum_d max_{sets S of d} speed_d rate(|S|)/|S| sum_{c in S} y_c.
  Any prices bound; a small linear program finds the best ones, which is the dual of the fractional schedule
  (Gilmore and Gomory 1961). It contains W / sum of speeds, the bound of every nested region, and the memory bound
  sum(mem_j p_j) / (M m).

Over barriers bounds add up: a federation takes at least the sum over its global rounds of the longest hub's chain of
kappa rounds; all federations together at least what their whole work takes by prices.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations, combinations_with_replacement
from operator import truediv
from typing import TypeAlias

import numpy as np

from scheduler.prices import Make, best_prices
from scheduler.views import Device
from scheduler.workload import Actual, Federation, Hub, Workload, cohort, eligible, num_at_once

__all__ = [
    "Fleet",
    "Task",
    "federation_bound",
    "hub_bounds",
    "lower_bound",
    "price_bound",
    "remaining_chain_s",
    "round_bound",
    "slot_bound",
    "workload_bound",
]

_Make: TypeAlias = tuple[float, frozenset[str], int | None, int]
"""What a device is to jobs: its speed, labels, memory and places."""

_Work: TypeAlias = dict[tuple[frozenset[str], int], float]
"""Seconds of work by labels and memory need."""

MAX_REGIONS = 6
"""Up to so many distinct sets of devices all their unions are tried; above, each set and the whole."""

MAX_MEMORIES = 6
"""Up to so many distinct memory needs are told apart; above, they are rounded down to eighths of the largest device."""

MAX_SETS = 2000
"""Sets of jobs at once beyond which prices ignore memory."""

NUM_EXACT = 5
"""So many of the longest jobs are placed in every way."""


@dataclass(frozen=True, slots=True)
class Task:
    """A job as the bounds see it: `duration_s` alone on a device of speed 1, and where it may run."""

    duration_s: float
    labels: frozenset[str] = frozenset()
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Fleet:
    """Devices, their `speeds` by position, and the total `rates` of 1, 2, ... jobs at once on one of them."""

    devices: tuple[Device, ...]
    speeds: tuple[float, ...]
    rates: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, workload: Workload) -> Fleet:
        """Take a workload's devices."""
        return cls(workload.devices, tuple(map(workload.speed, workload.devices)), workload.rates)

    def rate(self, num_jobs: int) -> float:
        """Give the total rate of a device with so many jobs at once."""
        return self.rates[min(num_jobs, len(self.rates)) - 1]

    def eligible(self, task: Task) -> frozenset[int]:
        """List by position the devices that may take a task."""
        return frozenset(i for i, device in enumerate(self.devices) if eligible(task.labels, task.memory_bytes, device))


def lower_bound(durations_s: Sequence[float], num_devices: int) -> float:
    """Bound the makespan on identical devices: max(W / m, p_max, p_m + p_{m+1}, and on for 2m + 1, ...)."""
    return slot_bound(durations_s, [1.0] * num_devices)


def slot_bound(durations_s: Sequence[float], speeds: Sequence[float]) -> float:
    """Bound the makespan on slots of different speeds: max over k of (k longest) / (k fastest), and two on one slot.

    Of the q m + 1 longest some slot runs q + 1, which takes their q + 1 shortest at the highest speed.
    """
    if not durations_s:
        return 0.0
    longest, fastest = sorted(durations_s, reverse=True), sorted(speeds, reverse=True)
    sums, rates = list(accumulate(longest)), list(accumulate(fastest))
    found: float = max(sums[-1] / rates[-1], *map(truediv, sums, rates))
    for each, last in enumerate(range(len(fastest), len(longest), len(fastest)), 1):
        found = max(found, (sums[last] - sums[last - each] + longest[last - each]) / fastest[0])
    few, slots = longest[:NUM_EXACT], fastest[:NUM_EXACT]
    return found if _greedy(few, slots) <= found else max(found, _exact(few, slots))


def _greedy(longest: Sequence[float], fastest: Sequence[float]) -> float:
    """Give the makespan of a few jobs alone, each put where it ends first: the least is not above it."""
    loads = [0.0] * len(fastest)
    for seconds in longest:
        slot = min(range(len(fastest)), key=lambda slot: (loads[slot] + seconds) / fastest[slot])
        loads[slot] += seconds
    return max(load / speed for load, speed in zip(loads, fastest, strict=True))


def _exact(longest: Sequence[float], fastest: Sequence[float]) -> float:
    """Give the least makespan of a few jobs alone, the longest first, on slots, the fastest first, by trying all."""
    loads = [0.0] * len(fastest)

    def shortest(place: int, so_far: float, best: float) -> float:
        if place == len(longest):
            return so_far
        tried = set()
        for slot, speed in enumerate(fastest):
            before = loads[slot]
            ends = (before + longest[place]) / speed
            if ends >= best or (before, speed) in tried:
                continue
            tried.add((before, speed))
            loads[slot] = before + longest[place]
            best = min(best, shortest(place + 1, max(so_far, ends), best))
            loads[slot] = before
        return best

    return shortest(0, 0.0, math.inf)


def round_bound(tasks: Sequence[Task], fleet: Fleet) -> float:
    """Bound the makespan of tasks that may all begin at once: the largest of slots, regions and prices."""
    if not tasks:
        return 0.0
    needs = {(task.labels, task.memory_bytes): task for task in tasks}
    able = {need: fleet.eligible(task) for need, task in needs.items()}
    confined = [able[task.labels, task.memory_bytes] for task in tasks]
    slots = [[speed] * device.places for device, speed in zip(fleet.devices, fleet.speeds, strict=True)]
    found = price_bound(tasks, fleet)
    for region in _regions(set(confined)):
        inside = [task.duration_s for task, where in zip(tasks, confined, strict=True) if where <= region]
        found = max(found, slot_bound(inside, [speed for i in region for speed in slots[i]]))
    return found


def _regions(sets: set[frozenset[int]]) -> set[frozenset[int]]:
    """Unite sets of devices: all unions of a few, else each and the whole."""
    ordered = sorted(sets, key=sorted)
    if len(ordered) > MAX_REGIONS:
        return {*ordered, frozenset().union(*ordered)}
    return {frozenset().union(*some) for num in range(1, len(ordered) + 1) for some in combinations(ordered, num)}


def price_bound(tasks: Sequence[Task], fleet: Fleet) -> float:
    """Bound the makespan by the best prices: the fractional optimum over labels, speeds, memory and co-location."""
    if not tasks:
        return 0.0
    work = _classes(tasks, fleet)
    if len(work) == 1:
        return _one_class(*next(iter(work.items())), fleet)
    makes = Counter(
        (speed, device.labels, device.memory_bytes, device.places)
        for device, speed in zip(fleet.devices, fleet.speeds, strict=True)
    )
    classes = list(work)
    known = []
    for (speed, labels, memory_bytes, places), count in makes.items():
        held = _sets(classes, Device("", labels=labels, memory_bytes=memory_bytes, places=places))
        known.append(Make(count, [_done(each, speed * fleet.rate(len(each)), len(classes)) for each in held]))
    prices, earned = best_prices(list(work.values()), known)
    worth = float(earned @ [make.count for make in known])
    return float(np.array(list(work.values())) @ prices) / worth if worth > 0 else 0.0


def _done(held: tuple[int, ...], rate: float, num_classes: int) -> list[float]:
    """Give the work per second of each class, where these are held at once at that total rate."""
    row = [0.0] * num_classes
    for index in held:
        row[index] += rate / len(held)
    return row


def _one_class(need: tuple[frozenset[str], int], work_s: float, fleet: Fleet) -> float:
    """Bound jobs that differ in nothing but their durations: whatever their price, it cancels."""
    labels, job_bytes = need
    rate = 0.0
    for device, speed in zip(fleet.devices, fleet.speeds, strict=True):
        if eligible(labels, job_bytes, device):
            rate += speed * max(fleet.rates[: num_at_once(device, job_bytes)])
    return work_s / rate if rate > 0 else 0.0


def _classes(tasks: Sequence[Task], fleet: Fleet) -> _Work:
    """Add up work by labels and memory need, the need rounded down where there are too many."""
    needs = {task.memory_bytes for task in tasks}
    known = [device.memory_bytes for device in fleet.devices if device.memory_bytes is not None]
    places = max(device.places for device in fleet.devices)
    step = 1
    if len(needs) > MAX_MEMORIES and known:
        step = max(1, -(-max(known) // 8))
    num_classes = len({(task.labels, task.memory_bytes // step) for task in tasks})
    if not known or num_classes**places > MAX_SETS * 8:
        step = max(needs) + 1
    work: _Work = {}
    for task in tasks:
        key = task.labels, task.memory_bytes // step * step
        work[key] = work.get(key, 0.0) + task.duration_s
    return work


def _sets(classes: Sequence[tuple[frozenset[str], int]], device: Device) -> list[tuple[int, ...]]:
    """List the sets of classes (by position) that a device may hold at once."""
    able = [i for i, (labels, memory) in enumerate(classes) if eligible(labels, memory, device)]
    return [
        held
        for num in range(1, device.places + 1)
        for held in combinations_with_replacement(able, num)
        if device.memory_bytes is None or sum(classes[i][1] for i in held) <= device.memory_bytes
    ]


def _tasks(federation: Federation, hub: Hub, number: int, actual: Actual) -> list[Task]:
    """Give the tasks of a hub's round."""
    return [
        Task(duration_s, hub.labels, site.memory_bytes) for site, duration_s in cohort(federation, hub, number, actual)
    ]


def hub_bounds(federation: Federation, hub: Hub, actual: Actual, fleet: Fleet) -> list[float]:
    """Bound each of a hub's rounds, from its begin to its barrier, transfer included; kappa of them a global round."""
    return [
        round_bound(_tasks(federation, hub, number, actual), fleet) + hub.transfer_s
        for number in range(federation.rounds * hub.rounds)
    ]


def federation_bound(federation: Federation, actual: Actual, fleet: Fleet) -> float:
    """Bound a federation alone: over its global rounds, the longest hub's chain or all hubs' work, summed up."""
    chains = [(hub, hub_bounds(federation, hub, actual, fleet)) for hub in federation.hubs]
    total_s = 0.0
    for number in range(federation.rounds):
        longest_s = max(sum(chain[number * hub.rounds : (number + 1) * hub.rounds]) for hub, chain in chains)
        work = [
            task
            for hub in federation.hubs
            for own in range(number * hub.rounds, (number + 1) * hub.rounds)
            for task in _tasks(federation, hub, own, actual)
        ]
        total_s += max(longest_s, price_bound(work, fleet) if len(chains) > 1 else 0.0)
    return total_s


def workload_bound(workload: Workload, actual: Actual) -> float:
    """Bound the makespan of a workload, from time 0 to the last barrier: every federation's chain, and all work.

    Work that may begin at `start_s` or later is bounded from there on.
    """
    fleet = Fleet.of(workload)
    found = max(federation.start_s + federation_bound(federation, actual, fleet) for federation in workload.federations)
    for start_s in {federation.start_s for federation in workload.federations}:
        work = [
            task
            for federation in workload.federations
            if federation.start_s >= start_s
            for hub in federation.hubs
            for number in range(federation.rounds * hub.rounds)
            for task in _tasks(federation, hub, number, actual)
        ]
        found = max(found, start_s + price_bound(work, fleet))
    return found


def remaining_chain_s(
    rounds_s: Mapping[str, float], kappa: Mapping[str, int], hub: str, hub_rounds_left: int, rounds_left: int
) -> float:
    """Predict the time from a hub's barrier to its federation's end: own rounds left, then global rounds left.

    `rounds_s`: each hub's bound of one round; `kappa`: its rounds per global round. The chain that no further device
    shortens is hub_rounds_left * rounds_s[hub] + rounds_left * max over hubs of kappa * rounds_s.
    """
    longest_s = max(kappa[name] * round_s for name, round_s in rounds_s.items())
    return hub_rounds_left * rounds_s[hub] + rounds_left * longest_s
