"""Which code a run is of: what its folder says of that, and what institutions hold against each other's."""

from __future__ import annotations

import hashlib
import inspect
import sysconfig
from pathlib import Path
from typing import Any

from hierfl import __version__

__all__ = ["task_code", "task_digest"]

PYTHON = Path(sysconfig.get_path("stdlib"))
"""Where Python's own files lie, and below them maybe what is installed."""


def task_digest(task: Any) -> str:
    """Give the SHA-256 of the source files that the task's class and its bases are in, and of hierfl's version.

    Python's own files do not count: each of its versions has others.
    """
    total = hashlib.sha256(__version__.encode())
    classes = [cls for cls in type(task).__mro__ if cls.__module__ != "builtins"]
    files = dict.fromkeys(map(inspect.getsourcefile, classes))  # in order: several may have one name
    for file in sorted((Path(name) for name in files if name), key=lambda file: file.name):
        if not file.is_relative_to(PYTHON) or file.is_relative_to(PYTHON / "site-packages"):
            total.update(file.read_bytes())
    return total.hexdigest()


def task_code(task: Any) -> str:
    """Give `task_digest`; empty where there are no source files, as of a class made in a session."""
    try:
        return task_digest(task)
    except (OSError, TypeError):
        return ""
