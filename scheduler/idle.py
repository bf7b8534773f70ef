"""Idle time, next to the floor that no schedule can beat.

A is the sum over devices of the time between the first start and the last barrier, busy the device-seconds of work
that counted, m the number of devices, W the total work and LB a lower bound of the makespan:

    idle = 1 - busy / A        floor = 1 - W / (m * LB)        efficiency = LB / makespan
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Idle", "lower_bound", "measure"]


@dataclass(frozen=True, slots=True)
class Idle:
    """The figures of one span: fractions of 1, seconds."""

    busy: Mapping[str, float]
    """Busy fraction by device."""
    idle: float
    floor: float
    efficiency: float
    makespan_s: float

    @property
    def avoidable(self) -> float:
        """Give the part of the idle fraction that a better schedule could avoid."""
        return max(0.0, self.idle - self.floor)


def lower_bound(durations_s: Sequence[float], num_devices: int) -> float:
    """Bound the makespan on identical devices from below: max(W / m, p_max, p_m + p_{m+1})."""
    longest = sorted(durations_s, reverse=True)
    if not longest:
        return 0.0
    two = longest[num_devices - 1] + longest[num_devices] if len(longest) > num_devices else 0.0
    return max(sum(longest) / num_devices, longest[0], two)


def measure(busy_s: Mapping[str, float], rounds: Sequence[tuple[float, Sequence[float]]]) -> Idle:
    """Measure a span of rounds, each its makespan in seconds and its jobs' durations.

    `busy_s`: device-seconds of work that counted, by device; every device is there.
    """
    num = max(1, len(busy_s))
    makespan_s = sum(span for span, _ in rounds)
    total_s = sum(busy_s.values())
    bound_s = sum(lower_bound(durations, num) for _, durations in rounds)
    work_s = sum(sum(durations) for _, durations in rounds)
    if makespan_s <= 0.0:
        return Idle(dict.fromkeys(busy_s, 0.0), 0.0, 0.0, 1.0, 0.0)
    return Idle(
        busy={device: min(1.0, spent / makespan_s) for device, spent in busy_s.items()},
        idle=max(0.0, 1.0 - total_s / (num * makespan_s)),
        floor=max(0.0, 1.0 - work_s / (num * bound_s)) if bound_s else 0.0,
        efficiency=min(1.0, bound_s / makespan_s),
        makespan_s=makespan_s,
    )
