"""Small files, written whole or not at all; private ones can be read by their owner only."""

from __future__ import annotations

import os
from pathlib import Path

from hierfl.errors import LinkError

__all__ = ["write_private", "write_public"]


def write_public(path: Path, content: bytes) -> None:
    """Write a file that others may read. Errors: LinkError."""
    _write(path, content, 0o644)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, from its first byte on. Errors: LinkError."""
    _write(path, content, 0o600)


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
