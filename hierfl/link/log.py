"""What a serving process says, one JSON object a line, for whoever collects logs."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TextIO

from hierfl.link.limits import Bucket
from hierfl.monitor.records import Record, RoundClosed

__all__ = ["Lines", "Log", "Rounds", "Sparing"]

LINES_PER_S, LINES_AT_ONCE = 0.2, 20.0
"""Of one node."""


class Log:
    """Writes one JSON object per line: time, level, node, message.

    A line that cannot be written is dropped: a full disk under a log, or a collector that has gone, ends no federation.
    """

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, level: str, node: str, message: str) -> None:
        """Write one."""
        said = {"time": round(time.time(), 3), "level": level, "node": node, "message": message}
        with self._lock, contextlib.suppress(OSError):
            print(json.dumps(said), file=self._stream, flush=True)


class Lines(io.TextIOBase):
    """A text stream whose lines are a node's in a log."""

    def __init__(self, log: Log, node: str) -> None:
        self._log = log
        self._node = node
        self._begun = ""

    def write(self, text: str) -> int:
        """Log the lines that end in it; empty ones are left out."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in filter(None, lines):
            self._log("info", self._node, line)
        return len(text)


class Sparing:
    """Passes on what is said of each node: 20 lines at once, then one every 5 s, which tells how many were left out.

    `now`: seconds, never back.
    """

    def __init__(self, tell: Callable[[str, str, str], None], now: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._now = now
        self._lock = threading.Lock()
        self._buckets: dict[str, Bucket] = {}
        self._left_out: Counter[str] = Counter()

    def __call__(self, level: str, node: str, message: str) -> None:
        """Say it, or leave it out."""
        with self._lock:
            bucket = self._buckets.setdefault(node, Bucket(LINES_PER_S, LINES_AT_ONCE, self._now))
            if not bucket.take():
                self._left_out[node] += 1
                return
            before = self._left_out.pop(node, 0)
        self._tell(level, node, f"{message} ({before:,} lines before this one were left out)" if before else message)


class Rounds:
    """A monitor that logs whose updates are in each round of a member's hubs, for which no run's folder tells it."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def on(self, record: Record) -> None:
        """Take one record."""
        if isinstance(record, RoundClosed):
            self._log("info", record.node, f"round {record.round_number}: {whose(record)}")

    def close(self) -> None:
        """Hold nothing."""


def whose(closed: RoundClosed) -> str:
    """Say whose updates are in a round, and of whom there is none, and why."""
    here = len(closed.members)
    without = [f"{name} ({reason})" for name, reason in closed.missing.items()]
    without += [f"{number:,} more ({reason})" for reason, number in closed.others.items()]
    total = here + len(closed.missing) + sum(closed.others.values())
    found = f"has updates of {here:,} of {total:,} members"
    found += f", without {', '.join(without)}" if without else ""
    return found + "".join(f"; {name}: {counts}" for name, counts in closed.carried.items())
