"""How a simulated run went: its log, its decisions, and the figures beside the bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.eventlog import Decision, Span, union_s
from scheduler.idle import Idle, figures
from scheduler.simcrew import SimCrew
from scheduler.workload import Actual, Workload

__all__ = ["Change", "Outcome", "settle"]


@dataclass(frozen=True, slots=True)
class Change:
    """A device comes (`joins`) or goes at a time. One whose first change is to come is not there before."""

    time_s: float
    device: str
    joins: bool = False


@dataclass(frozen=True)
class Outcome:
    """A run from time 0 to the last barrier; `ends_s`: when each federation had its last."""

    makespan_s: float
    bound_s: float
    idle: Idle
    ends_s: Mapping[str, float]
    log: tuple[Span, ...]
    decisions: tuple[Decision, ...]
    num_events: int


def settle(workload: Workload, actual: Actual, crew: SimCrew, ends_s: Mapping[str, float], bound_s: float) -> Outcome:
    """Figure out a run that is over, from what its crew has done by the last of `ends_s`, by federation.

    `actual`: the work that counts.
    """
    makespan_s = max(ends_s.values())
    trained: dict[str, list[tuple[float, float]]] = {device.name: [] for device in workload.devices}
    for span in crew.log:
        if span.phase == "train":
            trained[span.actor].append((span.start_s, span.end_s))
    idle = figures(
        {name: union_s(spans) for name, spans in trained.items()},
        {name: union_s(spans, [(0.0, makespan_s)]) for name, spans in crew.present.items()},
        work_s=sum(actual.values()),
        bound_s=bound_s,
        makespan_s=makespan_s,
        speeds={device.name: workload.speed(device) for device in workload.devices},
    )
    log, decisions = tuple(crew.log), tuple(crew.decisions)
    return Outcome(makespan_s, bound_s, idle, dict(ends_s), log, decisions, crew.num_events)
