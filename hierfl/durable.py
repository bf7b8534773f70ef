"""Files that are on disk once they are written."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["write"]


def write(path: Path, *buffers: bytes | memoryview) -> None:
    """Write a file of these buffers, one after the other, and flush it. Errors: OSError."""
    with path.open("wb") as file:
        file.writelines(buffers)
        file.flush()
        os.fsync(file.fileno())
