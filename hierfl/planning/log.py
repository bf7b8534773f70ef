"""A run's event log as what was measured: each site's training, each round of each hub, and the pauses in between.

Of a run that was resumed the last time counts that a round was done; the clock of each of its processes goes on where
the one before stopped. What happened outside the root's rounds (measurements, checkpoints) is left out: a plan is about
training. A call counts in every round in which it ran, whichever round asked for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from hierfl.config.schema import RunConfig
from hierfl.errors import OutputError
from hierfl.monitor.files import EVENTS, read_events
from hierfl.planning.calls import Calls, usual_gap_s
from hierfl.planning.devices import seated
from hierfl.planning.shape import Pauses
from hierfl.reopen import config_of
from hierfl.rundir import RunDir, saved_config
from scheduler.eventlog import Span, read_span
from scheduler.views import Device
from tiers.federation import Federation, parent

__all__ = ["LiveRound", "Log", "Training", "read_log"]


@dataclass(frozen=True, slots=True)
class Training:
    """A site's training in a round of its hub, counted from 0."""

    site: str
    number: int
    worker: str
    seconds: float
    steps: int


@dataclass(frozen=True, slots=True)
class LiveRound:
    """A round of the root, from 0: from when to when it was open, and in which of the run's processes."""

    number: int
    start_s: float
    end_s: float
    process: int


@dataclass(frozen=True)
class Log:
    """What a run has done. `devices` by worker; `num_samples` by path; `calls`: who trained what, and when; what
    they cost beside that comes before.

    `gaps_s`, `opened_s` and `closed_s` as in `Pauses`, of hubs that do not wait for all too; `trip_s`: by hub from a
    call's end until the hub has heard of it, which is what counts where a round closes without its last member.
    """

    run_dir: Path
    config: RunConfig
    rounds: tuple[LiveRound, ...]
    trained: tuple[Training, ...]
    num_samples: Mapping[str, int]
    devices: Mapping[str, Device]
    calls: tuple[Span, ...]
    gaps_s: Mapping[tuple[str, int], float]
    asked: frozenset[str]
    opened_s: Mapping[tuple[str, int], float]
    closed_s: Mapping[tuple[str, int], float]
    trip_s: Mapping[str, float]

    @property
    def kinds(self) -> Mapping[str, str]:
        """Give the kind of each worker's device."""
        return {worker: device.kind for worker, device in self.devices.items()}

    @property
    def makespan_s(self) -> float:
        """Add up the root's rounds."""
        return sum(found.end_s - found.start_s for found in self.rounds)

    @property
    def call_s(self) -> float:
        """Take the usual gap between two calls on one worker for one hub within a round; 0 where there are none."""
        return usual_gap_s(self.calls, [found.start_s for found in self.rounds])

    @property
    def usual_pauses(self) -> Pauses:
        """Take by hub the usual pauses."""
        closing_s = {hub: median(seconds) for hub, seconds in _by_hub(self.closed_s).items()}
        closing_s |= {hub: seconds for hub, seconds in self.trip_s.items() if self._may_close_early(hub)}
        opening_s = {hub: median(seconds) for hub, seconds in _by_hub(self.opened_s).items()}
        return Pauses(opening_s, closing_s, self.call_s)

    @property
    def pauses(self) -> Pauses:
        """Take the pauses as they were, round by round."""
        closed_s = {key: seconds for key, seconds in self.closed_s.items() if not self._may_close_early(key[0])}
        between_s = {
            found.number: max(0.0, later.start_s - found.end_s)
            for found, later in zip(self.rounds, self.rounds[1:], strict=False)
            if found.process == later.process
        }
        return replace(
            self.usual_pauses, opened_s=self.opened_s, closed_s=closed_s, between_s=between_s, gaps_s=self.gaps_s
        )

    def _may_close_early(self, hub: str) -> bool:
        return self.config.federation.hubs[hub].participation.may_close_early


