"""Files that are on disk once they are written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["flush", "place", "put", "write"]


def write(path: Path, buffers: Iterable[bytes | memoryview]) -> None:
    """Write a file of these buffers, one after the other, as they are given, and flush it. Errors: OSError."""
    with path.open("wb") as file:
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


def place(path: Path, buffers: Iterable[bytes | memoryview]) -> None:
    """Write these buffers in the place of a file's, whole or not at all, and flush it. Errors: OSError."""
    partial = path.with_name(f".{path.name}.partial")
    write(partial, buffers)
    os.replace(partial, path)
    flush(path.parent)
