"""The processes of the Ray that this one has started, and their end.

Ray ends those that it knows. Agents and workers that have lost their raylet notice that when they look next, which may
be a minute later; and of a Ray whose start was cut short nobody knows. All of them carry the name of their session,
session_<date>_<number of the process that started it>.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import psutil  # Ray brings it along
import ray

from hierfl.stops import unbroken

__all__ = ["end", "has_raylet", "logs"]

PROGRAMS = str(Path(ray.__file__).parent)
"""Where Ray's programs lie."""

LIMIT_S = 10.0
"""Seconds that the end may take; a process that survives this long cannot be killed."""


def end() -> None:
    """End the Ray that this process has started, if there is one, and all of its processes; a stop waits for it."""
    with unbroken():
        sessions = _sessions()
        if not sessions:
            return
        known = set(_processes(sessions))
        with contextlib.suppress(Exception):  # of a half-built one: what it does not end is ended below
            ray.shutdown()
        deadline = time.monotonic() + LIMIT_S
        while known and time.monotonic() < deadline:
            for process in known:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(list(known), timeout=1.0)
            known = set(_processes(sessions))


def has_raylet() -> bool:
    """Say whether a raylet that this process has started lives."""
    return any(words[0].endswith("/raylet") for child in psutil.Process().children() if (words := _words(child)))


def logs() -> list[Path]:
    """List where the Ray that this process has started writes its logs, as long as one of its processes lives."""
    return sorted({Path(found) / "logs" for found in _named(r"/\S*/")})


def _sessions() -> set[str]:
    """Name the sessions of this process's own children."""
    return _named("")


def _named(before: str) -> set[str]:
    """Find the names of sessions in what this process's own children were started with, and what stands before them."""
    pattern = re.compile(rf"{before}session_[0-9_-]+_{os.getpid()}(?![0-9])")
    return {name for child in psutil.Process().children() for name in pattern.findall(" ".join(_words(child)))}


def _processes(sessions: set[str]) -> Iterator[psutil.Process]:
    """Find the living processes of sessions, and all that these have started."""
    for process in psutil.process_iter():
        if process.pid != os.getpid() and _is_of(process, sessions):
            yield process
            with contextlib.suppress(psutil.Error):
                yield from process.children(recursive=True)


def _is_of(process: psutil.Process, sessions: set[str]) -> bool:
    """Say whether a process is a session's.

    One of Ray's programs has the session among the words that it was started with; one that has given itself a title
    has lost them, and holds files of the session open, as drivers of others do.
    """
    with contextlib.suppress(psutil.Error, OSError):
        words = _words(process)
        if words and words[0].startswith("ray::"):
            texts = [file.path for file in process.open_files()]
        else:
            texts = words if any(word.startswith(PROGRAMS) for word in words) else []
        return any(session in text for text in texts for session in sessions)
    return False


def _words(process: psutil.Process) -> list[str]:
    """Give the words that a process was started with; none where it has ended, or is another's."""
    with contextlib.suppress(psutil.Error, OSError):
        return list(process.cmdline())
    return []
