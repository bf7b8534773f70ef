"""Idle time, next to the floor that no schedule can beat.

A is the sum over devices of their allocation until the last barrier, busy the device-seconds of work that counted, W
the total work, m the number of devices and LB a lower bound of the makespan:

    idle = 1 - busy / A    floor = 1 - W / (m * LB)    efficiency = LB / makespan    goodput = W / A

W adds up what each job takes alone, so goodput may exceed 1 where jobs share a device. A device of speed s counts s
times in A, in busy and in m, so that it matters how fast the device is that stands idle. Over several spans, each with
its own bound, every part is added up by itself.

Nothing is cut to look right: an efficiency above 1 tells of a wrong bound. Only what sums of the same seconds differ by
when they are added up in another order is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scheduler.bounds import lower_bound

__all__ = ["Idle", "Tally", "figures", "measure"]


@dataclass(frozen=True, slots=True)
class Idle:
    """The figures of one span: fractions of 1, seconds."""

    busy: Mapping[str, float]
    """Busy fraction by device."""
    idle: float
    floor: float
    efficiency: float
    makespan_s: float
    goodput: float = 0.0

    @property
    def avoidable(self) -> float:
        """Give the part of the idle fraction that a better schedule could avoid."""
        return max(0.0, self.idle - self.floor)


@dataclass(slots=True)
class Tally:
    """What spans add up to; see `figures`."""

    busy_s: dict[str, float] = field(default_factory=dict)
    allocated_s: dict[str, float] = field(default_factory=dict)
    spent_s: float = 0.0
    capacity_s: float = 0.0
    needed_s: float = 0.0
    work_s: float = 0.0
    bound_s: float = 0.0
    makespan_s: float = 0.0

    def add(
        self,
        busy_s: Mapping[str, float],
        allocated_s: Mapping[str, float],
        *,
        work_s: float,
        bound_s: float,
        makespan_s: float,
        speeds: Mapping[str, float] | None = None,
    ) -> None:
        """Add a span; its arguments are those of `figures`."""
        for device, spent_s in busy_s.items():
            speed, had_s = (speeds or {}).get(device, 1.0), allocated_s[device]
            self.busy_s[device] = self.busy_s.get(device, 0.0) + spent_s
            self.allocated_s[device] = self.allocated_s.get(device, 0.0) + had_s
            self.spent_s += speed * spent_s
            self.capacity_s += speed * had_s
            self.needed_s += speed * min(had_s, bound_s)
        self.work_s += work_s
        self.bound_s += bound_s
        self.makespan_s += makespan_s

    def update(self, other: Tally) -> None:
        """Add what other spans add up to."""
        for mine, theirs in ((self.busy_s, other.busy_s), (self.allocated_s, other.allocated_s)):
            for device, seconds in theirs.items():
                mine[device] = mine.get(device, 0.0) + seconds
        self.spent_s += other.spent_s
        self.capacity_s += other.capacity_s
        self.needed_s += other.needed_s
        self.work_s += other.work_s
        self.bound_s += other.bound_s
        self.makespan_s += other.makespan_s

    def idle(self) -> Idle:
        """Give the figures."""
        if self.capacity_s <= 0.0 or self.makespan_s <= 0.0:
            return Idle(dict.fromkeys(self.busy_s, 0.0), 0.0, 0.0, 1.0, 0.0)
        had = self.allocated_s
        return Idle(
            busy={name: spent_s / had[name] if had[name] > 0.0 else 0.0 for name, spent_s in self.busy_s.items()},
            idle=max(0.0, 1.0 - self.spent_s / self.capacity_s),
            floor=max(0.0, 1.0 - self.work_s / self.needed_s) if self.needed_s > 0.0 else 0.0,
            efficiency=1.0 if math.isclose(self.bound_s, self.makespan_s) else self.bound_s / self.makespan_s,
            makespan_s=self.makespan_s,
            goodput=self.work_s / self.capacity_s,
        )


def figures(
    busy_s: Mapping[str, float],
    allocated_s: Mapping[str, float],
    *,
    work_s: float,
    bound_s: float,
    makespan_s: float,
    speeds: Mapping[str, float] | None = None,
) -> Idle:
    """Figure out a span's idle time from its devices' busy and allocated seconds.

    `work_s`: what the jobs that counted take alone on a device of speed 1; `bound_s` and `makespan_s` as the clock
    runs; `speeds` by device, 1 where missing.
    """
    tally = Tally()
    tally.add(busy_s, allocated_s, work_s=work_s, bound_s=bound_s, makespan_s=makespan_s, speeds=speeds)
    return tally.idle()


def measure(busy_s: Mapping[str, float], rounds: Sequence[tuple[float, Sequence[float]]]) -> Idle:
    """Measure a span of rounds on equal devices, each its makespan in seconds and its jobs' durations.

    `busy_s`: device-seconds of work that counted, by device; every device is there.
    """
    num = max(1, len(busy_s))
    makespan_s = sum(span for span, _ in rounds)
    return figures(
        busy_s,
        dict.fromkeys(busy_s, makespan_s),
        work_s=sum(sum(durations) for _, durations in rounds),
        bound_s=sum(lower_bound(durations, num) for _, durations in rounds),
        makespan_s=makespan_s,
    )
