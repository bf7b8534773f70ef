"""What rounds have kept the devices busy with, live or simulated: the same figures from either."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from scheduler.bounds import Fleet, Task, price_bound
from scheduler.eventlog import Decision, union_s

__all__ = ["Ran", "Worked"]


@dataclass(frozen=True, slots=True)
class Worked:
    """A call that has ended on a device: when it trained, what its sites need, what they take alone at speed 1."""

    device: str
    start_s: float
    end_s: float
    labels: frozenset[str]
    memory_bytes: int
    work_s: float


@dataclass(frozen=True)
class Ran:
    """Calls, and from when to when each round of each root was open; `gave_up`: why a root did, if one did."""

    worked: tuple[Worked, ...]
    rounds: tuple[tuple[tuple[float, float], ...], ...]
    decisions: tuple[Decision, ...] = ()
    gave_up: str = ""

    @cached_property
    def windows(self) -> tuple[tuple[float, float], ...]:
        """List when any round was open, from barrier to barrier."""
        edges = sorted({edge for rounds in self.rounds for span in rounds for edge in span})
        spans = pairwise(edges)
        return tuple(
            span for span in spans if any(a <= span[0] and span[1] <= b for own in self.rounds for a, b in own)
        )

    @property
    def makespan_s(self) -> float:
        """Add up the time in which rounds were open."""
        return sum(end - start for start, end in self.windows)

    def rounds_s(self) -> list[float]:
        """List what each round of the first root took."""
        return [end - start for start, end in self.rounds[0]]

    def busy_s(self, devices: Sequence[str]) -> Mapping[str, float]:
        """Add up by device the seconds in which it trained while a round was open, whosever round asked for it."""
        spans: dict[str, list[tuple[float, float]]] = {name: [] for name in devices}
        for call in self.worked:
            spans[call.device].append((call.start_s, call.end_s))
        return {name: union_s(own, self.windows) for name, own in spans.items()}

    def work_bounds_s(self, fleet: Fleet) -> list[float]:
        """Bound each window by the work that was done in it: no schedule does that work in less time."""
        found = []
        for (start_s, end_s), parts in self._parts():
            tasks = [Task(work_s, call.labels, call.memory_bytes) for call, work_s in parts]
            found.append(min(end_s - start_s, price_bound(tasks, fleet)) if tasks else 0.0)
        return found

    def work_s(self) -> float:
        """Add up the work that was done while a round was open."""
        return sum(work_s for _, parts in self._parts() for _, work_s in parts)

    def _parts(self) -> Iterator[tuple[tuple[float, float], list[tuple[Worked, float]]]]:
        """Give each window with the calls in it, and what part of their work lies there."""
        calls = deque(sorted(self.worked, key=lambda call: call.start_s))
        open_calls: list[Worked] = []
        for start_s, end_s in self.windows:
            while calls and calls[0].start_s < end_s:
                open_calls.append(calls.popleft())
            open_calls = [call for call in open_calls if call.end_s > start_s]
            shared = [(call, min(end_s, call.end_s) - max(start_s, call.start_s)) for call in open_calls]
            parts = [
                (call, call.work_s * part_s / (call.end_s - call.start_s)) for call, part_s in shared if part_s > 0.0
            ]
            yield (start_s, end_s), parts
