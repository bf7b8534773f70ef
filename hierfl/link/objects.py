"""What lies at a member's place between two steps of an exchange: vectors in files, each until nobody asks for it.

They are written before the hub hears of them, so that a member that was killed has them still. Each has a name, which
the hub gives up once it is over; members ask for it by its digest. What a commit needs stays beside, whatever is given
up.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl import durable
from hierfl.commits import in_order
from hierfl.errors import LinkError
from hierfl.link import kept
from hierfl.link.payload import Outgoing, Shape, read

__all__ = ["Objects"]

END = ".object"
TAKEN = "taken"
COMMITS = "commits"

Vectors = tuple[NDArray[Any], NDArray[np.int64]]


class Objects:
    """A folder of vectors; safe among threads. Errors: LinkError if it cannot be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._payloads: dict[bytes, Outgoing] = {}
        for name in ("", TAKEN, COMMITS):
            try:
                (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                raise LinkError(f"{folder / name} cannot be made: {error.strerror}") from error

    def put(self, name: str, floats: NDArray[Any], ints: NDArray[np.int64]) -> Outgoing:
        """Write a vector, whole or not at all. Errors: LinkError."""
        payload = Outgoing(floats, ints)
        path = self.folder / f"{payload.digest.hex()}.{name}{END}"
        try:
            _write(path, floats, ints)
        except OSError as error:
            raise LinkError(f"{path} cannot be written: {error.strerror or error}") from error
        payload.lies_at(path)
        with self._lock:
            self._payloads[payload.digest] = payload
        return payload

    def find(self, digest: bytes) -> Outgoing | None:
        """Give a vector to send; None if it is not here, or spoilt."""
        files = list(self._files(digest))
        with self._lock:
            known = self._payloads.get(digest) if files else self._payloads.pop(digest, None)
        if known is not None and files:
            return known
        for path in files:
            with contextlib.suppress(OSError, ValueError):
                found = Outgoing(*read(path, Shape(path.stat().st_size // 4, 0, "int32")))
                if found.digest == digest:
                    with self._lock:
                        self._payloads[digest] = found
                    return found
        return None

    def file(self, digest: bytes) -> Path | None:
        """Give a vector's file; None if it is not here, or spoilt."""
        return next(self._files(digest), None) if self.find(digest) is not None else None

    def taken(self, digest: bytes) -> Path:
        """Give the place for a vector that comes from elsewhere, which whoever has read it deletes."""
        return self.folder / TAKEN / f"{digest.hex()}{END}"

    def drop(self, names: Iterable[str]) -> None:
        """Let go of vectors by their names."""
        for name in names:
            for path in self.folder.glob(f"*.{name}{END}") if name.replace("-", "").isalnum() else ():
                path.unlink(missing_ok=True)
                self.find(bytes.fromhex(path.name.partition(".")[0]))

    def clear(self, but: Collection[str] = ()) -> None:
        """Let go of all `but` what has one of these names, and what commits need."""
        own = [path for path in self.folder.glob(f"*{END}") if path.name.split(".")[1] not in but]
        for path in [*own, *self.folder.glob(".*.partial"), *(self.folder / TAKEN).iterdir()]:
            path.unlink(missing_ok=True)
        with self._lock:
            self._payloads.clear()

    def commit(self, run: str, rounds_done: int, vectors: Iterable[Vectors], keep: int) -> Path:
        """Keep vectors for a commit of a run, on disk, and its newest `keep` commits; give the folder.

        Errors: LinkError.
        """
        runs = self.folder / COMMITS / run
        place = runs / f"round-{rounds_done:06d}"
        try:
            place.mkdir(parents=True, exist_ok=True)
            for floats, ints in vectors:
                _write(place / f"{Outgoing(floats, ints).digest.hex()}{END}", floats, ints, lasting=True)
            for folder in (place, runs, runs.parent):
                durable.flush(folder)
            for old in in_order(runs.iterdir())[:-keep]:
                shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise LinkError(f"{place} cannot be written: {error.strerror or error}") from error
        return place

    def forget(self, run: str) -> None:
        """Let go of a run's commits: it has ended, and nobody goes on with it."""
        kept.forget(self.folder / COMMITS, run)

    def forget_all_before(self, run: str) -> None:
        """Let go of the commits of older runs that were not gone on with."""
        kept.forget_all_before(self.folder / COMMITS, run)

    def _files(self, digest: bytes) -> Iterator[Path]:
        yield from self.folder.glob(f"{digest.hex()}.*{END}")
        yield from (self.folder / COMMITS).glob(f"*/*/{digest.hex()}{END}")


def _write(path: Path, floats: NDArray[Any], ints: NDArray[np.int64], *, lasting: bool = False) -> None:
    """Write a vector, whole or not at all; `lasting`: wait until it is on disk."""
    partial = path.with_name(f".{path.name}.partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        for part in (floats, ints):
            file.write(np.ascontiguousarray(part).data if part.size else b"")
        if lasting:
            file.flush()
            os.fsync(file.fileno())
    os.replace(partial, path)
