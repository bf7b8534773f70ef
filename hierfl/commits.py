"""The folders of checkpoints: which are whole, who wrote each, and what comes in whose place.

A process that was taken for dead may come back at any line. What it does then to the folders of a run that another one
leads must do no harm: it puts nothing in the place of a later process's, drops nothing of it, and what it adds does not
count.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from hierfl.errors import Fenced, OutputError

__all__ = ["FOLDER", "complete", "in_order", "put_in_place", "rounds_done", "set_aside", "stamp", "void"]

FOLDER = "checkpoints"
_NAME = re.compile(r"round-\d+")


def complete(run_dir: Path) -> list[Path]:
    """List the complete checkpoints, the oldest first."""
    return in_order(path.parent for path in (run_dir / FOLDER).glob("round-*/checkpoint.json"))


def in_order(folders: Iterable[Path]) -> list[Path]:
    """Put folders of rounds in order, by number, since a million has a digit more; others are left out."""
    return sorted((path for path in folders if _NAME.fullmatch(path.name)), key=rounds_done)


def rounds_done(folder: Path) -> int:
    """Give the rounds that a checkpoint has, by its folder's name."""
    return int(folder.name.removeprefix("round-"))


def put_in_place(partial: Path, final: Path, writer: int) -> None:
    """Name a checkpoint, in the place of an earlier process's, if there is one. Errors: OSError, Fenced."""
    while True:
        try:
            partial.rename(final)  # never onto one that is there
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if _is_later(final, writer):
            shutil.rmtree(partial, ignore_errors=True)
            raise Fenced(f"another process has written {final}: this one ends, and what it does counts no more")
        aside = final.with_name(f".{final.name}.{writer}.replaced")
        shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            final.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def set_aside(run_dir: Path, newest: int, writer: int = 0) -> None:
    """Rename what is left of rounds after the `newest`, which could not be read, so that it counts no more, and drop
    what earlier processes had not finished; what a process after this one, the `writer`, has written stays. Errors:
    OutputError.
    """
    for folder in complete(run_dir):
        if rounds_done(folder) > newest and not _is_later(folder, writer):
            _rename(folder, "spoilt")
    for partial in (run_dir / FOLDER).glob(".round-*.*.partial"):
        if int(partial.name.split(".")[2]) < writer:
            shutil.rmtree(partial, ignore_errors=True)


def void(run_dir: Path, writers: Collection[tuple[int, int]]) -> list[str]:
    """Rename checkpoints that a process wrote after it had lost the run; say which. Errors: OutputError.

    `writers`: who added to which segment of the journal, segments first: a process that goes on from round 5 says so
    there before it does anything, so of earlier ones nothing counts that is of a later round.
    """
    found = []
    for folder in complete(run_dir):
        writer, number = _writer(folder), rounds_done(folder)
        if writer and any(later > writer and segment < number for segment, later in writers):
            _rename(folder, "fenced")
            found.append(folder.name)
    return found


def stamp(run_dir: Path) -> tuple[str, int] | None:
    """Tell the newest checkpoint from all others, without reading it; None where there is none."""
    whole = complete(run_dir)
    if not whole:
        return None
    try:
        return whole[-1].name, (whole[-1] / "checkpoint.json").stat().st_mtime_ns
    except OSError:
        return whole[-1].name, 0


def _writer(folder: Path) -> int:
    """Give the number of the process that wrote a checkpoint; 0 where it does not say."""
    try:
        return int(json.loads((folder / "checkpoint.json").read_text(encoding="utf-8")).get("writer", 0))
    except (OSError, ValueError, AttributeError, TypeError):
        return 0


def _is_later(folder: Path, writer: int) -> bool:
    """Whether a process that has the run after this one wrote it."""
    return bool(writer) and _writer(folder) > writer


def _rename(folder: Path, why: str) -> None:
    """Let a checkpoint count no more. Errors: OutputError."""
    aside = folder.with_name(f"{why}-{folder.name}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    except OSError as error:
        raise OutputError(f"{folder} cannot be renamed: {error.strerror or error}") from error
