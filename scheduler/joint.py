"""Idle time of devices that several runs use: of all that any run wanted, how much was used, by whom, and the floor.

A run wants its devices from the opening of a round to its barrier, and while it measures: a stretch. The stretches of
all runs, joined, make windows. Only there can a device be idle, and only for runs that may use it. A window takes at
least

- what any one run needs by itself, the sum of its stretches' bounds, counted from where it first came in, and
- what the work of all runs that came in then or later takes on all devices by prices (see `scheduler.bounds`),

as in `bounds.workload_bound`. One run alone has the figures that it gives itself.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from scheduler.bounds import Fleet, Task, price_bound
from scheduler.eventlog import merge, union_s
from scheduler.idle import Idle, Tally
from scheduler.views import Device

__all__ = ["Joint", "Spans", "Stretch", "join"]

Spans: TypeAlias = Sequence[tuple[float, float]]
"""Times (from, to), in seconds on a clock that all runs have in common."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a run did between two barriers, and at least needs for it by itself, in seconds; `speeds` by device.

    Work of one residency and memory may be one task, however many jobs it was; `rates`: as of `bounds.Fleet`.
    """

    run: str
    start_s: float
    end_s: float
    bound_s: float
    work: tuple[Task, ...]
    devices: tuple[Device, ...]
    speeds: Mapping[str, float]
    rates: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Joint:
    """Figures of all runs together; `wanted`: when any run wanted a device, by device; `busy_s` by device and run.

    Where runs work beside each other on a device, its seconds count for each in `busy_s`, and once in `idle`.
    """

    idle: Idle
    wanted: Mapping[str, Spans]
    busy_s: Mapping[str, Mapping[str, float]]

    @property
    def wanted_s(self) -> dict[str, float]:
        """Give the seconds in which at least one run wanted a device, by device."""
        return {name: union_s(spans) for name, spans in self.wanted.items()}

    def share(self, run: str) -> float:
        """Give a run's part of all that the runs used; 0 where nothing was."""
        total_s = sum(sum(spent.values()) for spent in self.busy_s.values())
        return sum(spent[run] for spent in self.busy_s.values()) / total_s if total_s else 0.0

    def fraction(self, run: str) -> float:
        """Give a run's busy time as a fraction of the time in which the devices were wanted."""
        wanted_s = sum(self.wanted_s.values())
        return sum(spent[run] for spent in self.busy_s.values()) / wanted_s if wanted_s else 0.0


def join(stretches: Sequence[Stretch], calls: Mapping[str, Mapping[str, Spans]]) -> Joint:
    """Figure out the devices' idle time over all runs; `calls`: by run and device when it was at work there.

    Nothing is cut: where machines' clocks differ, fractions may end a little above 1.
    """
    fleet = _fleet(stretches)
    speeds = {device.name: speed for device, speed in zip(fleet.devices, fleet.speeds, strict=True)}
    wanted: dict[str, Spans] = {
        name: merge((one.start_s, one.end_s) for one in stretches if any(d.name == name for d in one.devices))
        for name in speeds
    }
    together = {name: merge(span for own in calls.values() for span in own.get(name, ())) for name in speeds}
    tally = Tally()
    ordered = sorted(stretches, key=lambda one: one.start_s)
    for start_s, end_s in merge((one.start_s, one.end_s) for one in ordered):
        first, last = (bisect_left(ordered, time_s, key=lambda one: one.start_s) for time_s in (start_s, end_s))
        inside = ordered[first:last]
        had = {name: _near(spans, start_s, end_s) for name, spans in wanted.items()}
        tally.add(
            {name: union_s(_near(together[name], start_s, end_s), spans) for name, spans in had.items()},
            {name: union_s(spans) for name, spans in had.items()},
            work_s=sum(task.duration_s for one in inside for task in one.work),
            bound_s=_bound_s(start_s, inside),
            makespan_s=end_s - start_s,
            speeds=speeds,
        )
    busy_s = {name: {run: union_s(own.get(name, ()), wanted[name]) for run, own in calls.items()} for name in speeds}
    return Joint(tally.idle(), wanted, busy_s)


def _near(spans: Spans, start_s: float, end_s: float) -> Spans:
    """Give those of separate spans, in order, that a window meets."""
    first = bisect_right(spans, start_s, key=lambda span: span[1])
    return spans[first : bisect_left(spans, end_s, key=lambda span: span[0])]


def _bound_s(start_s: float, inside: Sequence[Stretch]) -> float:
    """Bound what a window takes, from its begin."""
    first_s: dict[str, float] = {}
    chain_s: dict[str, float] = {}
    for one in inside:
        first_s[one.run] = min(first_s.get(one.run, one.start_s), one.start_s)
        chain_s[one.run] = chain_s.get(one.run, 0.0) + one.bound_s
    found = max(first_s[run] - start_s + chain_s[run] for run in first_s)
    for since_s in set(first_s.values()):
        later = [one for one in inside if first_s[one.run] >= since_s]
        tasks = [task for one in later for task in one.work]
        found = max(found, since_s - start_s + (price_bound(tasks, _fleet(later)) if tasks else 0.0))
    return found


def _fleet(stretches: Collection[Stretch]) -> Fleet:
    """Give all devices of some stretches; where runs say different things of one, the most of each."""
    found: dict[str, Device] = {}
    speeds: dict[str, float] = {}
    for one in stretches:
        for device in one.devices:
            known = found.get(device.name, device)
            memory = [each.memory_bytes for each in (known, device) if each.memory_bytes is not None]
            memory_bytes = max(memory) if len(memory) == 2 else None
            labels, places = known.labels | device.labels, max(known.places, device.places)
            found[device.name] = replace(known, labels=labels, memory_bytes=memory_bytes, places=places)
            speeds[device.name] = max(speeds.get(device.name, 0.0), one.speeds.get(device.name, 1.0))
    curves = [one.rates for one in stretches]
    most = max(map(len, curves), default=1)
    rates = tuple(max((curve[k] for curve in curves if len(curve) > k), default=1.0) for k in range(most))
    return Fleet(tuple(found.values()), tuple(speeds.values()), rates)
