"""How idle the devices were, next to the floor that no schedule can beat: from the run's records alone.

A span is a round of the root, from its opening to its barrier, or a measurement. Its bound is the longest chain of
barriers in the tree or what all its work takes on all devices, whichever is more (see `scheduler.bounds`): the round of
a hub takes what its sites' work takes on the devices that may do it, and as long as the slowest member hub.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hierfl.monitor.busy import covered_s
from hierfl.monitor.records import Evaluated, Phase, Record, RoundClosed, SiteTrained, StretchEnded
from scheduler.bounds import Fleet, Task, price_bound, round_bound
from scheduler.idle import Idle, figures
from scheduler.views import Device
from tiers.federation import Federation, Hub

__all__ = ["IdleTime"]


@dataclass
class _Span:
    """Work between two barriers; `busy` by worker as intervals, `work` by hub and its round as {site: seconds}."""

    start_s: float
    end_s: float = 0.0
    busy: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    work: dict[tuple[str, int], dict[str, float]] = field(default_factory=dict)
    bound_s: float = 0.0


@dataclass
class _Sum:
    """What spans, or a hub's rounds, add up to."""

    busy_s: dict[str, float] = field(default_factory=dict)
    allocated_s: dict[str, float] = field(default_factory=dict)
    work_s: float = 0.0
    bound_s: float = 0.0
    makespan_s: float = 0.0

    def add(
        self,
        busy_s: Mapping[str, float],
        allocated_s: Mapping[str, float],
        work_s: float,
        bound_s: float,
        makespan_s: float,
    ) -> None:
        for device, spent in busy_s.items():
            self.busy_s[device] = self.busy_s.get(device, 0.0) + spent
            had_s = max(spent, allocated_s.get(device, 0.0))
            self.allocated_s[device] = self.allocated_s.get(device, 0.0) + had_s
        self.work_s += work_s
        self.bound_s += bound_s
        self.makespan_s += makespan_s


