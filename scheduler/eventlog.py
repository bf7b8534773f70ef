"""The event log: what was busy with what, from when to when, and what was decided; one schema for both drivers.

A live run writes these records into `events.jsonl` among others, a simulation keeps them as it goes. `event: phase`
says who was busy (`Span`):

| phase | actor | from | to | nodes |
|---|---|---|---|---|
| `load` | device | a call begins | its model is loaded | the call's sites |
| `train` | device | training begins | it ends | the call's sites |
| `lost` | device | a call begins | its device is gone | the call's sites, which are done again |
| `transfer` | device | its sums go up | they are there | the hub |
| `aggregate` | hub | it adds up its last sums | it has its new model | the hub |
| `round` | hub or federation | its round is asked for | its barrier | the members |

`event: assigned` says what the dispatcher decided (`Decision`). Times are in seconds since the run's start. Rounds
count from 1; in a simulation a hub's own rounds are counted through, a live run's spans name the root's. Spans stand in
the order of their ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.views import Assign

__all__ = ["Decision", "Span", "merge", "read_span", "union_s"]


@dataclass(frozen=True, slots=True)
class Span:
    """An actor was busy with one thing; on a device in a live run the actor is its worker."""

    actor: str
    phase: str
    start_s: float
    end_s: float
    nodes: tuple[str, ...]
    round_number: int

    def record(self) -> dict[str, Any]:
        """Give the record as it stands in a file of JSON lines."""
        return {
            "event": "phase",
            "time_s": self.end_s,
            "actor": self.actor,
            "phase": self.phase,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "nodes": list(self.nodes),
            "round_number": self.round_number,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """What the dispatcher decided, and when; `round_number` is that of the jobs' hub."""

    time_s: float
    assign: Assign
    round_number: int = 0


def read_span(record: Mapping[str, Any]) -> Span | None:
    """Read a span back; None for a record of another sort.

    Errors: KeyError, TypeError or ValueError for a span that neither driver has written.
    """
    if record.get("event") != "phase":
        return None
    return Span(
        *(str(record["actor"]), str(record["phase"]), float(record["start_s"]), float(record["end_s"])),
        *(tuple(map(str, record["nodes"])), int(record["round_number"])),
    )


def union_s(spans: Iterable[tuple[float, float]], within: Sequence[tuple[float, float]] | None = None) -> float:
    """Add up the seconds that at least one span covers; with `within`, those that one of these covers as well."""
    merged = merge(spans)
    if within is None:
        return sum(end - start for start, end in merged)
    total_s, position = 0.0, 0
    for start, end in merge(within):
        while position < len(merged) and merged[position][1] <= start:
            position += 1
        at = position
        while at < len(merged) and merged[at][0] < end:
            total_s += min(end, merged[at][1]) - max(start, merged[at][0])
            at += 1
    return total_s


def merge(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Unite what overlaps or touches."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged
