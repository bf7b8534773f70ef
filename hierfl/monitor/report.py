"""The report of a run, from its folder alone: `report.html` (one file, no network) and its PNGs beside it.

What is missing is said, not guessed: a run that was cut off has no `summary.json`, one that never measured no metrics.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hierfl.errors import OutputError
from hierfl.learning.own_metrics import own_among
from hierfl.leave_out import FILE as LEFT_OUT
from hierfl.monitor.cross_site import Matrix, read_matrix
from hierfl.monitor.files import EVENTS, METRICS, read_events, read_metrics
from hierfl.monitor.pictures import curves, heat, png, reliability, timeline, trajectory, tree
from hierfl.monitor.report_page import page
from hierfl.monitor.tape import Tape
from hierfl.monitor.words import count, finite, metric, spoken

__all__ = ["RunRecord", "read_run", "write_report"]

CONFIG, SUMMARY, REPORT = "config.yaml", "summary.json", "report.html"
_CURVES = ("auc", "accuracy", "loss")
_MOST_CURVES = 4
_MAX_NOTICES = 200


@dataclass
class RunRecord:
    """All that a report tells, read from a run's folder; what was not found stays empty.

    Times of a resumed run are strung together: each process counts from its own start. `sessions` counts them.
    """

    run_dir: Path
    config: str = ""
    summary: dict[str, Any] = field(default_factory=dict)
    started: dict[str, Any] = field(default_factory=dict)
    ended: dict[str, Any] = field(default_factory=dict)
    sessions: int = 0
    tape: Tape = field(default_factory=Tape)
    notices: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_MAX_NOTICES))
    num_notices: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    matrix: Matrix | None = None
    left_out: dict[str, Any] = field(default_factory=dict)
    """As `hierfl.leave_out` has found it."""
    trained: dict[str, Sequence[str]] = field(default_factory=dict)
    """By hub, the members in its last round, as they reported."""
    mixed: dict[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    """By hub without a centre, at whose places whose updates were mixed in its last round."""

    @cached_property
    def paths(self) -> list[str]:
        """Every node by path, as the run named them when it started, or as they were measured."""
        found = self.started.get("num_samples") or self.summary.get("nodes") or {}
        return list(found) or list(dict.fromkeys(str(row["node"]) for row in self.rows))

    @cached_property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """The last metrics of every node by path; the summary's where there is one."""
        last = {str(row["node"]): {key: row[key] for key in row if key not in ("node", "round")} for row in self.rows}
        return last | dict(self.summary.get("nodes", {}))

    @cached_property
    def own(self) -> list[str]:
        """The metrics of the task's own that some node has."""
        return own_among({name for found in self.nodes.values() for name in found})