class IdleTime:
    """A monitor that adds up busy and idle time. `devices` by worker may grow; `labels` by site is the residency.

    `speed` of a kind of device; `held_s`: how long the run has had each device so far, where others use them too; None:
    always. Only what a run has can be idle. `tell` hears of every span that is over.
    """

    def __init__(
        self,
        tree: Federation,
        devices: Mapping[str, Device],
        labels: Mapping[str, frozenset[str]],
        speed: Callable[[str], float] = lambda kind: 1.0,
        held_s: Callable[[], Mapping[str, float] | None] = lambda: None,
        tell: Callable[[Record], None] = lambda record: None,
    ) -> None:
        self._tree = tree
        self._devices = devices
        self._labels = labels
        self._speed = speed
        self._held_s = held_s
        self._tell = tell
        self._had_s: Mapping[str, float] = {}
        self._span = _Span(0.0)
        self._hub_rounds: dict[tuple[str, int], tuple[float, float]] = {}
        self._last = self._total = _Sum()
        self._hubs: dict[str, _Sum] = {}
        self._wanted = {path: self._labels_below(path) for path in tree.hubs}
        self._total = _Sum()
        self._workers_s: dict[str, float] = {}

    def on(self, record: Record) -> None:
        """Take a record."""
        if isinstance(record, Phase) and record.phase in ("train", "evaluate"):
            if record.actor in self._devices:
                self._span.busy.setdefault(record.actor, []).append((record.start_s, record.end_s))
                if record.phase == "evaluate":
                    key = (record.nodes[0].rpartition("/")[0], 0)
                    seconds = self._span.work.setdefault(key, {})
                    seconds[f"{record.actor}:{record.start_s}"] = record.end_s - record.start_s
        elif isinstance(record, SiteTrained):
            hub = record.node.rpartition("/")[0]
            self._span.work.setdefault((hub, record.round_number - 1), {})[record.node] = record.duration_s
        elif isinstance(record, RoundClosed):
            self._closed(record)
        elif isinstance(record, Evaluated):
            self._end(record.time_s - self._started(record.time_s), record.time_s, measured=True)

    def close(self) -> None:
        """Nothing is open."""

    def last(self) -> Idle:
        """Give the figures of the last round's training."""
        return self._idle(self._last, self._names())

    def total(self) -> Idle:
        """Give the figures of all rounds and measurements."""
        return self._idle(self._total, self._names())

    def workers(self) -> dict[str, float]:
        """Give each worker's busy fraction over all rounds and measurements; several may share a device."""
        whole_s = self._total.makespan_s
        return {
            worker: min(1.0, self._workers_s.get(worker, 0.0) / whole_s) if whole_s else 0.0 for worker in self._devices
        }

    def hubs(self) -> dict[str, Idle]:
        """Give every hub's figures: the devices that may take its sites, while its rounds were open.

        Other hubs' work on these devices counts as busy, so that less may be idle than the hub alone could not avoid;
        the floor is then what was idle.
        """
        found = {path: self._idle(added, self._of_hub(path)) for path, added in self._hubs.items()}
        return {path: replace(idle, floor=min(idle.floor, idle.idle)) for path, idle in found.items()}

    def _closed(self, record: RoundClosed) -> None:
        """A hub's barrier is reached: its bound is known, and at the root the span is over."""
        path, number = record.node, record.round_number - 1
        members = set(record.members)
        seconds = self._span.work.get((path, number), {})
        counted = {site: spent for site, spent in seconds.items() if site.rpartition("/")[2] in members}
        tasks = [Task(spent, self._labels.get(site, frozenset())) for site, spent in counted.items()]
        below_s, work_s = self._members_s(path, number, members)
        work_s += sum(counted.values())
        bound_s = max(round_bound(tasks, self._fleet()), below_s)
        bound_s = min(bound_s, record.duration_s)  # clocks differ a little, and a site may have worked for two rounds
        self._hub_rounds[path, number] = bound_s, work_s
        opened_s = record.time_s - record.duration_s
        of_hub = self._hubs.setdefault(path, _Sum())
        busy = {name: self._covered(self._span, name, opened_s, record.time_s) for name in self._of_hub(path)}
        held_s = self._held(record.duration_s)
        share = {name: held_s.get(name, 0.0) for name in busy}
        of_hub.add(busy, share, work_s, bound_s, record.duration_s)
        if path == self._tree.root.name:
            self._span.bound_s = bound_s
            self._end(record.duration_s, record.time_s, measured=False)

    def _members_s(self, path: str, number: int, members: set[str]) -> tuple[float, float]:
        """Bound what the slowest member hub takes, the sum of its own rounds; and add up all member hubs' work."""
        longest_s = work_s = 0.0
        for member in self._tree.members(path):
            hub = self._tree.nodes[member]
            if isinstance(hub, Hub) and hub.name in members:
                first = number * hub.rounds
                own = [self._hub_rounds.pop((member, first + k), (0.0, 0.0)) for k in range(hub.rounds)]
                longest_s = max(longest_s, sum(bound_s for bound_s, _ in own))
                work_s += sum(spent for _, spent in own)
        return longest_s, work_s

    def _end(self, makespan_s: float, time_s: float, *, measured: bool) -> None:
        """A span is over."""
        span, self._span = self._span, _Span(time_s)
        if makespan_s <= 0.0:
            return
        self._span.busy = {  # what goes on, late work among it, counts in the next span too
            name: kept
            for name, spans in span.busy.items()
            if (kept := [(start, end) for start, end in spans if end > time_s])
        }
        began_s = time_s - makespan_s
        busy = {name: self._covered(span, name, began_s, time_s) for name in self._names()}
        for worker, spans in span.busy.items():
            self._workers_s[worker] = self._workers_s.get(worker, 0.0) + _covered(spans, began_s, time_s)
        tasks = [
            Task(spent, self._labels.get(site, frozenset()) if not measured else self._any_label(hub))
            for (hub, _), seconds in span.work.items()
            for site, spent in seconds.items()
        ]
        bound_s = max(span.bound_s, min(makespan_s, price_bound(tasks, self._fleet()) if tasks else 0.0))
        found = _Sum()
        allocated_s = self._held(makespan_s)
        self._had_s = self._held_s() or {}
        found.add(busy, allocated_s, sum(task.duration_s for task in tasks), bound_s, makespan_s)
        self._total.add(busy, allocated_s, found.work_s, bound_s, makespan_s)
        if not measured:
            self._last = found
        work: dict[frozenset[str], float] = {}
        for task in tasks:
            work[task.labels] = work.get(task.labels, 0.0) + task.duration_s
        said = [(sorted(labels), spent) for labels, spent in work.items()]
        self._tell(StretchEnded(time_s, began_s, bound_s, said, self._described()))

    def _described(self) -> dict[str, dict[str, Any]]:
        """Say of every device what makes it differ from others."""
        found: dict[str, dict[str, Any]] = {}
        for worker, device in self._devices.items():
            first = {"labels": sorted(device.labels), "places": device.places, "speed": self._speed(device.kind)}
            found.setdefault(device.name, {"workers": [], **first})["workers"].append(worker)
        return found

    def _held(self, window_s: float) -> dict[str, float]:
        """Give how much of a window that ends now the run had each device; at most what it had since the last span."""
        held = self._held_s()
        if held is None:
            return dict.fromkeys(self._names(), window_s)
        return {name: min(window_s, had - self._had_s.get(name, 0.0)) for name, had in held.items()}

    def _started(self, time_s: float) -> float:
        """Say when a measurement began."""
        return min((start for spans in self._span.busy.values() for start, _ in spans), default=time_s)

    def _any_label(self, hub: str) -> frozenset[str]:
        """Give the labels of a hub's sites if they are all alike: a measurement's call may be of several."""
        labels = {self._labels.get(site, frozenset()) for site in self._tree.members(hub) if site in self._tree.sites}
        return labels.pop() if len(labels) == 1 else frozenset()

    def _covered(self, span: _Span, device: str, start_s: float, end_s: float) -> float:
        """Measure how much of a window at least one worker of a device was busy."""
        beside = [spans for worker, spans in span.busy.items() if self._devices[worker].name == device]
        return _covered([one for spans in beside for one in spans], start_s, end_s)

    def _fleet(self) -> Fleet:
        found = {device.name: device for device in self._devices.values()}
        devices = tuple(found.values())
        rates = tuple(float(k) for k in range(1, 1 + max((device.places for device in devices), default=1)))
        return Fleet(devices, tuple(self._speed(device.kind) for device in devices), rates)

    def _names(self) -> list[str]:
        return list(dict.fromkeys(device.name for device in self._devices.values()))

    def _of_hub(self, path: str) -> list[str]:
        """List the devices that may take at least one of the sites below a hub."""
        found = {device.name: device for device in self._devices.values()}
        return [name for name, device in found.items() if any(label <= device.labels for label in self._wanted[path])]

    def _labels_below(self, path: str) -> set[frozenset[str]]:
        """Collect the residency of the sites directly under a hub, or of those below where it has none."""
        own = [member for member in self._tree.members(path) if member in self._tree.sites]
        below = own or [site for site in self._tree.sites if site.startswith(f"{path}/")]
        return {self._labels.get(site, frozenset()) for site in below}

    def _idle(self, found: _Sum, names: list[str]) -> Idle:
        idle = figures(
            {name: found.busy_s.get(name, 0.0) for name in names},
            {name: found.allocated_s.get(name, 0.0) for name in names},
            work_s=found.work_s,
            bound_s=found.bound_s,
            makespan_s=found.makespan_s,
            speeds={device.name: self._speed(device.kind) for device in self._devices.values()},
        )
        busy = {device: min(1.0, fraction) for device, fraction in idle.busy.items()}
        return Idle(busy, idle.idle, idle.floor, min(1.0, idle.efficiency), idle.makespan_s, idle.goodput)


def _covered(spans: list[tuple[float, float]], start_s: float, end_s: float) -> float:
    """Measure how much of a window intervals cover."""
    return covered_s((max(start, start_s), min(end, end_s)) for start, end in spans if end > start_s and start < end_s)
