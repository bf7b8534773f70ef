"""The run's own record on disk: `events.jsonl` (what happened) and `metrics.jsonl` (one line per node and round).

Both are appended to as the run goes and written out once a round, so that a killed run leaves whole lines and at most
one torn one; and every few seconds of a longer one, so that who follows them sees what a run is at, or waits for.
Rounds of milliseconds that have no checkpoint, which are run again after a kill, are written out a few together. A
resumed run appends: to `events.jsonl` after all that happened before, to `metrics.jsonl` after the last round that
counts, because rounds after the last checkpoint are run again. Of a run of weeks the earlier lines lie beside, packed
(`parts`).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from threading import Thread
from typing import IO, Any, TypeAlias

from hierfl.errors import OutputError
from hierfl.monitor import parts
from hierfl.monitor.records import (
    Evaluated,
    FaultInjected,
    Leased,
    Notice,
    Record,
    RoundCommitted,
    RunEnded,
    RunStarted,
    Scalars,
)
from hierfl.monitor.words import finite

__all__ = ["EVENTS", "METRICS", "TOGETHER", "JsonLines", "Raw", "as_json", "read_events", "read_metrics", "read_raw"]

EVENTS = "events.jsonl"
METRICS = "metrics.jsonl"
TOGETHER = 256
"""Records at most that wait to be written together."""

SOON_S = 0.05
"""Seconds for which a round that has no checkpoint may wait to be written out."""

_FLUSH = {RunStarted, RoundCommitted, Leased, Notice, FaultInjected, RunEnded}
_Shape: TypeAlias = tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]
_SHAPES: dict[type[Any], _Shape] = {}
_FIRST = ("num_test", "accuracy", "auc", "loss")


class JsonLines:
    """Writes every record to `events.jsonl` and every node's metrics of a round to `metrics.jsonl`.

    `Evaluated` stands in `events.jsonl` with the root's metrics and the number of nodes only: its whole table is what
    `metrics.jsonl` holds, and a tree of 10,000 sites need not be written twice a round.

    Records wait for each other, up to `TOGETHER` of them: a few at a time would each find the code for it gone from
    the processor's cache, which costs more than the lines.

    `leads`: whether this process leads the run; another one that does writes these files alone.

    Errors: OutputError that names the file, where it cannot be opened or written (a full disk).
    """

    def __init__(self, run_dir: Path, leads: Callable[[], bool] = lambda: True) -> None:
        self._leads = leads
        self._events = _Lines(run_dir / EVENTS)
        self._metrics = _Lines(run_dir / METRICS)
        self._waiting: list[Record] = []
        self._is_let_go = False
        self._flushed_s = -math.inf

    def on(self, record: Record) -> None:
        """Append one record."""
        self._waiting.append(record)
        if type(record) in _FLUSH and not self._can_wait(record):
            self.flush()
        elif len(self._waiting) >= TOGETHER:
            self._write()

    def _can_wait(self, record: Record) -> bool:
        """Say whether a record is of a round that is run again after a kill, and others were written out just now."""
        is_repeated = isinstance(record, RoundCommitted) and record.checkpoint is None
        return is_repeated and time.monotonic() < self._flushed_s + SOON_S

    def flush(self) -> None:
        """Hand all that came to the operating system."""
        self._flushed_s = time.monotonic()
        self._write()
        self._events.flush()
        self._metrics.flush()

    def _write(self) -> None:
        """Append what waits. A stop while lines are made (Ctrl-C) leaves all of it to be written by the next call."""
        if not self._is_let_go and not self._leads():
            self.let_go()
        if self._is_let_go or not self._waiting:
            self._waiting = []
            return
        waiting = self._waiting
        events = "".join([as_json(_event(record)) + "\n" for record in waiting])
        measured = [record for record in waiting if isinstance(record, Evaluated)]
        rows = [_row(record.round_number, node, own) for record in measured for node, own in record.metrics.items()]
        metrics = "".join([as_json(row) + "\n" for row in rows])
        self._waiting = []
        self._metrics.write(metrics)
        self._events.write(events)
        if isinstance(waiting[-1], RunStarted):  # nothing waits behind it, unless a stop came
            self._metrics.rewind(waiting[-1].first_round)

    def close(self) -> None:
        """Write out what is left and close both files."""
        with contextlib.closing(self._metrics), contextlib.closing(self._events):
            self._write()

    def let_go(self) -> None:
        """Leave both files as they are: another process writes them now."""
        self._is_let_go = True
        self._events.let_go()
        self._metrics.let_go()


class _Lines:
    """One file of JSON lines, open for appending, with its earlier `parts`; a torn last line of an earlier process is
    cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._packing: Thread | None = None
        self._is_flushed = True
        with self._named():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                _truncate(path, _whole(path))
            self._file = self._opened()

    def write(self, lines: str) -> None:
        """Append lines; they reach the disk with the next `flush`, or when the buffer is full."""
        if lines:
            self._is_flushed = False
            with self._named():
                self._file.write(lines)

    def flush(self) -> None:
        """Hand all lines to the operating system; a file that has grown long begins anew."""
        if self._is_flushed:
            return
        with self._named():
            self._file.flush()
            self._is_flushed = True
            if os.fstat(self._file.fileno()).st_size < parts.PART_BYTES:
                return
            parts.put_aside(self._path)
            self._reopen()
        if self._packing is None or not self._packing.is_alive():
            self._packing = parts.pack(self._path)

    def rewind(self, first_round: int) -> None:
        """Drop the rounds from `first_round` on: they will be run again. Lines stand in the order of their rounds."""
        with self._named():
            self._file.flush()
            while not (keep := _before(self._path, first_round)) and parts.take_back(self._path):
                pass
            _truncate(self._path, keep)
            self._reopen()

    def let_go(self) -> None:
        """Leave the file as it is: what is in the buffer, and all that is written yet, goes nowhere."""
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._file.fileno())
        self._packing = None

    def close(self) -> None:
        """Flush and close; closing twice does no harm."""
        with self._named():
            self._file.close()
        if self._packing is not None:
            self._packing.join()
            parts.pack(self._path).join()  # what was put aside meanwhile

    def _reopen(self) -> None:
        """Go on in the file of this name; until then, and where it cannot be opened, in the one before."""
        before, self._file = self._file, self._opened()
        before.close()

    def _opened(self) -> IO[str]:
        return self._path.open("a", encoding="utf-8", buffering=1 << 16)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Errors: OutputError that names the file."""
        try:
            yield
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {self._path}: {error.strerror or error}; free space or choose another folder (output.dir)"
        )


def as_json(value: Any) -> str:
    """Write a value as one line of strict JSON: no NaN but null, NumPy as numbers, paths as strings."""
    try:
        return _ENCODER.encode(value)
    except ValueError:  # a NaN somewhere: rare, so only now every value is looked at
        return _ENCODER.encode(_clean(value))


@dataclass(frozen=True, slots=True)
class Raw:
    """A line of a file as it stands there, counted from 1: who reads millions of them parses those that matter."""

    path: Path
    number: int
    text: bytes

    def value(self) -> dict[str, Any]:
        """Parse it. Errors: OutputError that names the file and the line where it is not JSON."""
        try:
            found: dict[str, Any] = json.loads(self.text)
        except ValueError as error:  # bad JSON, or bytes that are no UTF-8
            at = f" at line {self.number}" if self.number else ""
            raise OutputError(f"{self.path} is damaged{at}: it is not JSON; delete the line") from error
        return found


def read_events(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a run in order, one at a time; nothing where there is no file; a torn last line is left out.

    Errors: OutputError that names the file and the line where one in the middle is not JSON.
    """
    return _read(run_dir / EVENTS)


