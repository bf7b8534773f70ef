"""A log replayed: the workload that a run has had, and the seconds that its jobs took, read from what it wrote.

A site's path tells its hub and its federation: the last part is the site's name, the first the federation's, what lies
between the hub's (a federation whose sites have no other hub is its own). Hubs between a hub and its federation have
their barriers with the federation's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from scheduler.eventlog import Span
from scheduler.forecast import Oracle
from scheduler.outcome import Outcome
from scheduler.policy import Policy
from scheduler.simulator import simulate
from scheduler.views import Device, JobKey
from scheduler.workload import Actual, Federation, Hub, Site, Workload, group_name

__all__ = ["from_log", "replay"]


def from_log(
    log: Sequence[Span],
    devices: Sequence[Device],
    *,
    kappa: Mapping[str, int] | None = None,
    speeds: Mapping[str, float] | None = None,
    hubs: Mapping[str, Hub] | None = None,
) -> tuple[Workload, Actual]:
    """Build the workload of a run from its log, and what each of its jobs took.

    `kappa`: rounds per global round by hub's path, 1 where missing; `speeds` by device kind; `hubs` by path: labels,
    and the sites' samples, memory and models, where they matter. Sites stand in the order of their first call. The
    sites of one call share its seconds; the shortest pause between two rounds is the hub's transfer. A log without
    training is an assertion.
    """
    kinds = {device.name: device.kind for device in devices}
    first: dict[str, dict[str, None]] = {}
    took: dict[tuple[str, int], dict[str, float]] = {}
    for span in sorted(log, key=lambda span: (span.start_s, span.actor)):
        if span.phase != "train":
            continue
        seconds = (span.end_s - span.start_s) * (speeds or {}).get(kinds[span.actor], 1.0) / len(span.nodes)
        for path in span.nodes:
            above = path.rpartition("/")[0]
            first.setdefault(above, {})[path] = None
            took.setdefault((above, span.round), {})[path] = seconds
    assert took, "a log without training"
    begun = {path: min(number for name, number in took if name == path) for path in first}
    made: dict[str, list[Hub]] = {}
    actual: dict[JobKey, float] = {}
    rounds: dict[str, int] = {}
    for path, sites in first.items():
        own = {number: seconds for (name, number), seconds in took.items() if name == path}
        pause_s = _transfer_s(log, path, kappa or {}, begun)
        hub = _hub(path, list(sites), own, (kappa or {}).get(path, 1), pause_s, (hubs or {}).get(path))
        federation = Federation(path.partition("/")[0], (hub,))
        made.setdefault(federation.name, []).append(hub)
        for number, by_site in own.items():
            counted = number - begun[path]
            rounds[federation.name] = max(rounds.get(federation.name, 0), counted // hub.rounds + 1)
            for site, seconds in by_site.items():
                name = f"{federation.name}/{hub.name}/{site.rpartition('/')[2]}"
                actual[group_name(federation, hub, counted), name] = seconds
    federations = tuple(Federation(name, tuple(hubs_of), rounds[name]) for name, hubs_of in made.items())
    return Workload(federations, tuple(devices), speeds or {}, call_s=_call_s(log)), actual


def replay(workload: Workload, actual: Actual, policy: Policy) -> Outcome:
    """Simulate a workload read from a log, with a scheduler that knows what its jobs took."""
    return simulate(workload, policy, actual, Oracle(workload, actual))


def _hub(
    path: str,
    sites: Sequence[str],
    took: Mapping[int, Mapping[str, float]],
    kappa: int,
    transfer_s: float,
    known: Hub | None,
) -> Hub:
    """Make a hub of what is known of it; a site's own duration is its median."""
    facts = {site.name: site for site in known.sites} if known is not None else {}
    made = []
    for site in sites:
        name = site.rpartition("/")[2]
        duration_s = median(seconds[site] for seconds in took.values() if site in seconds)
        fact = facts.get(name, Site(name, 1.0))
        made.append(Site(name, max(duration_s, 1e-9), fact.size, fact.memory_bytes, fact.model))
    labels = known.labels if known is not None else frozenset()
    return Hub(path.partition("/")[2] or path, tuple(made), kappa, labels, transfer_s)


def _transfer_s(log: Sequence[Span], hub: str, kappa: Mapping[str, int], begun: Mapping[str, int]) -> float:
    """Take the shortest pause between two global rounds, for then no hub waits for another.

    A hub with several rounds of its own pauses shorter in between: from its last site's end to its aggregation's.
    """
    inner = kappa.get(hub, 1) > 1
    among = hub if inner else hub.partition("/")[0]
    starts: dict[int, float] = {}
    ends: dict[int, float] = {}
    for span in log:
        above = span.nodes[0].rpartition("/")[0]
        if span.phase == "train" and f"{above}/".startswith(f"{among}/"):
            number = span.round if inner else (span.round - begun[above]) // kappa.get(above, 1)
            starts[number] = min(starts.get(number, span.start_s), span.start_s)
            ends[number] = max(ends.get(number, span.end_s), span.end_s)
    pauses = [starts[number + 1] - end for number, end in ends.items() if number + 1 in starts]
    told = [span.end_s - ends[span.round] for span in log if _is_of(span, hub) and span.round in ends]
    known = told or pauses if inner else pauses or told
    return max(0.0, min(known, default=0.0))


def _is_of(span: Span, hub: str) -> bool:
    """Say whether a record is of a hub's aggregation."""
    return span.phase == "aggregate" and span.actor == hub


def _call_s(log: Sequence[Span]) -> float:
    """Take the median of the gaps between calls of one round on one device."""
    gaps: list[float] = []
    last: dict[str, Span] = {}
    for span in sorted(log, key=lambda span: span.start_s):
        if span.phase != "train":
            continue
        before = last.get(span.actor)
        if before is not None and before.round == span.round:
            gaps.append(span.start_s - before.end_s)
        last[span.actor] = span
    return max(0.0, median(gaps)) if gaps else 0.0
