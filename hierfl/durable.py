"""Files that are on disk once they are written."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["check_file", "flush", "place", "put", "write"]


def write(path: Path, buffers: Iterable[bytes | memoryview], mode: int | None = None) -> None:
    """Write a file of these buffers, one after the other, as they are given, and flush it. Errors: OSError.

    `mode`: who may read it; None: as the umask says.
    """
    with path.open("wb") as file:
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        file.writelines(buffers)
        file.flush()
        os.fsync(file.fileno())


def flush(folder: Path) -> None:
    """Flush what a folder lists: what was made, linked or renamed in it. Errors: OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def put(path: Path, text: str) -> None:
    """Write a text in the place of a file's, whole or not at all, and flush it. Errors: OSError."""
    place(path, [text.encode()])


def check_file(path: Path) -> None:
    """Errors: OSError for what is there and is no file, such as a device, in whose place none is to be put."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "there is something else than a file", str(path))


def place(path: Path, buffers: Iterable[bytes | memoryview], mode: int | None = None) -> None:
    """Write these buffers in the place of a file's, whole or not at all, and flush it; what came on disk of one that
    cannot be written is taken away again. Errors: OSError.
    """
    check_file(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial, buffers, mode)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
    flush(path.parent)
