"""What several runs made of the devices that they shared, from the runs' folders alone.

Each run's log has its stretches between barriers with the least time that they take, and the calls on its workers; the
run's start puts the logs on one clock. The arithmetic is `scheduler.joint`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hierfl.errors import OutputError
from hierfl.monitor.files import EVENTS, read_events
from hierfl.monitor.words import percent, told_apart
from scheduler.bounds import Task
from scheduler.joint import Joint, Spans, Stretch, join
from scheduler.views import Device

__all__ = ["JointRecord", "joint_lines", "read_joint"]

_MOST_NAMED = 4
"""Devices named one by one in the closing lines, those with most idle time first."""


@dataclass(frozen=True)
class JointRecord:
    """Runs that shared devices: their folders by name, the calls by run and device, in seconds since the epoch."""

    run_dirs: Mapping[str, Path]
    calls: Mapping[str, Mapping[str, Spans]]
    joint: Joint

    def record(self) -> dict[str, Any]:
        """Give all figures for JSON; fractions are of the seconds in which at least one run wanted the device."""
        joint = self.joint
        return {
            "wanted_s": joint.idle.makespan_s,
            "busy_fraction": 1.0 - joint.idle.idle,
            "idle_fraction": joint.idle.idle,
            "idle_floor": joint.idle.floor,
            "idle_avoidable": joint.idle.avoidable,
            "efficiency": joint.idle.efficiency,
            "goodput": joint.idle.goodput,
            "runs": {
                run: {"run_dir": str(path), "busy_fraction": joint.fraction(run), "share": joint.share(run)}
                for run, path in self.run_dirs.items()
            },
            "devices": {
                device: {
                    "wanted_s": wanted_s,
                    "busy_fraction": joint.idle.busy[device],
                    "idle_fraction": 1.0 - joint.idle.busy[device],
                    "runs": {run: spent / wanted_s for run, spent in joint.busy_s[device].items()},
                }
                for device, wanted_s in joint.wanted_s.items()
            },
        }


@dataclass
class _Reading:
    """What was read of one run so far, in its own seconds plus `epoch_s`."""

    name: str = ""
    cluster: str = ""
    epoch_s: float = 0.0
    stretches: list[Stretch] = field(default_factory=list)
    calls: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """By worker."""
    device_of: dict[str, str] = field(default_factory=dict)

    def take(self, event: Mapping[str, Any]) -> None:
        """Take an event. Errors: KeyError for one of an earlier version."""
        match event.get("event"):
            case "run_started":
                self.name, self.cluster, self.epoch_s = event["name"], event["cluster"], event["epoch_s"]
            case "phase" if event["phase"] == "evaluate":
                self._call(event["actor"], event["start_s"], event["end_s"])
            case "site_trained":
                began_s = event["start_s"] if event["start_s"] is not None else event["time_s"] - event["duration_s"]
                self._call(event["worker"], began_s + event["load_s"], began_s + event["duration_s"])
            case "stretch_ended":
                self._stretch(event)

    def _call(self, worker: str, start_s: float, end_s: float) -> None:
        self.calls.setdefault(worker, []).append((start_s + self.epoch_s, end_s + self.epoch_s))

    def _stretch(self, event: Mapping[str, Any]) -> None:
        devices = event["devices"]
        self.device_of.update({worker: name for name, said in devices.items() for worker in said["workers"]})
        self.stretches.append(
            Stretch(
                *(self.name, event["start_s"] + self.epoch_s, event["time_s"] + self.epoch_s, event["bound_s"]),
                tuple(Task(seconds, frozenset(labels), memory) for labels, memory, seconds in event["work"]),
                tuple(
                    Device(name, "", frozenset(said["labels"]), said["memory_bytes"], said["places"])
                    for name, said in devices.items()
                ),
                {name: said["speed"] for name, said in devices.items()},
                tuple(event["rates"]),
            )
        )

    def of_devices(self) -> dict[str, Spans]:
        """Give the calls by device."""
        found: dict[str, list[tuple[float, float]]] = {}
        for worker, spans in self.calls.items():
            if worker in self.device_of:
                found.setdefault(self.device_of[worker], []).extend(spans)
        return dict(found)


def read_joint(run_dirs: Sequence[Path]) -> JointRecord:
    """Figure out what runs of one cluster made of its devices together, finished or not.

    Errors: OutputError where a folder is no run, a run finished no round, or they did not share a cluster's devices.
    """
    if len({path.resolve() for path in run_dirs}) < len(run_dirs):
        raise OutputError(f"one folder is named twice in {', '.join(map(str, run_dirs))}; name each run once")
    readings = [_read(path) for path in run_dirs]
    clusters = [reading.cluster or "devices of its own" for reading in readings]
    if len(set(clusters)) > 1 or not readings[0].cluster:
        said = ", ".join(f"{path} on {cluster}" for path, cluster in zip(run_dirs, clusters, strict=True))
        raise OutputError(
            f"these runs shared no devices: {said}; joint figures are of runs on one Ray cluster without"
            " runtime.share: false"
        )
    for reading, name in zip(readings, told_apart([reading.name for reading in readings]), strict=True):
        reading.name = name
        reading.stretches = [replace(one, run=name) for one in reading.stretches]
    calls = {reading.name: reading.of_devices() for reading in readings}
    joint = join([one for reading in readings for one in reading.stretches], calls)
    return JointRecord(dict(zip(calls, run_dirs, strict=True)), calls, joint)


def joint_lines(record: JointRecord) -> list[str]:
    """Say the figures of all runs together in lines, as each run says its own."""
    idle = record.joint.idle
    each = ", ".join(f"{run} {percent(record.joint.fraction(run))}" for run in record.run_dirs)
    lines = [
        f"together busy {percent(1.0 - idle.idle)} ({each}), idle {percent(idle.idle)} (floor of any schedule"
        f" {percent(idle.floor)}, avoidable {percent(idle.avoidable)}); efficiency {idle.efficiency:.2f},"
        f" goodput {idle.goodput:.2f}"
    ]
    idlest = sorted(record.joint.wanted_s, key=lambda device: idle.busy[device])
    for device in idlest[:_MOST_NAMED]:
        wanted_s, spent = record.joint.wanted_s[device], record.joint.busy_s[device]
        said = ", ".join(f"{run} {percent(seconds / wanted_s)}" for run, seconds in spent.items())
        lines.append(f"         {device} busy {percent(idle.busy[device])} ({said})")
    if len(idlest) > _MOST_NAMED:
        lines.append(f"         {len(idlest) - _MOST_NAMED} more devices are less idle")
    return lines


def _read(run_dir: Path) -> _Reading:
    """Read a run's log."""
    reading = _Reading()
    try:
        for event in read_events(run_dir):
            reading.take(event)
    except KeyError as error:
        said = f"{run_dir / EVENTS} was written by an earlier version of hierfl: no {error} where it should be"
        raise OutputError(f"{said}; such runs have no joint figures") from error
    if not reading.stretches:
        what = "finished no round" if (run_dir / EVENTS).is_file() else f"has no {EVENTS}"
        raise OutputError(f"{run_dir} {what}: there is nothing to add up with other runs")
    return reading
