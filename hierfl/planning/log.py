"""A run's event log as what was measured: each site's training, each round of each hub, and the pauses in between.

Of a run that was resumed the last time counts that a round was done. What happened outside the root's rounds
(measurements, checkpoints) is left out: a plan is about training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from hierfl.config import load
from hierfl.config.schema import RunConfig
from hierfl.errors import OutputError
from hierfl.monitor.files import EVENTS, read_events
from hierfl.planning.devices import seated
from scheduler.eventlog import union_s
from scheduler.views import Device
from tiers.federation import parent

__all__ = ["LiveRound", "Log", "Training", "read_log"]


@dataclass(frozen=True, slots=True)
class Training:
    """A site's training in a round of its hub, counted from 0."""

    site: str
    number: int
    worker: str
    seconds: float
    steps: int


@dataclass(frozen=True)
class LiveRound:
    """A round of the root, from 0: its span in seconds, and (worker, start, end, first site) of the calls in it."""

    number: int
    start_s: float
    end_s: float
    calls: tuple[tuple[str, float, float, str], ...]


@dataclass(frozen=True)
class Log:
    """What a run has done. `devices` by worker; `num_samples` by path.

    `quiet_s`: for each round of a hub its seconds without training: at the root all, elsewhere those at its end.
    """

    run_dir: Path
    config: RunConfig
    rounds: tuple[LiveRound, ...]
    trained: tuple[Training, ...]
    num_samples: Mapping[str, int]
    devices: Mapping[str, Device]
    quiet_s: Mapping[str, Sequence[float]]

    @property
    def kinds(self) -> Mapping[str, str]:
        """Give the kind of each worker's device."""
        return {worker: device.kind for worker, device in self.devices.items()}

    @property
    def makespan_s(self) -> float:
        """Add up the root's rounds."""
        return sum(self.rounds_s)

    @property
    def rounds_s(self) -> list[float]:
        """List what each round of the root took."""
        return [found.end_s - found.start_s for found in self.rounds]

    @property
    def call_s(self) -> float:
        """Take the usual gap between two calls on one worker for one hub; 0 where there are none."""
        gaps = []
        for found in self.rounds:
            last: dict[str, tuple[float, str | None]] = {}
            for worker, start_s, end_s, site in found.calls:
                before = last.get(worker)
                if before is not None and before[1] == parent(site):
                    gaps.append(start_s - before[0])
                last[worker] = end_s, parent(site)
        return max(0.0, median(gaps)) if gaps else 0.0

    @property
    def transfer_s(self) -> Mapping[str, float]:
        """Take by hub the usual seconds of its rounds that were quiet, less a call's gap."""
        return {hub: max(0.0, median(quiet) - self.call_s) for hub, quiet in self.quiet_s.items()}

    def busy_s(self) -> dict[str, float]:
        """Add up by device the seconds within the root's rounds in which it trained."""
        spans: dict[str, list[tuple[float, float]]] = {device.name: [] for device in self.devices.values()}
        busy = dict.fromkeys(spans, 0.0)
        for found in self.rounds:
            own: dict[str, list[tuple[float, float]]] = {name: [] for name in spans}
            for worker, start_s, end_s, _ in found.calls:
                own[self.devices[worker].name].append((start_s, end_s))
            for name, covered in own.items():
                busy[name] += union_s(covered, [(found.start_s, found.end_s)])
        return busy


@dataclass
class _Reading:
    """What was read so far."""

    rounds: dict[int, LiveRound] = field(default_factory=dict)
    trained: dict[tuple[str, int], Training] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    workers: dict[str, None] = field(default_factory=dict)
    quiet_s: dict[str, list[float]] = field(default_factory=dict)
    calls: list[tuple[str, float, float, str]] = field(default_factory=list)

    def take(self, event: Mapping[str, Any], root: str) -> None:
        """Take an event. Errors: KeyError, TypeError or ValueError for one that hierfl has not written."""
        match event.get("event"):
            case "run_started":
                self.samples.update({path: int(count) for path, count in event["num_samples"].items()})
                self.workers.update(dict.fromkeys(map(str, event.get("workers", ()))))
                self.calls = []
            case "phase" if event["phase"] == "train":
                self.workers[str(event["actor"])] = None
                span = float(event["start_s"]), float(event["end_s"])
                self.calls.append((str(event["actor"]), *span, str(event["nodes"][0])))
            case "site_trained":
                done = Training(
                    *(str(event["node"]), int(event["round_number"]) - 1, str(event["worker"])),
                    *(float(event["duration_s"]), int(event["num_steps"])),
                )
                self.workers[done.worker] = None
                self.trained[done.site, done.number] = done
            case "round_closed":
                end_s = float(event["time_s"])
                start_s = end_s - float(event["duration_s"])
                self._closed(str(event["node"]), start_s, end_s, root)
                if event["node"] == root:
                    number = int(event["round_number"]) - 1
                    calls = tuple(sorted(self.calls, key=lambda call: call[1]))
                    self.rounds[number] = LiveRound(number, start_s, end_s, calls)
                    self.calls = []

    def _closed(self, hub: str, start_s: float, end_s: float, root: str) -> None:
        """Note for how long a round was quiet; elsewhere than at the root only its end, others may have the devices."""
        below = [(start, end) for _, start, end, site in self.calls if site.startswith(f"{hub}/")]
        if below:
            last_s = max(end for _, end in below)
            quiet_s = end_s - start_s - union_s(below, [(start_s, end_s)]) if hub == root else end_s - last_s
            self.quiet_s.setdefault(hub, []).append(quiet_s)


def read_log(run_dir: Path) -> Log:
    """Read the log of a run. Errors: OutputError if the folder is none, or its log is missing or damaged."""
    saved = run_dir / "config.yaml"
    if not saved.is_file():
        what = "has no config.yaml" if run_dir.exists() else "does not exist"
        raise OutputError(f"{run_dir} {what}: not the folder of a run; `hierfl run` prints it when it ends")
    if not (run_dir / EVENTS).is_file():
        raise OutputError(f"{run_dir} has no {EVENTS}: nothing tells what was measured; name another run")
    config = load(saved)
    reading = _Reading()
    for number, event in enumerate(read_events(run_dir), start=1):
        try:
            reading.take(event, config.federation.root.name)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            said = f"{run_dir / EVENTS}, line {number}: {type(error).__name__}: {error}"
            raise OutputError(f"{said}; the file was not written by this version of hierfl") from error
    return Log(
        run_dir,
        config,
        tuple(found for _, found in sorted(reading.rounds.items())),
        tuple(_of_the_tree(config, reading.trained)),
        reading.samples,
        seated(config.runtime, reading.workers),
        reading.quiet_s,
    )


def _of_the_tree(config: RunConfig, trained: Mapping[tuple[str, int], Training]) -> Iterator[Training]:
    """Give the trainings of sites that the configuration has, in the order of the log."""
    return (done for done in trained.values() if done.site in config.sites)
