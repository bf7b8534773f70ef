"""What a run's folder tells of it, for its report: read once, line by line, since a run of weeks has millions of them.

Lines are parsed where the report needs them, and of working times and measurements so many are kept as pictures show.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from hierfl.errors import OutputError
from hierfl.learning.own_metrics import own_among
from hierfl.leave_out import FILE as LEFT_OUT
from hierfl.monitor.cross_site import Matrix, read_matrix
from hierfl.monitor.files import EVENTS, METRICS, Raw, read_raw
from hierfl.monitor.statistics import Told, read_statistics
from hierfl.monitor.tape import Tape
from hierfl.monitor.thin import thinned

__all__ = ["RunRecord", "read_run"]

CONFIG, SUMMARY = "config.yaml", "summary.json"
_MAX_NOTICES = 200
MOST_BARS = 20_000
"""Working times, the newest ones, that the timeline is drawn from: of more rounds it shows but colours."""

_SKIPPED = frozenset(
    {b"nodes_changed", b"site_trained", b"stretch_ended", b"leased", b"gpu_sampled", b"consensus", b"fault_injected"}
)
"""Events of which nothing but their time is told: there may be millions."""

_EVENT = re.compile(rb'\{"event":"(\w+)","time_s":([-+.\de]+),')
_WORKER = re.compile(rb'"worker":"(?:[^"\\]|\\.)*","device":"(?:[^"\\]|\\.)*"')


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
    tape: Tape = field(default_factory=lambda: Tape(MOST_BARS))
    notices: deque[dict[str, Any]] = field(default_factory=deque)
    """The last ones; for a member that a hub's rounds closed without, for one reason, there is one."""
    num_notices: int = 0
    without: dict[tuple[str, str | None], dict[str, Any]] = field(default_factory=dict)
    """These, by the member's path and the reason."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """As `thinned` has left them, one round of `every`."""
    every: int = 1
    last: dict[str, dict[str, Any]] = field(default_factory=dict)
    """All that was measured last, by node."""
    missing: list[str] = field(default_factory=list)
    matrix: Matrix | None = None
    statistics: Told | None = None
    left_out: dict[str, Any] = field(default_factory=dict)
    """As `hierfl.leave_out` has found it."""
    trained: dict[str, Sequence[str]] = field(default_factory=dict)
    """By hub, the members whose updates count in its last round, as they reported; late ones last."""
    mixed: dict[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    """By hub without a centre, at whose places whose updates were mixed in its last round."""

    @cached_property
    def paths(self) -> list[str]:
        """Every node by path, as the run named them when it started, or as they were measured."""
        found = self.started.get("num_samples") or self.summary.get("nodes") or {}
        return list(found) or list(self.last)

    @cached_property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """The last metrics of every node by path; the summary's where there is one."""
        return self.last | dict(self.summary.get("nodes", {}))

    @property
    def only_tells(self) -> bool:
        """Whether sites have told of their records, and nothing was to be trained."""
        return self.statistics is not None and self.summary.get("rounds_planned") == 0

    @cached_property
    def own(self) -> list[str]:
        """The metrics of the task's own that some node has."""
        return own_among({name for found in self.nodes.values() for name in found})


def read_run(run_dir: Path) -> RunRecord:
    """Read a run's folder; `missing` tells in words what was not there.

    Errors: OutputError where none of a run's files is there, or one is damaged.
    """
    if not any((run_dir / name).is_file() for name in (CONFIG, SUMMARY, EVENTS, METRICS)):
        what = "is no run directory" if run_dir.is_dir() else "does not exist"
        raise OutputError(f"{run_dir} {what}: expected {CONFIG}, {EVENTS}, {METRICS} or {SUMMARY} in it").misnamed()
    record = RunRecord(run_dir)
    record.config = _text(run_dir / CONFIG)
    record.summary = _object(run_dir / SUMMARY)
    record.matrix = read_matrix(run_dir)
    record.statistics = read_statistics(run_dir)
    record.left_out = _object(run_dir / LEFT_OUT)
    measured = thinned(read_raw(run_dir / METRICS))
    record.rows, record.last, record.every = measured.rows, measured.last, measured.every
    _events(record, read_raw(run_dir / EVENTS))
    is_outdated = bool(record.summary and record.started and not record.ended)
    if is_outdated:  # of a process before the last one, which has come further
        record.summary = {}
    record.missing = list(_missing(record, is_outdated))
    return record


def _events(record: RunRecord, lines: Iterable[Raw]) -> None:
    """Take what the report needs out of the events, one at a time."""
    clock, seen = _Clock(), set[bytes]()
    newest: deque[Callable[[], None]] = deque(maxlen=MOST_BARS)
    for line in lines:
        match = _EVENT.match(line.text)
        if match is None:
            _event(record, line.value(), clock, newest)
        elif match[1] in _SKIPPED:
            clock.offset(float(match[2]))
        elif match[1] == b"phase":
            _later(record, newest, partial(_phase, record.tape, line, clock.offset(float(match[2]))))
        elif match[1] == b"assigned" and (said := _WORKER.match(line.text, match.end())) and said[0] in seen:
            clock.offset(float(match[2]))
        else:
            seen |= {said[0]} if match[1] == b"assigned" and said else set()
            _event(record, line.value(), clock, newest)
    for draw in newest:
        draw()


