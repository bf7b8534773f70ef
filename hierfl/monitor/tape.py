"""What a timeline is drawn from: who did what when, on which device, and when anything was waited for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Bar", "Tape"]


@dataclass(frozen=True, slots=True)
class Bar:
    """One actor was busy with one phase from `start_s` to `end_s`."""

    actor: str
    phase: str
    start_s: float
    end_s: float


@dataclass
class Tape:
    """The bars of a run, all or the newest `num_bars`; seconds of all are on one clock.

    `devices` by worker; `open`: when a round of the root or a measurement was open, so that a device that did nothing
    waited; `commits`: (round, seconds); `is_cut`: there was more, earlier.
    """

    num_bars: int | None = None
    bars: deque[Bar] = field(default_factory=deque)
    devices: dict[str, str] = field(default_factory=dict)
    open: deque[tuple[float, float]] = field(default_factory=deque)
    commits: deque[tuple[int, float]] = field(default_factory=deque)
    is_cut: bool = False
    _measuring_s: float | None = None

    def start(self, workers: Iterable[str], devices: dict[str, str], first_round: int) -> None:
        """A process begins, maybe to run rounds again."""
        self.devices.update(dict(zip(workers, workers, strict=True)) | devices)
        self.commits = deque(commit for commit in self.commits if commit[0] < first_round)

    def phase(self, actor: str, phase: str, start_s: float, end_s: float) -> None:
        """An actor was busy."""
        self.bars.append(Bar(actor, phase, start_s, end_s))
        if self.num_bars is not None and len(self.bars) > self.num_bars:
            self._forget(self.bars.popleft().start_s)
        if phase == "evaluate":
            self._measuring_s = min(start_s, self._measuring_s or start_s)

    def _forget(self, time_s: float) -> None:
        """Nothing is drawn of what was over before this time."""
        self.is_cut = True
        while self.open and self.open[0][1] < time_s:
            self.open.popleft()
        while len(self.commits) > 1 and self.commits[0][1] < time_s:
            self.commits.popleft()

    def closed(self, hub: str, time_s: float, duration_s: float) -> None:
        """A hub's round is over; that of the root holds all others."""
        if "/" not in hub:
            self.open.append((time_s - duration_s, time_s))

    def committed(self, round_number: int, time_s: float) -> None:
        """A round counts."""
        self.commits.append((round_number, time_s))

    def evaluated(self, time_s: float) -> None:
        """A measurement is over."""
        if self._measuring_s is not None:
            self.open.append((self._measuring_s, time_s))
        self._measuring_s = None
