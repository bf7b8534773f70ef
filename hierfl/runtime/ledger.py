"""Which faults of a run have happened: a line of JSON each, on disk before it happens.

So a hub that is told the same once more, or a run that is taken up again, is not struck by the same fault for ever.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hierfl.fault import Fault, Moment

__all__ = ["FILE", "Ledger", "News", "read_ledger", "shown"]

FILE = "faults.jsonl"
"""The file in a run's folder."""


class Ledger:
    """Adds to the file; one thread after the other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        _cut(path)
        self._counts = Counter(_key(line["fault"], line["node"], line["round"]) for line in read_ledger(path))

    def claim(self, fault: Fault, moment: Moment) -> bool:
        """Write down that a fault happens now; False if it has happened as often as it may. Errors: OSError."""
        with self._lock:
            key = _key(fault.key, moment.node, moment.round)
            if self._counts[key] >= fault.where.times:
                return False
            self._counts[key] += 1
            line = {
                "fault": fault.key,
                "kind": fault.kind,
                "node": moment.node,
                "step": moment.step,
                "round": moment.round,
                "nth": moment.nth,
                "replica": moment.replica,
                "epoch_s": time.time(),
                "pid": os.getpid(),
            }
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
            return True


class News:
    """Reads what has been added since the last time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def take(self) -> list[dict[str, Any]]:
        """Give the lines that have come. Errors: OSError, ValueError."""
        try:
            if self._path.stat().st_size <= self._at:
                return []
        except FileNotFoundError:
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]
        self._at += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """Read all that has happened, in order; a torn last line is left out. Errors: OSError, ValueError."""
    return News(path).take()


def _cut(path: Path) -> None:
    """Cut a torn last line off."""
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)


def _key(fault: str, node: str, round_number: int) -> tuple[str, str, int]:
    return fault, node, round_number


def shown(line: Mapping[str, Any]) -> str:
    """Say what has happened."""
    nth = f" of update {line['nth']}" if line["step"] in ("before_accept", "after_accept") else ""
    return f"{line['kind']} at {line['step']}{nth}, round {line['round']}"
