"""What a member keeps of runs, a folder for each, and which of them go: a run that has ended, and older ones that were
left.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

__all__ = ["RUNS_KEPT", "forget", "forget_all_before"]

RUNS_KEPT = 2
"""Of runs that were not gone on with, beside the one at hand: somebody may take them up yet."""


def forget(folder: Path, run: str) -> None:
    """Let go of what is kept of a run: it has ended, and nobody goes on with it."""
    if run:
        shutil.rmtree(folder / run, ignore_errors=True)


def forget_all_before(folder: Path, run: str) -> None:
    """Let go of runs that were not gone on with, but for `RUNS_KEPT` beside this one."""
    with contextlib.suppress(OSError):  # they only take room
        others = [path for path in folder.iterdir() if path.name != run]
        for path in sorted(others, key=_written_ns)[:-RUNS_KEPT]:
            forget(folder, path.name)


def _written_ns(run: Path) -> int:
    """Say when something was last kept of a run: by its folder, and by its commits' in it, where they have one."""
    return max(path.stat().st_mtime_ns for path in (run, *run.glob("*")))
