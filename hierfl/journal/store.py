"""Where a journal lies: a folder of a local disk, or an address that `pyarrow.fs` knows.

    epoch-0002                              who takes the run up leaves a file of its number, once
    lease-0002.json                         what it writes again and again while it leads
    after-000005/writer-0002.journal        what that writer added after round 5; elsewhere a folder of parts

Nothing but a lease is ever written over: a part that is there is whole, or is the last of its writer. Nobody deletes
what a later one wrote: who was taken for dead and comes back does no harm.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

__all__ = ["ArrowStore", "Buffers", "LocalStore", "Store", "Stream", "open_store"]

Buffers: TypeAlias = Sequence[bytes | memoryview]


class Stream(Protocol):
    """What one writer adds to one segment of a journal."""

    def append(self, buffers: Buffers) -> None:
        """Add bytes; they are durable when this returns. Errors: OSError."""

    def close(self) -> None:
        """Add no more."""


class Store(Protocol):
    """Keeps a journal's segments, each by the number of rounds that its checkpoint has. Errors of all: OSError."""

    def epoch(self) -> int:
        """Give the number of the last who took the run up; 0 if nobody did."""

    def claim(self, epoch: int) -> None:
        """Take the run up. Errors: FileExistsError if somebody else has this number."""

    def read(self, segment: int) -> dict[int, memoryview]:
        """Give what each writer added to a segment, by epoch."""

    def open(self, segment: int, epoch: int) -> Stream:
        """Begin to add to a segment."""

    def drop(self, but: int | None, epoch: int) -> None:
        """Delete what writers up to an epoch have added to all segments but one."""

    def writers(self) -> set[tuple[int, int]]:
        """List who added to which segment, segments first."""

    def lease(self, epoch: int) -> bytes | None:
        """Give the lease of an epoch, if there is one."""

    def put_lease(self, epoch: int, content: bytes) -> None:
        """Write the lease of an epoch, over what was there."""


def open_store(place: str) -> Store:
    """Open what lies at a path or an address. Errors: ValueError, OSError."""
    return ArrowStore(place) if "://" in place else LocalStore(Path(place))


class LocalStore:
    """A folder; what is added is flushed to disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def epoch(self) -> int:
        """Give the number of the last who took the run up."""
        try:
            return _newest(entry.name for entry in os.scandir(self.folder))
        except FileNotFoundError:
            return 0

    def claim(self, epoch: int) -> None:
        """Take the run up."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"epoch-{epoch:04d}").touch(exist_ok=False)

    def read(self, segment: int) -> dict[int, memoryview]:
        """Give what each writer added; files are mapped, not read."""
        found = {}
        for path in sorted(_folder(self.folder, segment).glob("writer-*.journal")):
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                mapped: Any = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
            found[int(path.stem.removeprefix("writer-"))] = memoryview(mapped)
        return found

    def open(self, segment: int, epoch: int) -> Stream:
        """Make a writer's file."""
        return _LocalStream(_folder(self.folder, segment) / f"writer-{epoch:04d}.journal")

    def drop(self, but: int | None, epoch: int) -> None:
        """Delete what is not needed any more, and folders that are empty then."""
        for segment, writer in self.writers():
            if segment != but and writer <= epoch:
                path = _folder(self.folder, segment) / f"writer-{writer:04d}.journal"
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                with contextlib.suppress(OSError):  # of a later writer's, too
                    path.parent.rmdir()

    def writers(self) -> set[tuple[int, int]]:
        """List who added to which segment."""
        names = ((path.parent.name, path.name) for path in self.folder.glob("after-*/writer-*.journal"))
        return {(int(folder.removeprefix("after-")), int(name[len("writer-") : -8])) for folder, name in names}

    def lease(self, epoch: int) -> bytes | None:
        """Give the lease of an epoch."""
        try:
            return _lease(self.folder, epoch).read_bytes()
        except FileNotFoundError:
            return None

    def put_lease(self, epoch: int, content: bytes) -> None:
        """Write a lease, whole or not at all; it need not outlive the machine."""
        path = _lease(self.folder, epoch)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(content)
        os.replace(partial, path)


