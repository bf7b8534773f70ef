"""The calls of a log: which sites each trained, and what it cost beside their work."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from scheduler.eventlog import Span
from scheduler.views import Device
from tiers.federation import parent

__all__ = ["Calls", "usual_gap_s"]


@dataclass
class Calls:
    """Takes calls and their trainings as they stand in a log, on one clock."""

    spans: list[Span] = field(default_factory=list)
    _work_s: list[float] = field(default_factory=list)
    _last: dict[str, int] = field(default_factory=dict)
    _asked_s: dict[tuple[str, int], float] = field(default_factory=dict)
    _first: dict[int, tuple[str, int]] = field(default_factory=dict)

    def asked(self, site: str, number: int, at_s: float) -> None:
        """A site was asked in a round of its hub, counted from 0."""
        self._asked_s[site, number] = at_s

    def called(self, span: Span) -> None:
        """A call has ended; its trainings follow."""
        self._last[span.actor] = len(self.spans)
        self.spans.append(span)
        self._work_s.append(0.0)

    def trained(self, worker: str, site: str, number: int, seconds: float) -> None:
        """A site was trained in a worker's last call."""
        call = self._last.get(worker)
        if call is not None and site in self.spans[call].nodes:
            self._work_s[call] += seconds
            self._first.setdefault(call, (site, number))

    def worked(self) -> list[Span]:
        """List the calls by when they began, each as long as its sites' work: what it cost beside that comes before."""
        worked = [
            replace(span, start_s=max(span.start_s, span.end_s - work_s)) if work_s else span
            for span, work_s in zip(self.spans, self._work_s, strict=True)
        ]
        return sorted(worked, key=lambda span: (span.start_s, span.end_s))

    def gaps_s(self, devices: Mapping[str, Device]) -> dict[tuple[str, int], float]:
        """Say by a call's first site, and its hub's round, what the call took beside its sites' work, and what went by
        before it began: since the site was asked, or its worker had last ended something, or its device where several
        share that: one may have waited for others. In the order in which the calls began.
        """
        ends: dict[str, list[float]] = {}
        for span in self.spans:
            ends.setdefault(self._place(span.actor, devices), []).append(span.end_s)
        for own in ends.values():
            own.sort()
        found = {}
        for call, key in sorted(self._first.items(), key=lambda one: self.spans[one[0]].start_s):
            span, own = self.spans[call], ends[self._place(self.spans[call].actor, devices)]
            before = bisect_right(own, span.start_s)
            since_s = max(own[before - 1] if before else 0.0, self._asked_s.get(key, span.start_s))
            waited_s = max(0.0, span.start_s - since_s)
            found[key] = waited_s + max(0.0, span.end_s - span.start_s - self._work_s[call])
        return found

    def _place(self, worker: str, devices: Mapping[str, Device]) -> str:
        device = devices.get(worker)
        return worker if device is None or device.places == 1 else device.name


def usual_gap_s(calls: Sequence[Span], starts_s: Sequence[float]) -> float:
    """Take the usual gap between two calls on one worker for one hub within a round; 0 where there are none.

    `starts_s`: when the root's rounds began, in order.
    """
    gaps = []
    last: dict[str, tuple[int, str | None, float]] = {}
    for call in calls:
        here = bisect_right(starts_s, call.start_s), parent(call.nodes[0])
        before = last.get(call.actor)
        if before is not None and before[:2] == here:
            gaps.append(call.start_s - before[2])
        last[call.actor] = (*here, call.end_s)
    return max(0.0, median(gaps)) if gaps else 0.0
