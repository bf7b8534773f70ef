"""Whom a member follows: of each run, the highest number of a process that has led it, also after the member's own end.

A hub's process that has lost its run may live on, and even be reached; a member that knows its successor refuses it.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

from hierfl.errors import LinkError
from hierfl.link.files import write_private

__all__ = ["Leaders", "Outranked", "followed"]

RUNS_KEPT = 8


def followed(run: str, line: str) -> str:
    """Name what a member follows: a run, in the line in which its processes count, where there are several."""
    return f"{run} {line}" if line else run


class Outranked(LinkError):
    """The hub that was reached does not lead its run any more."""


class Leaders:
    """The highest numbers, by run, in a file; None keeps them in memory. Errors: LinkError if it cannot be read."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._known: dict[str, int] = {}
        if file is not None and file.exists():
            try:
                said = json.loads(file.read_text(encoding="utf-8"))
                self._known = {str(run): int(number) for run, number in said.items()}
            except (OSError, ValueError, AttributeError, TypeError) as error:
                raise LinkError(f"{file} cannot be read: {error}; without it any hub of the run is followed") from error

    @property
    def last(self) -> tuple[str, int]:
        """Give the run that was followed last, and its highest number; empty and 0 if there is none."""
        with self._lock:
            return next(reversed(self._known.items()), ("", 0))

    def follow(self, run: str, leader: int, where: str) -> None:
        """Follow a process from now on, and none before it. Errors: Outranked for one that was succeeded; LinkError."""
        with self._lock:
            before = self._known.pop(run, 0)
            self._known[run] = max(before, leader)
            if leader < before:
                raise Outranked(f"the hub at {where} led {run} as number {leader}; number {before} leads it since")
            while len(self._known) > RUNS_KEPT:
                del self._known[next(iter(self._known))]
            if self._file is not None and leader > before:
                write_private(self._file, (json.dumps(self._known) + "\n").encode())