def read_metrics(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of `metrics.jsonl` in order: {"round", "node", "num_test", "accuracy", "auc", "loss", ...}.

    Errors: as `read_events`.
    """
    return _read(run_dir / METRICS)


def _event(record: Record) -> dict[str, Any]:
    """Make an event of a record: the class's name first, then its fields."""
    if isinstance(record, Evaluated):
        root = min(record.metrics, key=len, default="")
        return {
            "event": "evaluated",
            "time_s": record.time_s,
            "round_number": record.round_number,
            "num_nodes": len(record.metrics),
            "metrics": {root: record.metrics[root]} if root else {},
        }
    keys, values = _shape(type(record))
    return dict(zip(keys, values(record), strict=True))


def _shape(kind: type[Record]) -> _Shape:
    """Give the keys of a class's events, and what reads a record's values; made once for millions."""
    if kind not in _SHAPES:
        name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in kind.__name__).lstrip("_")
        names = tuple(field.name for field in fields(kind))
        read = attrgetter(*names)  # every record has several fields
        _SHAPES[kind] = ("event", *names), lambda record: (name, *read(record))
    return _SHAPES[kind]


def _row(round_number: int, node: str, metrics: Scalars) -> dict[str, Any]:
    """Make one line of metrics: the four that every run has come first, the rest in their order."""
    first = {name: metrics.get(name) for name in _FIRST}
    return {"round": round_number, "node": node} | first | dict(metrics)