def _by_hub(seconds: Mapping[tuple[str, int], float]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for (hub, _), spent in seconds.items():
        found.setdefault(hub, []).append(spent)
    return found


@dataclass
class _Reading:
    """What was read so far; `begun_s`: when the process that is read now began, on one clock for all."""

    rounds: dict[int, LiveRound] = field(default_factory=dict)
    trained: dict[tuple[str, int], Training] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    workers: dict[str, None] = field(default_factory=dict)
    calls: Calls = field(default_factory=Calls)
    begun: dict[tuple[str, int], tuple[float, float]] = field(default_factory=dict)
    closed_s: dict[tuple[str, int], float] = field(default_factory=dict)
    asked_s: dict[tuple[str, int], float] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    last_s: dict[str, float] = field(default_factory=dict)
    sent_s: dict[str, list[float]] = field(default_factory=dict)
    trips_s: dict[str, list[float]] = field(default_factory=dict)
    process: int = 0
    begun_s: float = 0.0
    latest_s: float = 0.0

    def take(self, event: Mapping[str, Any]) -> None:
        """Take an event. Errors: KeyError, TypeError or ValueError for one that hierfl has not written."""
        match event.get("event"):
            case "run_started":
                self.samples.update({path: int(count or 0) for path, count in event["num_samples"].items()})
                self.workers.update(dict.fromkeys(map(str, event.get("workers", ()))))
                self.process, self.begun_s = self.process + 1, self.latest_s
                self.asked_s, self.last_s, self.sent_s = {}, {}, {}
            case "phase" if event["phase"] == "train":
                self._called(event)
            case "phase" if event["phase"] == "aggregate":
                span = self._span(event)
                sent = self.sent_s.setdefault(span.actor, [])
                self.trips_s.setdefault(span.actor, []).extend(
                    span.end_s - at_s for at_s in sent if at_s <= span.start_s
                )
                self.sent_s[span.actor] = [at_s for at_s in sent if at_s > span.start_s]
            case "nodes_changed" if event["state"] == "training":
                number, at_s = int(event["round_number"]) - 1, self._at(event["time_s"])
                for node in map(str, event["nodes"]):
                    self.asked.add(node)
                    self.asked_s.setdefault((parent(node) or "", number), at_s)
                    self.calls.asked(node, number, at_s)
            case "site_trained":
                done = Training(
                    *(str(event["node"]), int(event["round_number"]) - 1, str(event["worker"])),
                    *(float(event["duration_s"]), int(event["num_steps"])),
                )
                self.workers[done.worker] = None
                self.trained[done.site, done.number] = done
                self.calls.trained(done.worker, done.site, done.number, done.seconds)
            case "round_closed":
                end_s = self._at(event["time_s"])
                self._closed(str(event["node"]), int(event["round_number"]) - 1, float(event["duration_s"]), end_s)

    def _at(self, time_s: Any) -> float:
        """Put a time on the clock of all processes."""
        found = self.begun_s + float(time_s)
        self.latest_s = max(self.latest_s, found)
        return found

    def _called(self, event: Mapping[str, Any]) -> None:
        """A call has trained sites."""
        span = self._span(event)
        self.workers[span.actor] = None
        self.calls.called(span)
        hub = parent(span.nodes[0]) or ""
        self.sent_s.setdefault(hub, []).append(span.end_s)
        self.last_s[hub] = max(self.last_s.get(hub, 0.0), span.end_s)

    def _span(self, event: Mapping[str, Any]) -> Span:
        """Read a span."""
        span = read_span(event)
        assert span is not None
        return replace(span, start_s=self._at(span.start_s), end_s=self._at(span.end_s))

    def _closed(self, hub: str, number: int, duration_s: float, end_s: float) -> None:
        """A hub's round is over."""
        start_s = end_s - duration_s
        self.begun[hub, number] = start_s, self.asked_s.get((hub, number), start_s)
        if hub in self.last_s:
            self.closed_s[hub, number] = max(0.0, end_s - max(start_s, self.last_s[hub]))
        above = parent(hub)
        if above is None:
            self.rounds[number] = LiveRound(number, start_s, end_s, self.process)
        else:
            self.last_s[above] = max(self.last_s.get(above, 0.0), end_s)

    def opened_s(self, tree: Federation) -> dict[tuple[str, int], float]:
        """Say how long after its opening each round has asked for work.

        Hubs are told one after another: a round that a parent's has opened counts from the first that was told, so that
        it is known who asked first.
        """
        order_s = {key: asked_s for key, (_, asked_s) in self.begun.items()}
        by: dict[tuple[str, int], tuple[str, int]] = {}
        for (hub, number), (start_s, _) in self.begun.items():
            above = parent(hub) or "", number // tree.hubs[hub].rounds
            if above in order_s and number % tree.hubs[hub].rounds == 0:
                by[hub, number] = above
                order_s[above] = min(order_s[above], start_s)
        since_s = {key: order_s[by[key]] if key in by else start_s for key, (start_s, _) in self.begun.items()}
        return {key: max(0.0, order_s[key] - since_s[key]) for key in order_s}


def read_log(run_dir: Path) -> Log:
    """Read the log of a run. Errors: OutputError if the folder is none, or its log is missing or damaged."""
    saved_config(run_dir)
    if not (run_dir / EVENTS).is_file():
        raise OutputError(f"{run_dir} has no {EVENTS}: nothing tells what was measured; name another run")
    config = config_of(RunDir(run_dir))
    reading = _Reading()
    for number, event in enumerate(read_events(run_dir), start=1):
        try:
            reading.take(event)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            said = f"{run_dir / EVENTS}, line {number}: {type(error).__name__}: {error}"
            raise OutputError(f"{said}; the file was not written by this version of hierfl") from error
    devices = seated(config.runtime, reading.workers)
    return Log(
        run_dir,
        config,
        tuple(found for _, found in sorted(reading.rounds.items())),
        tuple(_of_the_tree(config, reading.trained)),
        reading.samples,
        devices,
        tuple(reading.calls.worked()),
        reading.calls.gaps_s(devices),
        frozenset(reading.asked),
        reading.opened_s(config.federation),
        reading.closed_s,
        {hub: median(trips) for hub, trips in reading.trips_s.items() if trips},
    )


def _of_the_tree(config: RunConfig, trained: Mapping[tuple[str, int], Training]) -> Iterator[Training]:
    """Give the trainings of sites that the configuration has, in the order of the log."""
    return (done for done in trained.values() if done.site in config.sites)
