"""Small files, written whole or not at all, or line by line; private ones can be read by their owner only."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hierfl.durable import flush
from hierfl.errors import LinkError

__all__ = ["append_private", "whole_lines", "write_private", "write_public"]


def write_public(path: Path, content: bytes) -> None:
    """Write a file that others may read. Errors: LinkError."""
    _write(path, content, 0o644)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, from its first byte on. Errors: LinkError."""
    _write(path, content, 0o600)


def append_private(path: Path, line: str) -> None:
    """Write a line, with its end, behind those of a file, whole or not at all, so that it lasts. Errors: LinkError."""
    before = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as file:
            before = os.fstat(file.fileno()).st_size
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if not before:
            flush(path.parent)  # that lists a file which is new
    except OSError as error:
        if before is not None:  # part of a line would spoil the next one
            with contextlib.suppress(OSError):
                os.truncate(path, before)
        raise LinkError(f"{path} cannot be written: {error.strerror or error}") from error


def whole_lines(path: Path) -> list[str]:
    """Read a file that lines were appended to; what was not written to its end is taken away.

    Errors: OSError; ValueError for what is no text; LinkError if it cannot be written.
    """
    text = path.read_text(encoding="utf-8")
    whole, end, _ = text.rpartition("\n")
    if len(whole + end) < len(text):
        write_private(path, (whole + end).encode())
    return whole.splitlines()


def _write(path: Path, content: bytes, mode: int) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise LinkError(f"{path} cannot be written: {error.strerror or error}") from error
