"""The earlier parts of a file of lines that a run of weeks adds to: events-000001.jsonl.gz, ..., then events.jsonl.

A file that has grown to `PART_BYTES` is put aside under a number, and packed when the next one is, so that whoever
reads it just then, or still adds to it, is in nobody's way. Whatever ends the process, each part is there whole, packed
or as it was. Nothing is dropped.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from hierfl.errors import OutputError

__all__ = ["DAMAGED", "PART_BYTES", "opened", "pack", "put_aside", "take_back"]

PART_BYTES = 64 << 20
"""From this size on a file is put aside; packed it has a sixth of it."""

LEVEL = 6

DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error)
"""What reading a packed part raises that is not as it was written."""


def put_aside(path: Path) -> None:
    """Let a file be its own newest part. Errors: OSError."""
    number = max(_parts(path), default=0) + 1
    os.rename(path, path.with_name(f"{path.stem}-{number:06d}{path.suffix}"))


def take_back(path: Path) -> bool:
    """Let the newest part be the file again, in the place of what it is now; say whether there was one.

    Errors: OSError; OutputError of a part that is damaged.
    """
    found = _parts(path)
    if not found:
        return False
    newest = found[max(found)]
    if _is_packed(newest):
        newest = _unpack(newest)
    _packed(newest).unlink(missing_ok=True)  # first: who is killed has it as the file or as a part, and never as both
    os.replace(newest, path)
    return True


def pack(path: Path) -> threading.Thread:
    """Pack all parts of a file but the newest, in a thread; what cannot be packed stays as it is."""

    def work() -> None:
        found = _parts(path)
        for number in sorted(found)[:-1]:
            if not _is_packed(found[number]):
                with contextlib.suppress(OSError):
                    _pack(found[number])

    thread = threading.Thread(target=work, name=f"pack {path.name}", daemon=True)
    thread.start()
    return thread


def opened(path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """Open the parts of a file, then the file, one after the other; nothing where there is none. Errors: OSError."""
    last: IO[bytes] | None = None
    with contextlib.suppress(FileNotFoundError):
        last = path.open("rb")  # first: what becomes a part from now on is not read twice, nor left out
    try:
        own = os.fstat(last.fileno()).st_ino if last is not None else None
        for part in [found for _, found in sorted(_parts(path).items())]:
            try:
                lines = _open(part)
            except FileNotFoundError:  # it was packed meanwhile
                part = _packed(part)
                lines = _open(part)
            with lines:
                if os.fstat(lines.fileno()).st_ino != own:
                    yield part, lines
        if last is not None:
            yield path, last
    finally:
        if last is not None:
            last.close()


def _parts(path: Path) -> dict[int, Path]:
    """Find the parts of a file by number; of one that is there twice the one that is not packed."""
    name = re.compile(rf"{re.escape(path.stem)}-(\d+){re.escape(path.suffix)}(\.gz)?")
    found: dict[int, Path] = {}
    for entry in path.parent.iterdir() if path.parent.is_dir() else ():
        match = name.fullmatch(entry.name)
        if match and (match[2] is None or int(match[1]) not in found):
            found[int(match[1])] = entry
    return found


def _pack(part: Path) -> None:
    """Pack a part, whole or not at all. Errors: OSError."""
    packed = _packed(part)
    partial = packed.with_name(f".{packed.name}.{os.getpid()}.partial")  # a process that has lost its run may pack, too
    try:
        with part.open("rb") as lines, partial.open("wb") as file:
            with gzip.GzipFile("", "wb", LEVEL, file, 0.0) as whole:
                shutil.copyfileobj(lines, whole, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, packed)
    finally:
        for left in packed.parent.glob(f".{packed.name}.*.partial"):
            left.unlink(missing_ok=True)
    part.unlink()


def _unpack(packed: Path) -> Path:
    """Write a part as it was before it was packed, which it stays. Errors: OSError; OutputError if it is damaged."""
    part = packed.with_suffix("")
    partial = part.with_name(f".{part.name}.partial")
    with _open(packed) as lines, partial.open("wb") as file:
        try:
            shutil.copyfileobj(lines, file, 1 << 20)
        except DAMAGED as error:
            raise OutputError(f"{packed} is damaged: {error}; delete it to go on without what it tells") from error
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, part)
    return part


def _packed(part: Path) -> Path:
    return part if _is_packed(part) else part.with_name(f"{part.name}.gz")


def _is_packed(part: Path) -> bool:
    return part.suffix == ".gz"


def _open(part: Path) -> IO[bytes]:
    return gzip.open(part, "rb") if _is_packed(part) else part.open("rb")  # type: ignore[return-value]