def write_report(run_dir: Path) -> Path:
    """Write the report of the run in `run_dir`, finished or not, and return the path of `report.html`.

    Errors: OutputError where the folder is no run, cannot be read, or cannot be written.
    """
    record = read_run(run_dir)
    pictures = dict(_pictures(record))
    try:
        for name, content in pictures.items():
            (run_dir / f"{name}.png").write_bytes(content)
        target = run_dir / REPORT
        target.write_text(page(record, pictures), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write the report to {run_dir}: {error.strerror or error}") from error
    return target


def read_run(run_dir: Path) -> RunRecord:
    """Read a run's folder; `missing` tells in words what was not there.

    Errors: OutputError where none of a run's files is there, or one is damaged.
    """
    if not any((run_dir / name).is_file() for name in (CONFIG, SUMMARY, EVENTS, METRICS)):
        what = "is no run directory" if run_dir.is_dir() else "does not exist"
        raise OutputError(f"{run_dir} {what}: expected {CONFIG}, {EVENTS}, {METRICS} or {SUMMARY} in it")
    record = RunRecord(run_dir)
    record.config = _text(run_dir / CONFIG)
    record.summary = _object(run_dir / SUMMARY)
    record.matrix = read_matrix(run_dir)
    record.left_out = _object(run_dir / LEFT_OUT)
    record.rows = list(read_metrics(run_dir))
    _events(record, read_events(run_dir))
    record.missing = list(_missing(record))
    return record


def _events(record: RunRecord, events: Iterable[Mapping[str, Any]]) -> None:
    """Take what the report needs out of the events, one at a time: there may be millions."""
    clock = _Clock()
    for event in events:
        kind = event.get("event")
        offset = clock.offset(event)
        if kind == "run_started":
            record.sessions += 1
            record.started, record.ended = dict(event), {}
            record.tape.start(event.get("workers", ()), event.get("devices", {}), event["first_round"])
        elif kind == "membership_changed":
            record.started["num_samples"] = {**record.started.get("num_samples", {}), **event["num_samples"]}
        elif kind == "phase":
            record.tape.phase(event["actor"], event["phase"], event["start_s"] + offset, event["end_s"] + offset)
        elif kind == "assigned":
            record.tape.devices[event["worker"]] = event["device"]
        elif kind == "evaluated":
            record.tape.evaluated(event["time_s"] + offset)
        elif kind == "round_committed":
            record.tape.commits.append((event["round_number"], event["time_s"] + offset))
        elif kind == "round_closed":
            record.trained[event["node"]] = event["members"]
            record.tape.closed(event["node"], event["time_s"] + offset, event["duration_s"])
            for node, why in event["missing"].items():
                message = f"round {event['round_number']} closed without it: {why}"
                _notice(
                    record, {"level": "warning", "node": node, "message": message, "time_s": event["time_s"] + offset}
                )
        elif kind == "exchanged":
            record.mixed[event["node"]] = event["mixed"]
        elif kind == "notice":
            _notice(record, {**event, "time_s": event["time_s"] + offset})
        elif kind == "run_ended":
            record.ended = dict(event)


class _Clock:
    """Tells where the processes of a resumed run stand on one time axis: each event's offset in seconds.

    A new process shows by a time before the last one's, or, where its first events were late, by its `run_started`.
    """

    def __init__(self) -> None:
        self._offset = self._reached = self._last = 0.0
        self._named = False

    def offset(self, event: Mapping[str, Any]) -> float:
        now = event.get("time_s", self._last)
        starts = event.get("event") == "run_started"
        if now < self._last or (starts and self._named):
            self._offset, self._named = self._reached, False
        self._named |= starts
        self._last = now
        self._reached = max(self._reached, now + self._offset)
        return self._offset


def _notice(record: RunRecord, notice: dict[str, Any]) -> None:
    record.notices.append(notice)
    record.num_notices += 1


def _missing(record: RunRecord) -> Iterator[str]:
    """Say what the folder lacks, and why that may be."""
    if not record.summary:
        yield f"{SUMMARY} is missing: the run still goes on, or was cut off; the figures are those of its event log."
    if not record.started:
        yield f"{EVENTS} tells of no start: the run failed before its first round."
    if not record.rows:
        yield f"{METRICS} holds no measurement: evaluation was off (evaluation.every: 0), or no round was finished."
    if not record.tape.bars:
        yield f"{EVENTS} holds no working times: there is no timeline."
    if not record.config:
        yield f"{CONFIG} is missing: the configuration cannot be shown."


def _pictures(record: RunRecord) -> Iterator[tuple[str, bytes]]:
    """Draw what there is data for."""
    if record.paths:
        yield "tree", png(tree(record.paths, _notes(record)))
    if record.trained:
        order = {path: record.trained[path] for path in record.paths if path in record.trained}
        yield "trajectory", png(trajectory(order or record.trained, record.started.get("in_turn", ()), record.mixed))
    shown = [name for name in (*_CURVES, *record.own) if any(finite(row.get(name)) is not None for row in record.rows)]
    if shown:
        yield "curves", png(curves(record.rows, shown[:_MOST_CURVES]))
    if any(found.get("reliability") for found in record.nodes.values()):
        yield "calibration", png(reliability({path: record.nodes.get(path, {}) for path in record.paths}))
    if record.matrix is not None and record.matrix.models:
        yield "cross_site", png(heat(record.matrix))
    if record.tape.bars:
        yield "timeline", png(timeline(record.tape))


def _notes(record: RunRecord) -> dict[str, str]:
    """Say under each node's name how many samples it trains on and how the model does there."""
    samples, nodes = record.started.get("num_samples", {}), record.nodes
    notes = {}
    for path in record.paths:
        said = [f"{count(samples[path])} samples"] if path in samples else []
        found = nodes.get(path, {})
        shown = next((name for name in ("auc", "accuracy", *record.own) if finite(found.get(name)) is not None), None)
        if shown:
            said.append(f"{'AUC' if shown == 'auc' else spoken(shown)} {metric(found[shown])}")
        notes[path] = " · ".join(said)
    return notes


def _text(path: Path) -> str:
    """Read a text file; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}") from error


def _object(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where there is none."""
    text = _text(path)
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise OutputError(f"{path} is damaged: {error}; delete it to report from the event log") from error
    if not isinstance(value, dict):
        raise OutputError(f"{path} is damaged: expected an object, found {type(value).__name__}")
    return value