def _later(record: RunRecord, newest: deque[Callable[[], None]], draw: Callable[[], None]) -> None:
    """Leave for the end what the timeline is drawn from: of a long run only the newest of it."""
    record.tape.is_cut = record.tape.is_cut or len(newest) == newest.maxlen
    newest.append(draw)


def _phase(tape: Tape, line: Raw, offset: float) -> None:
    event = line.value()
    tape.phase(event["actor"], event["phase"], event["start_s"] + offset, event["end_s"] + offset)


def _event(record: RunRecord, event: Mapping[str, Any], clock: _Clock, newest: deque[Callable[[], None]]) -> None:
    """Take what the report needs out of one event."""
    kind, tape = event.get("event"), record.tape
    if kind in ("log_opened", "run_started"):
        clock.begin(kind)
    offset = clock.offset(event.get("time_s", 0.0))
    if kind == "run_started":
        record.sessions += 1
        record.started, record.ended = dict(event), {}
        tape.start(event.get("workers", ()), event.get("devices", {}), event["first_round"])
        _later(record, newest, partial(tape.start, (), {}, event["first_round"]))
    elif kind == "membership_changed":
        record.started["num_samples"] = {**record.started.get("num_samples", {}), **event["num_samples"]}
    elif kind == "phase":
        busy = event["actor"], event["phase"], event["start_s"] + offset, event["end_s"] + offset
        _later(record, newest, partial(tape.phase, *busy))
    elif kind == "assigned":
        tape.devices[event["worker"]] = event["device"]
    elif kind == "evaluated":
        _later(record, newest, partial(tape.evaluated, event["time_s"] + offset))
    elif kind == "round_committed":
        _later(record, newest, partial(tape.committed, event["round_number"], event["time_s"] + offset))
    elif kind == "round_closed":
        record.trained[event["node"]] = list(dict.fromkeys([*event["members"], *event.get("carried", {})]))
        _later(record, newest, partial(tape.closed, event["node"], event["time_s"] + offset, event["duration_s"]))
        for member, why in event["missing"].items():
            _without(record, event, member, why, event["time_s"] + offset)
    elif kind == "exchanged":
        record.mixed[event["node"]] = event["mixed"]
    elif kind == "notice":
        _notice(record, {**event, "time_s": event["time_s"] + offset})
    elif kind == "run_ended":
        record.ended = dict(event)
        if error := event.get("summary", {}).get("error"):
            _notice(record, {"level": "error", "node": "", "message": error, "time_s": event["time_s"] + offset})


class _Clock:
    """Tells where the processes of a resumed run stand on one time axis: each event's offset in seconds.

    A process begins where it has opened the log, or, in one of an earlier version, with its `run_started`. That a time
    lies before the last one's says nothing: the machine's clock may have been set back.
    """

    def __init__(self) -> None:
        self._offset = self._reached = 0.0
        self._has_opened = False

    def begin(self, kind: str) -> None:
        """A process has said that it begins."""
        if kind == "log_opened" or not self._has_opened:
            self._offset = self._reached
        self._has_opened = kind == "log_opened"

    def offset(self, time_s: float) -> float:
        """Take an event's time."""
        self._reached = max(self._reached, time_s + self._offset)
        return self._offset


def _without(record: RunRecord, event: Mapping[str, Any], member: str, why: str, time_s: float) -> None:
    """A hub has closed a round without a member; a resumed run may do so once more."""
    path, number = f"{event['node']}/{member}", event["round_number"]
    found = record.without.get((path, why))
    if found is None:
        level = "info" if member in event.get("late", ()) else "warning"
        found = {"level": level, "node": path, "why": why, "first": number, "last": 0, "times": 0, "time_s": time_s}
        record.without[path, why] = found
        _notice(record, found)
    if number > found["last"]:
        found |= {"last": number, "times": found["times"] + 1}
    many = f"{found['times']:,} rounds closed without it, from {found['first']} to {found['last']}"
    found["message"] = f"{many if found['times'] > 1 else f'round {number} closed without it'}: {why}"


def _notice(record: RunRecord, notice: dict[str, Any]) -> None:
    record.notices.append(notice)
    record.num_notices += 1
    if len(record.notices) > _MAX_NOTICES:
        gone = record.notices.popleft()
        record.without.pop((gone["node"], gone.get("why")), None)


def _missing(record: RunRecord, is_outdated: bool) -> Iterator[str]:
    """Say what the folder lacks, and why that may be."""
    if not record.summary:
        what = "is of an earlier process" if is_outdated else "is missing"
        yield f"{SUMMARY} {what}: the run still goes on, or was cut off; the figures are those of its event log."
    if not record.started:
        yield f"{EVENTS} tells of no start: the run failed before its first round."
    if not record.rows and not record.only_tells:
        yield f"{METRICS} holds no measurement: evaluation was off (evaluation.every: 0), or no round was finished."
    if not record.tape.bars:
        yield f"{EVENTS} holds no working times: there is no timeline."
    if not record.config:
        yield f"{CONFIG} is missing: the configuration cannot be shown."


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