class _LocalStream:
    """A file that is appended to."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("xb", buffering=0)
        _flush(path.parent)

    def append(self, buffers: Buffers) -> None:
        """Add bytes and flush them to disk."""
        for buffer in buffers:
            left = memoryview(buffer)
            while left.nbytes:
                left = left[self._file.write(left) :]
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Add no more."""
        self._file.close()


class ArrowStore:
    """Durable storage: each addition is an object of its own, which is there whole or not at all."""

    def __init__(self, address: str) -> None:
        from pyarrow.fs import FileSystem

        self._files, self._base = FileSystem.from_uri(address)

    def epoch(self) -> int:
        """Give the number of the last who took the run up."""
        return _newest(name for name, _ in self._listed(self._base))

    def claim(self, epoch: int) -> None:
        """Take the run up."""
        if epoch <= self.epoch():
            raise FileExistsError(f"{self._base}: somebody else has taken the run up as number {epoch}")
        self._files.create_dir(self._base, recursive=True)
        self._write(f"{self._base}/epoch-{epoch:04d}", [b"\n"])

    def read(self, segment: int) -> dict[int, memoryview]:
        """Give what each writer added."""
        found = {}
        for name, path in self._listed(f"{self._base}/after-{segment:06d}"):
            parts = []
            for _, part in self._listed(path):
                with self._files.open_input_file(part) as file:
                    parts.append(file.read())
            found[int(name.removeprefix("writer-"))] = memoryview(b"".join(parts))
        return found

    def open(self, segment: int, epoch: int) -> Stream:
        """Make a writer's folder of parts."""
        return _ArrowStream(self, f"{self._base}/after-{segment:06d}/writer-{epoch:04d}")

    def drop(self, but: int | None, epoch: int) -> None:
        """Delete what is not needed any more."""
        for segment, writer in self.writers():
            if segment != but and writer <= epoch:
                self._files.delete_dir(f"{self._base}/after-{segment:06d}/writer-{writer:04d}")

    def writers(self) -> set[tuple[int, int]]:
        """List who added to which segment."""
        folders = [(name, path) for name, path in self._listed(self._base) if name.startswith("after-")]
        return {
            (int(folder.removeprefix("after-")), int(name.removeprefix("writer-")))
            for folder, path in folders
            for name, _ in self._listed(path)
            if name.startswith("writer-")
        }

    def lease(self, epoch: int) -> bytes | None:
        """Give the lease of an epoch."""
        try:
            with self._files.open_input_file(f"{self._base}/lease-{epoch:04d}.json") as file:
                found: bytes = file.read()
                return found
        except FileNotFoundError:
            return None

    def put_lease(self, epoch: int, content: bytes) -> None:
        """Write a lease."""
        self._write(f"{self._base}/lease-{epoch:04d}.json", [content])

    def _listed(self, folder: str) -> list[tuple[str, str]]:
        """List a folder's entries in order, each with its path."""
        from pyarrow.fs import FileSelector

        found = self._files.get_file_info(FileSelector(folder, allow_not_found=True))
        return sorted((info.base_name, info.path) for info in found)

    def _write(self, path: str, buffers: Buffers) -> None:
        """Write an object."""
        with self._files.open_output_stream(path) as file:
            for buffer in buffers:
                file.write(buffer)


class _ArrowStream:
    """A folder to which objects are added."""

    def __init__(self, store: ArrowStore, folder: str) -> None:
        self._store, self._folder, self._number = store, folder, 0
        store._files.create_dir(folder, recursive=True)

    def append(self, buffers: Buffers) -> None:
        """Add an object."""
        self._store._write(f"{self._folder}/{self._number:06d}.part", buffers)
        self._number += 1

    def close(self) -> None:
        """Add no more."""


def _folder(base: Path, segment: int) -> Path:
    return base / f"after-{segment:06d}"


def _lease(base: Path, epoch: int) -> Path:
    return base / f"lease-{epoch:04d}.json"


def _newest(names: Iterable[str]) -> int:
    """Give the highest epoch among names."""
    found = (re.fullmatch(r"epoch-(\d+)", name) for name in names)
    return max((int(match[1]) for match in found if match), default=0)


def _flush(folder: Path) -> None:
    """Flush a new name to disk, where folders can be flushed."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
