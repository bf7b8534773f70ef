"""What happened on the devices between two barriers, in seconds as they ran and in seconds that work takes alone.

Busy is a device while a site is trained there or a model measured: not while it loads data, nor with work that failed.
What is still under way when a span ends counts as far as it has come: a late site works for a later round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hierfl.monitor.busy import Covered
from hierfl.monitor.company import Company
from scheduler.bounds import Fleet, Task
from scheduler.eligibility import nameless
from scheduler.idle import Idle, Tally
from scheduler.views import Device
from scheduler.workload import eligible

__all__ = ["Figures", "Piece", "Yard"]

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Piece:
    """A site's training, or a call that measures, on a worker from `start_s` to `end_s`; what it was admitted with."""

    worker: str
    start_s: float
    end_s: float
    labels: frozenset[str] = frozenset()
    memory_bytes: int = 0


class Yard:
    """The devices as they are now: `speeds` and `rates` hold for one span, and for its bound alike."""

    def __init__(
        self,
        workers: Mapping[str, Device],
        speed: Callable[[str], float],
        rates: Callable[[Device], Sequence[float]],
        pieces: Iterable[Piece],
    ) -> None:
        self.workers = workers
        self.devices = {device.name: device for device in workers.values()}
        self.speeds = {name: speed(device.kind) for name, device in self.devices.items()}
        busy: dict[str, list[Interval]] = {name: [] for name in self.devices}
        for piece in pieces:
            busy[workers[piece.worker].name].append((piece.start_s, piece.end_s))
        self._covered = {name: Covered(spans) for name, spans in busy.items()}
        curves = {name: rates(device) for name, device in self.devices.items()}
        most = max(map(len, curves.values()), default=1)
        best = tuple(max(curve[k] for curve in curves.values() if len(curve) > k) for k in range(most))
        self.fleet = Fleet(tuple(self.devices.values()), tuple(self.speeds.values()), best or (1.0,))
        self._is_held: dict[tuple[frozenset[str], int], bool] = {}
        self._company = {
            name: Company(busy[name], curves[name]) for name, device in self.devices.items() if device.places > 1
        }
        self._whole: dict[int, tuple[Piece, Task]] = {}

    def covered_s(self, device: str, start_s: float, end_s: float) -> float:
        """Measure how much of a window at least one worker of a device was busy."""
        return self._covered[device].inside_s(start_s, end_s)

    def alone_s(self, piece: Piece, since_s: float = float("-inf"), until_s: float = float("inf")) -> float:
        """Give what a piece, or its part in a window, takes alone on a device of speed 1, in seconds."""
        start_s, end_s = max(piece.start_s, since_s), min(piece.end_s, until_s)
        if end_s <= start_s:
            return 0.0
        device = self.workers[piece.worker].name
        company = self._company.get(device)
        return self.speeds[device] * (end_s - start_s if company is None else company.alone_s(start_s, end_s))

    def task(self, piece: Piece, since_s: float = float("-inf"), until_s: float = float("inf")) -> Task:
        """Give a piece, or its part in a window, as the bounds see it; what no device may hold runs where it ran.

        A hub's round and the span that it lies in both ask for most of them: a whole one is made once.
        """
        if not since_s <= piece.start_s <= piece.end_s <= until_s:
            return self._task(piece, since_s, until_s)
        if id(piece) not in self._whole:
            self._whole[id(piece)] = piece, self._task(piece, since_s, until_s)
        return self._whole[id(piece)][1]

    def _task(self, piece: Piece, since_s: float, until_s: float) -> Task:
        task = Task(self.alone_s(piece, since_s, until_s), piece.labels, piece.memory_bytes)
        need = piece.labels, piece.memory_bytes
        if need not in self._is_held:
            self._is_held[need] = bool(self.fleet.eligible(task))
        return task if self._is_held[need] else Task(task.duration_s)


@dataclass
class Figures:
    """What spans add up to: of the run, by hub, by device, and by sort of device (those that differ in name alone)."""

    run: Tally = field(default_factory=Tally)
    hubs: dict[str, Tally] = field(default_factory=dict)
    devices: dict[str, Tally] = field(default_factory=dict)
    sorts: dict[Device, Tally] = field(default_factory=dict)

    def span(
        self,
        yard: Yard,
        pieces: Sequence[tuple[Piece, Task]],
        window: Interval,
        held_s: Mapping[str, float],
        bound_s: float,
    ) -> None:
        """Take a span: its window, the pieces of work with their parts in it, the devices' allocation, its bound."""
        busy = {name: yard.covered_s(name, *window) for name in yard.devices}
        had = {name: max(spent_s, held_s.get(name, 0.0)) for name, spent_s in busy.items()}
        own, shared = dict.fromkeys(busy, 0.0), dict[tuple[frozenset[str], int], float]()
        for piece, task in pieces:
            own[yard.workers[piece.worker].name] += task.duration_s
            shared[task.labels, task.memory_bytes] = shared.get((task.labels, task.memory_bytes), 0.0) + task.duration_s
        spent = {"bound_s": bound_s, "makespan_s": window[1] - window[0]}
        self.run.add(busy, had, work_s=sum(own.values()), speeds=yard.speeds, **spent)
        sorts: dict[Device, list[str]] = {}
        for name, device in yard.devices.items():
            sorts.setdefault(nameless(device), []).append(name)
            mine = {name: busy[name]}
            self.devices.setdefault(name, Tally()).add(mine, had, work_s=own[name], speeds=yard.speeds, **spent)
        for sort, names in sorts.items():
            able_s = sum(work_s for (labels, memory), work_s in shared.items() if eligible(labels, memory, sort))
            mine = {name: busy[name] for name in names}
            self.sorts.setdefault(sort, Tally()).add(mine, had, work_s=able_s, speeds=yard.speeds, **spent)

    def device(self, device: Device) -> Idle:
        """Give a device's figures beside the floor of its sort."""
        found, floor = self.devices[device.name].idle(), self.sorts[nameless(device)].idle().floor
        return replace(found, floor=floor, efficiency=(1.0 - found.idle) / (1.0 - floor) if floor < 1.0 else 1.0)

    def add(self, other: Figures) -> None:
        """Add what other spans add up to."""
        self.run.update(other.run)
        for mine, theirs in ((self.hubs, other.hubs), (self.devices, other.devices)):
            for name, tally in theirs.items():
                mine.setdefault(name, Tally()).update(tally)
        for sort, tally in other.sorts.items():
            self.sorts.setdefault(sort, Tally()).update(tally)
