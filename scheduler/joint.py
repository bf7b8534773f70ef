"""Idle time of devices that several runs use: of all that any run wanted, how much was used, by whom, and the floor.

A run wants its devices from the opening of a round to its barrier, and while it measures: a stretch. The stretches of
all runs, joined, make windows. Only there can a device be idle, and only for runs that may use it. A window takes at
least

- what any one run needs by itself, the sum of its stretches' bounds, counted from where it first came in, and
- what the work of all runs that came in then or later takes on all devices by prices (see `scheduler.bounds`),

as in `bounds.workload_bound`. One run alone has the figures that it gives itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from scheduler.bounds import Fleet, Task, price_bound
from scheduler.eventlog import merge, union_s
from scheduler.idle import Idle, figures
from scheduler.views import Device

__all__ = ["Joint", "Spans", "Stretch", "join"]

Spans: TypeAlias = Sequence[tuple[float, float]]
"""Times (from, to), in seconds on a clock that all runs have in common."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a run did between two barriers, and at least needs for it by itself, in seconds; `speeds` by device, else 1.

    Work of one residency may be one task, however many jobs it was.
    """

    run: str
    start_s: float
    end_s: float
    bound_s: float
    work: tuple[Task, ...]
    devices: tuple[Device, ...]
    speeds: Mapping[str, float]


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

    Durations come from several clocks, so fractions that end a little above 1 are cut.
    """
    windows = merge((one.start_s, one.end_s) for one in stretches)
    fleet = _fleet(stretches)
    speeds = {device.name: speed for device, speed in zip(fleet.devices, fleet.speeds, strict=True)}
    wanted: dict[str, Spans] = {
        name: merge((one.start_s, one.end_s) for one in stretches if any(d.name == name for d in one.devices))
        for name in speeds
    }
    busy_s = {name: {run: union_s(own.get(name, ()), wanted[name]) for run, own in calls.items()} for name in speeds}
    together = {name: [span for own in calls.values() for span in own.get(name, ())] for name in speeds}
    found = figures(
        {name: union_s(spans, wanted[name]) for name, spans in together.items()},
        {name: union_s(spans) for name, spans in wanted.items()},
        work_s=sum(task.duration_s for one in stretches for task in one.work),
        bound_s=sum(_bound_s(window, stretches) for window in windows),
        makespan_s=union_s(windows),
        speeds=speeds,
    )
    idle = replace(
        found,
        busy={name: min(1.0, fraction) for name, fraction in found.busy.items()},
        efficiency=min(1.0, found.efficiency),
    )
    return Joint(idle, wanted, busy_s)


def _bound_s(window: tuple[float, float], stretches: Sequence[Stretch]) -> float:
    """Bound what a window takes, from its begin."""
    start_s, end_s = window
    inside = [one for one in stretches if start_s <= one.start_s and one.end_s <= end_s]
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
    return min(found, end_s - start_s)


def _fleet(stretches: Collection[Stretch]) -> Fleet:
    """Give all devices of some stretches; what runs say of one differently, labels or places, it has all of."""
    found: dict[str, Device] = {}
    speeds: dict[str, float] = {}
    for one in stretches:
        for device in one.devices:
            known = found.get(device.name, device)
            labels, places = known.labels | device.labels, max(known.places, device.places)
            found[device.name] = replace(known, labels=labels, places=places)
            speeds[device.name] = max(speeds.get(device.name, 0.0), one.speeds.get(device.name, 1.0))
    most = max((device.places for device in found.values()), default=1)
    return Fleet(tuple(found.values()), tuple(speeds.values()), tuple(float(k) for k in range(1, most + 1)))
