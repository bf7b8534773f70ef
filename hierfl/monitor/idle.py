"""How idle the devices were, next to the floor that no schedule can beat: from the run's records alone.

A span is a round of the root, from its opening to its barrier, or a measurement. Its bound is the longest chain of
barriers in the tree or what all its work takes on all devices, whichever is more (see `scheduler.bounds`): the round of
a hub takes what its sites' work takes on the devices that may do it, and as long as the slowest member hub; where
members train one after another, the sum over them.

Bounds are made of what the work took, less loading, times the speed of its device and its share of it (`company`), and
of the part of it that lies in the span; so the schedule that was is one of those that are bounded, and no bound can be
above the time but by what the machines' clocks differ. Nothing is cut: an efficiency above 1 is a defect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from hierfl.monitor.records import (
    Assigned,
    Evaluated,
    NodesChanged,
    Phase,
    Record,
    RoundClosed,
    SiteTrained,
    StretchEnded,
)
from hierfl.monitor.span import Figures, Piece, Yard
from scheduler.bounds import Task, price_bound, round_bound
from scheduler.idle import Idle, Tally
from scheduler.views import Device
from tiers.federation import Federation, Hub, parent

__all__ = ["IdleTime"]

KEPT = 20
"""Of the work beside a hub's round that has been open for long, so many pieces for each site count: a hub may be late
for weeks.
"""


def _own_rate(device: Device) -> Sequence[float]:
    """Take jobs not to disturb each other."""
    return tuple(float(num) for num in range(1, device.places + 1))


class IdleTime:
    """A monitor that adds up busy and idle time. `devices` by worker may grow; `labels` by site is the residency.

    `speed` of a kind of device and a device's total `rates` with 1, 2, ... jobs are asked for once a span; `held_s`:
    how long the run has had each device so far, where others use them too; None: always. Only what a run has can be
    idle. `tell` hears of every span that is over.
    """

    heeds: ClassVar = (Assigned, Evaluated, NodesChanged, Phase, RoundClosed, SiteTrained)

    def __init__(
        self,
        tree: Federation,
        devices: Mapping[str, Device],
        labels: Mapping[str, frozenset[str]],
        speed: Callable[[str], float] = lambda kind: 1.0,
        rates: Callable[[Device], Sequence[float]] = _own_rate,
        held_s: Callable[[], Mapping[str, float] | None] = lambda: None,
        tell: Callable[[Record], None] = lambda record: None,
    ) -> None:
        self._tree = tree
        self._devices = devices
        self._labels = labels
        self._speed = speed
        self._rates = rates
        self._held_s = held_s
        self._tell = tell
        self._had_s: Mapping[str, float] = {}
        self._pieces: list[Piece] = []
        self._reached_s: dict[str, float] = {}
        self._open: dict[str, Assigned] = {}
        self._memory: dict[str, int] = {}
        self._trained: dict[tuple[str, int], dict[str, Piece]] = {}
        self._closed: list[RoundClosed] = []
        self._measuring_s: float | None = None
        self._hub_rounds: dict[tuple[str, int], tuple[float, list[Task]]] = {}
        self._wanted = self._labels_below()
        self._inner = {path: [one for one in tree.members(path) if one in tree.hubs] for path in tree.hubs}
        self._num_kept = KEPT * len(tree.sites)
        self._total, self._last = Figures(), Figures()
        self._worked_s: dict[str, float] = {}

    def on(self, record: Record) -> None:
        """Take a record; those that come for every site first."""
        if isinstance(record, SiteTrained):
            self._site(record)
        elif isinstance(record, NodesChanged):
            for node in record.nodes if record.state == "failed" else ():
                self._open.pop(node, None)
        elif isinstance(record, Assigned):
            if record.kind == "train":
                self._open.update(dict.fromkeys(record.sites, record))
                self._memory.update(dict.fromkeys(record.sites, record.memory_bytes))
        elif isinstance(record, Phase):
            if record.actor in self._devices:
                self._phase(record)
        elif isinstance(record, RoundClosed):
            self._closed.append(record)
            self._forget(record)
            if record.node == self._tree.root.name:
                self._end(record.duration_s, record.time_s, measured=False)
        elif isinstance(record, Evaluated):
            if self._measuring_s is not None:
                self._end(record.time_s - self._measuring_s, record.time_s, measured=True)
            self._measuring_s = None

    def close(self) -> None:
        """Nothing is open."""

    def last(self) -> Idle:
        """Give the figures of the last round's training."""
        return self._last.run.idle()

    def total(self) -> Idle:
        """Give the figures of all rounds and measurements."""
        return self._total.run.idle()

    def workers(self) -> dict[str, float]:
        """Give each worker's busy fraction over all rounds and measurements; several may share a device."""
        whole_s = self._total.run.makespan_s
        return {worker: self._worked_s.get(worker, 0.0) / whole_s if whole_s else 0.0 for worker in self._devices}

    def devices(self, *, last: bool = False) -> dict[str, Idle]:
        """Give the figures of every device that the run had, over all or in the last round.

        The floor is what those of its speed, labels, memory and places have on average, and the efficiency is what was
        busy over what then could be; the goodput is the device's own.
        """
        found = self._last if last else self._total
        had = {name for name, tally in found.devices.items() if tally.capacity_s > 0.0}
        return {name: found.device(device) for name, device in self._by_name().items() if name in had}

    def hubs(self, *, last: bool = False) -> dict[str, Idle]:
        """Give every hub's figures: the devices that may take its sites, while its rounds were open.

        Other hubs' work on these devices counts as busy, so that less may be idle than the hub alone could not avoid;
        the floor is then what was idle. The goodput is of its own work.
        """
        found = {path: tally.idle() for path, tally in (self._last if last else self._total).hubs.items()}
        return {path: replace(idle, floor=min(idle.floor, idle.idle)) for path, idle in found.items()}

    def _phase(self, record: Phase) -> None:
        """A worker was busy."""
        self._reached_s[record.actor] = max(record.end_s, self._reached_s.get(record.actor, 0.0))
        for site in record.nodes if record.phase == "train" else ():
            if site in self._open and self._open[site].worker == record.actor:
                del self._open[site]
        if record.phase == "evaluate":
            labels = self._any_label(record.nodes[0].rpartition("/")[0])
            self._pieces.append(Piece(record.actor, record.start_s, record.end_s, labels))
            self._measuring_s = min(record.start_s, self._measuring_s or record.start_s)

    def _site(self, record: SiteTrained) -> None:
        """A site was trained."""
        if record.worker not in self._devices:
            return
        began_s = record.time_s - record.duration_s if record.start_s is None else record.start_s
        ended_s = min(began_s + record.duration_s, record.time_s)  # a linked member may have had it done before
        piece = self._piece(record.node, record.worker, began_s + min(record.load_s, ended_s - began_s), ended_s)
        self._pieces.append(piece)
        hub = record.node.rpartition("/")[0]
        self._trained.setdefault((hub, record.round_number - 1), {})[record.node] = piece

    def _piece(self, site: str, worker: str, start_s: float, end_s: float) -> Piece:
        return Piece(worker, start_s, end_s, self._labels.get(site, frozenset()), self._memory.get(site, 0))

    def _forget(self, record: RoundClosed) -> None:
        """Whoever is not said to be late is not at work any more for the round that closed."""
        for site in [site for site in self._open if site.startswith(f"{record.node}/")]:
            member, _, below = site.removeprefix(f"{record.node}/").partition("/")
            if member not in record.late and (not below or member in record.missing):
                del self._open[site]

    def _running(self, time_s: float) -> list[Piece]:
        """List what goes on, each worker's as far as it has come."""
        found: dict[str, Piece] = {}
        for site, record in self._open.items():
            if record.worker in self._devices and record.worker not in found:
                began_s = max(record.time_s, self._reached_s.get(record.worker, 0.0))
                found[record.worker] = self._piece(site, record.worker, began_s, time_s)
        return [piece for piece in found.values() if piece.end_s > piece.start_s]

    def _end(self, makespan_s: float, time_s: float, *, measured: bool) -> None:
        """A span is over: the hubs' rounds that closed in it are bounded, and then the whole."""
        began_s, pieces = time_s - makespan_s, [*self._pieces, *self._running(time_s)]
        yard = Yard(self._devices, self._speed, self._rates, pieces)
        bound_s, found = 0.0, Figures()
        for record in self._closed:
            hub_s = self._bound_hub(record, yard, found)
            if record.node == self._tree.root.name:  # another's round may close while the model is measured
                bound_s = hub_s
        self._closed = []
        parts = [(piece, yard.task(piece, began_s, time_s)) for piece in pieces]
        tasks = [task for _, task in parts if task.duration_s > 0.0]
        bound_s = max(bound_s, price_bound(tasks, yard.fleet))
        held_s = self._held(makespan_s)
        self._had_s = self._held_s() or {}
        if makespan_s > 0.0:
            found.span(yard, parts, (began_s, time_s), held_s, bound_s)
            self._total.add(found)
            said = _summed(tasks), self._described(yard), yard.fleet.rates
            self._tell(StretchEnded(time_s, began_s, bound_s, *said))
        for piece in pieces:
            inside_s = max(0.0, min(piece.end_s, time_s) - max(piece.start_s, began_s))
            self._worked_s[piece.worker] = self._worked_s.get(piece.worker, 0.0) + inside_s
        if not measured:
            self._last = found
        waiting = (piece.start_s for own in self._trained.values() for piece in own.values())
        since_s = min(waiting, default=time_s)  # company of work whose hub's round is open yet
        kept = [piece for piece in self._pieces if piece.end_s > min(since_s, time_s)]
        self._pieces = kept[-self._num_kept :]

    def _bound_hub(self, record: RoundClosed, yard: Yard, found: Figures) -> float:
        """Bound a round of a hub in seconds, and note its figures."""
        path, number, members = record.node, record.round_number - 1, set(record.members)
        trained = self._trained.get((path, number), {})
        counted = [yard.task(piece) for site, piece in trained.items() if site.rpartition("/")[2] in members]
        for key in [key for key in self._trained if key[0] == path and key[1] <= number]:
            del self._trained[key]
        below_s, below = self._members_round(path, number, members)
        tasks = [*counted, *below]
        if self._tree.hubs[path].topology.sequential:
            bound_s = below_s + sum(round_bound([task], yard.fleet) for task in counted)
        else:
            bound_s = max(round_bound(counted, yard.fleet), below_s)
            if below:  # the longest member is one bound, the work of all of them another
                bound_s = max(bound_s, price_bound(tasks, yard.fleet))
        if path != self._tree.root.name:
            self._hub_rounds[path, number] = bound_s, tasks
        self._drop_below(path, number, record.late)
        opened_s, held_s = record.time_s - record.duration_s, self._held(record.duration_s)
        busy = {name: yard.covered_s(name, opened_s, record.time_s) for name in self._of_hub(path)}
        had_s = {name: max(spent_s, held_s.get(name, 0.0)) for name, spent_s in busy.items()}
        work_s = sum(task.duration_s for task in tasks)
        spent = {"work_s": work_s, "bound_s": bound_s, "makespan_s": record.duration_s}
        found.hubs.setdefault(path, Tally()).add(busy, had_s, speeds=yard.speeds, **spent)
        return bound_s

    def _members_round(self, path: str, number: int, members: set[str]) -> tuple[float, list[Task]]:
        """Bound what member hubs take, each the sum of its own rounds: the slowest, or all where they take turns; and
        list their work.
        """
        longest_s, in_turn_s, tasks = 0.0, 0.0, list[Task]()
        for member in self._tree.members(path):
            hub = self._tree.nodes[member]
            if isinstance(hub, Hub) and hub.name in members:
                first = number * hub.rounds
                own = [self._hub_rounds.pop((member, first + k), (0.0, [])) for k in range(hub.rounds)]
                chain_s = sum(bound_s for bound_s, _ in own)
                longest_s, in_turn_s = max(longest_s, chain_s), in_turn_s + chain_s
                tasks.extend(task for _, work in own for task in work)
        return (in_turn_s if self._tree.hubs[path].topology.sequential else longest_s), tasks

    def _drop_below(self, path: str, number: int, late: Sequence[str]) -> None:
        """Forget the rounds of member hubs that this one's was made of, whether it waited for them or not; and what was
        trained below those that are over and have not closed, since they gave up.
        """
        for hub in [hub for hub in self._inner[path] if hub.rpartition("/")[2] not in late]:
            for key in [key for key in self._trained if key[0] == hub or key[0].startswith(f"{hub}/")]:
                del self._trained[key]
        ends = {hub: (number + 1) * self._tree.hubs[hub].rounds for hub in self._inner[path]}
        for key in [key for key in self._hub_rounds if key[1] < ends.get(key[0], 0)]:
            del self._hub_rounds[key]

    def _described(self, yard: Yard) -> dict[str, dict[str, Any]]:
        """Say of every device what makes it differ from others."""
        found: dict[str, dict[str, Any]] = {}
        for worker, device in self._devices.items():
            own: dict[str, Any] = {"workers": [], "labels": sorted(device.labels), "places": device.places}
            own |= {"memory_bytes": device.memory_bytes, "speed": yard.speeds[device.name]}
            found.setdefault(device.name, own)["workers"].append(worker)
        return found

    def _held(self, window_s: float) -> dict[str, float]:
        """Give how much of a window that ends now the run had each device; at most what it had since the last span."""
        held = self._held_s()
        if held is None:
            return dict.fromkeys(self._by_name(), window_s)
        return {name: min(window_s, had - self._had_s.get(name, 0.0)) for name, had in held.items()}

    def _any_label(self, hub: str) -> frozenset[str]:
        """Give the labels of a hub's sites if they are all alike: a measurement's call may be of several."""
        labels = {self._labels.get(site, frozenset()) for site in self._tree.members(hub) if site in self._tree.sites}
        return labels.pop() if len(labels) == 1 else frozenset()

    def _by_name(self) -> dict[str, Device]:
        return {device.name: device for device in self._devices.values()}

    def _of_hub(self, path: str) -> list[str]:
        """List the devices that may take at least one of the sites below a hub."""
        found = self._by_name().items()
        return [name for name, device in found if any(label <= device.labels for label in self._wanted[path])]

    def _labels_below(self) -> dict[str, set[frozenset[str]]]:
        """Collect by hub the residency of the sites below: its rounds are made of their work."""
        found: dict[str, set[frozenset[str]]] = {path: set() for path in self._tree.hubs}
        for site in self._tree.sites:
            above, labels = parent(site), self._labels.get(site, frozenset())
            while above is not None and labels not in found[above]:  # what is known there is known further up
                found[above].add(labels)
                above = parent(above)
        return found


def _summed(tasks: Sequence[Task]) -> list[tuple[list[str], int, float]]:
    """Add up the seconds of tasks by their residency and memory."""
    found: dict[tuple[frozenset[str], int], float] = {}
    for task in tasks:
        key = task.labels, task.memory_bytes
        found[key] = found.get(key, 0.0) + task.duration_s
    return [(sorted(labels), memory_bytes, spent) for (labels, memory_bytes), spent in found.items()]
