"""What a run's folder says of the faults that struck it: when it went on, and who trained again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hierfl.fault import RUN

__all__ = ["Seen", "absolute", "by_round", "recoveries", "seen"]

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """What was seen: the faults that struck, seconds from each to the next answer of a hub that counted, trainings
    for a round for which the site had trained, what was refused, and which hubs' processes were replaced, and why.
    """

    struck: tuple[Event, ...]
    recoveries_s: tuple[float | None, ...]
    retrained: int
    refused: tuple[str, ...]
    replaced: tuple[tuple[str, str], ...]


def by_round(events: Iterable[Event]) -> dict[int, list[Event]]:
    """Give the events of each round of the root, from 1; times are seconds since the epoch from here on."""
    found: dict[int, list[Event]] = {}
    here: list[Event] = []
    for event in absolute(events):
        here.append(event)
        if event["event"] == "round_committed":
            found[event["round_number"]], here = here, []
    return {**found, max(found, default=0) + 1: here}


def seen(events: Iterable[Event], hub: str) -> Seen:
    """Read events with absolute times; `hub`: whose answers are waited for, unless the node struck is one itself."""
    told = list(events)
    trained = Counter((one["node"], one["round_number"]) for one in told if one["event"] == "site_trained")
    notices = [one["message"] for one in told if one["event"] == "notice"]
    return Seen(
        tuple(one for one in told if one["event"] == "fault_injected"),
        tuple(recoveries(told, hub)),
        sum(times - 1 for times in trained.values()),
        tuple(message for message in notices if message.startswith("refused an update")),
        tuple((one["node"], one["cause"]) for one in told if one["event"] == "replica_replaced"),
    )


def recoveries(told: Iterable[Event], hub: str = "") -> Iterator[float | None]:
    """Give the seconds from each fault to the end of the next answer that counted: of the hub struck, else of `hub`, of
    any where that is empty or the run was struck; None where none came.
    """
    told = list(told)
    hubs = {one["actor"] for one in told if one["event"] == "phase" and one["phase"] == "aggregate"}
    for one in (one for one in told if one["event"] == "fault_injected"):
        of = {one["node"]} if one["node"] in hubs else {hub} if hub and one["node"] != RUN else hubs
        answers = (
            other["end_s"]
            for other in told
            if other["event"] == "phase" and other["phase"] == "aggregate" and other["actor"] in of
        )
        after = [end_s for end_s in answers if end_s > one["time_s"]]
        yield min(after) - one["time_s"] if after else None


def absolute(events: Iterable[Event]) -> Iterator[Event]:
    """Give events with times in seconds since the epoch: each process of a run counts from its own start."""
    epoch_s = 0.0
    for event in events:
        if event["event"] in ("log_opened", "run_started"):
            epoch_s = event["epoch_s"]
        yield _shifted(event, epoch_s)


def _shifted(event: Event, by_s: float) -> Event:
    return {**event, **{key: event[key] + by_s for key in ("time_s", "start_s", "end_s") if event.get(key) is not None}}
