"""Files that serve again: a vector that comes is written over one that nobody reads any more.

For what is written to a new file a kernel has to find pages of memory, and to clear them; on a virtual machine it may
have to ask the host for each. Where a file has its pages already, writing to it is a copy and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import weakref
from collections import deque
from mmap import ACCESS_READ, mmap
from pathlib import Path

__all__ = ["Spool"]

KEPT = 4
"""Spare files: more than are written at once serve nobody."""

SUFFIX = ".spare"


class Spool:
    """A folder of vectors that come and go. Errors: OSError if it cannot be made.

    Only files that were begun here serve again: into another process's, which may read them yet, nobody writes. Spare
    ones that an earlier process has left go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._own: set[Path] = set()
        self._mapped: dict[Path, list[weakref.ref[mmap]]] = {}
        self._spare: deque[Path] = deque()
        self._most = KEPT
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._clear()

    def begin(self, partial: Path) -> bool:
        """Prepare a place to write to: put a spare file there, if there is one and nothing else; say whether it was.

        A spare file is as long as what lay in it, which means nothing.
        """
        if partial.exists():
            return False
        self._own.add(partial)
        with contextlib.suppress(IndexError, FileNotFoundError):
            os.replace(self._spare.pop(), partial)
            return True
        return False

    def rename(self, partial: Path, path: Path) -> None:
        """Give what was written its name."""
        with self._lock:
            os.replace(partial, path)
            if partial in self._own:
                self._own.discard(partial)
                self._own.add(path)

    def map(self, path: Path, num_bytes: int) -> mmap:
        """Give a file's bytes, read-only, without a copy. Errors: OSError, ValueError."""
        with self._lock, path.open("rb") as file:
            mapped = mmap(file.fileno(), num_bytes, access=ACCESS_READ)
            for known, readers in list(self._mapped.items()):
                self._mapped[known] = [one for one in readers if one() is not None]
                if not self._mapped[known]:
                    del self._mapped[known]
            self._mapped.setdefault(path, []).append(weakref.ref(mapped))
            return mapped

    def files(self) -> list[Path]:
        """Give the files that have a name of their own, the latest last."""
        named = [path for path in self.folder.iterdir() if path.suffix != SUFFIX]
        return sorted(named, key=lambda path: path.stat().st_mtime_ns)

    def free(self, path: Path) -> None:
        """Nobody needs a file by its name any more: it serves again once nobody reads what is mapped of it."""
        with self._lock:
            mapped = [one for known in self._mapped.pop(path, ()) if (one := known()) is not None]
            if path not in self._own:
                path.unlink(missing_ok=True)
                return
            self._own.discard(path)
            spare = self.folder / f"{secrets.token_hex(8)}{SUFFIX}"
            with contextlib.suppress(FileNotFoundError):
                os.replace(path, spare)
        reader = _Reader()
        weakref.finalize(reader, self._freed, spare).atexit = False
        for one in mapped:
            weakref.finalize(one, reader.ends).atexit = False

    def close(self) -> None:
        """Keep no file that nobody needs; what is read yet can be read on."""
        self._most = 0
        self._clear()

    def _clear(self) -> None:
        for left in self.folder.glob(f"*{SUFFIX}"):
            left.unlink(missing_ok=True)

    def _freed(self, spare: Path) -> None:
        """Nobody reads a file any more. Called by whatever thread lets go of it last, whatever that thread holds."""
        if len(self._spare) < self._most:
            self._spare.append(spare)
        else:
            spare.unlink(missing_ok=True)


class _Reader:
    """Is there as long as one of those that know it is."""

    def ends(self) -> None:
        """Be let go of by one."""
