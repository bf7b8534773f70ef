"""Idle time, next to the floor that no schedule can beat.

A is the sum over devices of their allocation until the last barrier, busy the device-seconds of work that counted, W
the total work, m the number of devices and LB a lower bound of the makespan:

    idle = 1 - busy / A    floor = 1 - W / (m * LB)    efficiency = LB / makespan    goodput = W / A

W adds up what each job takes alone, so goodput may exceed 1 where jobs share a device. A device of speed s counts s
times in A, in busy and in m, so that it matters how fast the device is that stands idle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scheduler.bounds import lower_bound

__all__ = ["Idle", "figures", "measure"]


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

    `work_s`: what the jobs that counted take alone on a device of speed 1; `speeds` by device, 1 where missing. The
    efficiency is not cut at 1: above, the bound is wrong.
    """
    speed = {device: (speeds or {}).get(device, 1.0) for device in busy_s}
    capacity = sum(speed[device] * allocated_s[device] for device in busy_s)
    needed = sum(speed[device] * min(allocated_s[device], bound_s) for device in busy_s)
    if capacity <= 0.0 or makespan_s <= 0.0:
        return Idle(dict.fromkeys(busy_s, 0.0), 0.0, 0.0, 1.0, 0.0)
    return Idle(
        busy={d: spent / allocated_s[d] if allocated_s[d] > 0.0 else 0.0 for d, spent in busy_s.items()},
        idle=max(0.0, 1.0 - sum(speed[device] * spent for device, spent in busy_s.items()) / capacity),
        floor=max(0.0, 1.0 - work_s / needed) if needed > 0.0 else 0.0,
        efficiency=bound_s / makespan_s,
        makespan_s=makespan_s,
        goodput=work_s / capacity,
    )


def measure(busy_s: Mapping[str, float], rounds: Sequence[tuple[float, Sequence[float]]]) -> Idle:
    """Measure a span of rounds on equal devices, each its makespan in seconds and its jobs' durations.

    `busy_s`: device-seconds of work that counted, by device; every device is there. Times come from several clocks, so
    fractions that end a little above 1 are cut.
    """
    num = max(1, len(busy_s))
    makespan_s = sum(span for span, _ in rounds)
    found = figures(
        busy_s,
        dict.fromkeys(busy_s, makespan_s),
        work_s=sum(sum(durations) for _, durations in rounds),
        bound_s=sum(lower_bound(durations, num) for _, durations in rounds),
        makespan_s=makespan_s,
    )
    busy = {device: min(1.0, fraction) for device, fraction in found.busy.items()}
    return Idle(busy, found.idle, found.floor, min(1.0, found.efficiency), found.makespan_s, found.goodput)
