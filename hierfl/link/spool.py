"""Files that serve again: a vector that comes is written over one that nobody reads any more.

For what is written to a new file a kernel has to find pages of memory, and to clear them; on a virtual machine it may
have to ask the host for each. Where a file has its pages already, writing to it is a copy and nothing else.

Nothing is ever written over that somebody may read: a file serves again only if this process began it, in this very
folder, once all that was mapped of it here is gone, and unless a process was forked meanwhile, which has it mapped yet.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Callable
from mmap import ACCESS_READ, mmap
from pathlib import Path

__all__ = ["Spool", "map_file"]

KEPT = 4
"""Spare files: more than are written at once serve nobody."""

SUFFIX = ".spare"

_FORKS = [0]
"""How often this process was forked."""


def _forked() -> None:
    _FORKS[0] += 1


os.register_at_fork(before=_forked)


def map_file(path: Path, num_bytes: int) -> mmap:
    """Give a file's bytes, read-only, without a copy. Errors: OSError, ValueError."""
    with path.open("rb") as file:
        return mmap(file.fileno(), num_bytes, access=ACCESS_READ)


class Spool:
    """A folder of vectors that come and go, which one process at a time has. Errors: OSError if it cannot be made.

    Spare files that an earlier process has left go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._own: set[Path] = set()
        self._mapped: dict[Path, list[tuple[weakref.ref[mmap], int]]] = {}
        self._spare: deque[Path] = deque()
        self._most = KEPT
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = os.open(folder, os.O_RDONLY)  # as long as it is held no other one has its number
        weakref.finalize(self, os.close, self._folder)
        self._clear()

    def begin(self, partial: Path, mark: Callable[[int], None] = lambda file: None) -> int:
        """Open a file to write to: what lies there, else a spare one, which `mark` has been told of first, else a new
        one. Errors: OSError.

        A spare file is as long as what lay in it, which means nothing.
        """
        if not partial.exists():
            self._own.add(partial)
            self._take_spare(partial, mark)
        return os.open(partial, os.O_RDWR | os.O_CREAT, 0o600)

    def rename(self, partial: Path, path: Path) -> None:
        """Give what was written its name. Errors: OSError."""
        with self._lock:
            os.replace(partial, path)
            if partial in self._own:
                self._own.discard(partial)
                self._own.add(path)

    def map(self, path: Path, num_bytes: int) -> mmap:
        """Do as `map_file`, and know who reads. Errors: OSError, ValueError."""
        with self._lock:
            mapped = map_file(path, num_bytes)
            alive = [one for one in self._mapped.get(path, ()) if one[0]() is not None]
            self._mapped[path] = [*alive, (weakref.ref(mapped), _FORKS[0])]
            return mapped

    def files(self) -> list[Path]:
        """Give the files that have a name of their own, the latest last."""
        named = [path for path in self.folder.iterdir() if path.suffix != SUFFIX]
        return sorted(named, key=lambda path: path.stat().st_mtime_ns)

    def free(self, path: Path) -> None:
        """Nobody needs a file by its name any more: it serves again once nobody reads what is mapped of it."""
        with self._lock:
            readers = [(one, forks) for known, forks in self._mapped.pop(path, ()) if (one := known()) is not None]
            is_own = path in self._own and self._is_here()
            self._own.discard(path)
            if not is_own:
                path.unlink(missing_ok=True)
                return
            spare = self.folder / f"{secrets.token_hex(8)}{SUFFIX}"
            try:
                os.replace(path, spare)
            except FileNotFoundError:
                return
        reader = _Reader()
        forks = min((forks for _, forks in readers), default=None)
        weakref.finalize(reader, self._freed, spare, forks).atexit = False
        for mapped, _ in readers:
            weakref.finalize(mapped, reader.ends).atexit = False

    def trim(self) -> None:
        """Let go of spare files: there is no room for others."""
        while self._spare:
            with contextlib.suppress(IndexError):
                self._spare.pop().unlink(missing_ok=True)

    def close(self) -> None:
        """Keep no file that nobody needs; what is read yet can be read on."""
        self._most = 0
        self._clear()

    def _take_spare(self, partial: Path, mark: Callable[[int], None]) -> None:
        """Put a spare file at a place, if there is one that can be marked."""
        try:
            spare = self._spare.pop()
        except IndexError:
            return
        try:
            file = os.open(spare, os.O_RDWR)
            try:
                mark(file)
                os.replace(spare, partial)
            finally:
                os.close(file)
        except OSError:  # somebody has deleted it, or the disk is full
            spare.unlink(missing_ok=True)

    def _is_here(self) -> bool:
        """Whether the folder is the one that was begun, and not another one of its name."""
        try:
            return os.path.samestat(os.stat(self.folder), os.fstat(self._folder))
        except OSError:
            return False

    def _clear(self) -> None:
        for left in self.folder.glob(f"*{SUFFIX}"):
            left.unlink(missing_ok=True)

    def _freed(self, spare: Path, forks: int | None) -> None:
        """Nobody reads a file any more; `forks`: at its first reader's time. Called by whatever thread lets go of it
        last, whatever that thread holds.
        """
        if len(self._spare) < self._most and forks in (None, _FORKS[0]):
            self._spare.append(spare)
        else:
            spare.unlink(missing_ok=True)


class _Reader:
    """Is there as long as one of those that know it is."""

    def ends(self) -> None:
        """Be let go of by one."""