def _plain(value: Any) -> Any:
    """Turn what `json` does not know into what it does."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence | Set):
        return list(value)
    if hasattr(value, "tolist"):  # NumPy and torch, without importing either
        return value.tolist()
    return str(value)


_ENCODER = json.JSONEncoder(
    allow_nan=False, check_circular=False, ensure_ascii=False, separators=(",", ":"), default=_plain
)


def _clean(value: Any) -> Any:
    """Copy a value with None for every float that is not finite."""
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, Mapping):
        return {str(key): _clean(inner) for key, inner in value.items()}
    if isinstance(value, Sequence | Set):
        return [_clean(inner) for inner in value]
    return _clean(_plain(value))


def read_raw(path: Path) -> Iterator[Raw]:
    """Yield the lines of a file and of its earlier parts, in order; a last one that is torn is left out.

    Errors: OutputError where they cannot be read.
    """
    try:
        for part, lines in parts.opened(path):
            for number, line in enumerate(lines, start=1):
                found = Raw(part, number, line)
                if not line.endswith(b"\n"):  # the last one: it may be whole
                    try:
                        found.value()
                    except OutputError:
                        return
                yield found
    except (OSError, *parts.DAMAGED) as error:
        raise OutputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """Parse a file line by line; only a last line may be torn."""
    return (line.value() for line in read_raw(path))


def _before(path: Path, first_round: int) -> int:
    """Measure how many bytes of a file's lines come before a round, by halving: there may be millions of them.

    Errors: OSError; OutputError where one that is looked at is not JSON.
    """
    with path.open("rb") as lines:
        low, high = 0, lines.seek(0, os.SEEK_END)
        while low < high:
            middle = (low + high) // 2
            lines.seek(max(0, middle - 1))
            if middle:
                lines.readline()  # up to where a line begins, at `middle` or after it
            line = lines.readline() if lines.tell() < high else b""
            if not line or Raw(path, 0, line).value()["round"] >= first_round:
                high = middle
            else:
                low = lines.tell()
    return low


def _whole(path: Path) -> int:
    """Measure a file up to the end of its last whole line, in bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        end = size
        while end > 0:
            start = max(0, end - 4096)
            file.seek(start)
            at = file.read(end - start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            end = start
    return 0


def _truncate(path: Path, size: int) -> None:
    """Cut a file to `size` bytes, if it is longer."""
    if path.stat().st_size > size:
        with path.open("rb+") as file:
            file.truncate(size)
