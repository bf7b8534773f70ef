"""Which code a run is of: what its folder says of that, and what institutions hold against each other's."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

from hierfl import __version__

__all__ = ["task_code", "task_digest"]


def task_digest(task: Any) -> str:
    """Give the SHA-256 of the source files that the task's class and its bases are in, and of hierfl's version."""
    total = hashlib.sha256(__version__.encode())
    files = {inspect.getsourcefile(cls) for cls in type(task).__mro__ if cls is not object}
    for file in sorted(filter(None, files), key=lambda name: Path(name).name):
        total.update(Path(file).read_bytes())
    return total.hexdigest()


def task_code(task: Any) -> str:
    """Give `task_digest`; empty where there are no source files, as of a class made in a session."""
    try:
        return task_digest(task)
    except (OSError, TypeError):
        return ""
