"""Payloads: a model, or an update, as raw little-endian numbers under a layout that both sides know.

The digest, by which all call a payload, is the hash over the hashes of its chunks (`chunks`). Whoever receives one
hashes each chunk, which is also its check, and holds the whole against the digest: what is written down of an update is
true of its bytes, whoever sent it.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import LinkError
from hierfl.learning.blocks import threads
from hierfl.link.chunks import CHUNK_BYTES, Chunk, check_of, digest_of, encode, hash_of
from hierfl.link.spool import Spool, map_file

__all__ = ["DTYPES", "Incoming", "Outgoing", "Shape", "read"]

THREADED_CHUNKS = 8

_RECEIVED = struct.Struct("<Q")

DTYPES = ("float32", "float64", "int32", "int64")
"""What a payload's first numbers may be; the others are int64."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How many numbers there are, and of which type. Errors: LinkError for a type that may not travel."""

    num_floats: int
    num_ints: int
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise LinkError(f"a payload of {self.dtype!r}; allowed: {', '.join(DTYPES)}")

    @property
    def float_bytes(self) -> int:
        """Count the bytes of the first numbers."""
        return self.num_floats * np.dtype(self.dtype).itemsize

    @property
    def num_bytes(self) -> int:
        """Count all bytes."""
        return self.float_bytes + 8 * self.num_ints


class Outgoing:
    """A payload to send; it shares memory with its vectors, which must not change."""

    def __init__(self, floats: NDArray[Any], ints: NDArray[np.int64]) -> None:
        assert sys.byteorder == "little", "payloads are little-endian, and so must be the machine"
        self.shape = Shape(floats.size, ints.size, str(floats.dtype))
        self._views = _views(floats, ints)
        self._hashes = self._hashed()
        self.digest = digest_of(self._hashes)

    def chunks(self, transfer: int, offset: int) -> Iterator[bytes]:
        """Write the chunks from an offset on, which is a chunk's first byte. Errors: LinkError for another."""
        if offset % CHUNK_BYTES or offset > self.shape.num_bytes:
            raise LinkError(f"no chunk begins at byte {offset} of {self.shape.num_bytes}")
        for start in range(offset, self.shape.num_bytes, CHUNK_BYTES):
            check = check_of(self.digest, start, self._hashes[start // CHUNK_BYTES])
            yield encode(transfer, start, check, *self._parts(start))

    def lies_at(self, path: Path) -> None:
        """Send from a file that has the same bytes, and let go of the memory."""
        self._views = _views(*read(path, self.shape))

    def _hashed(self) -> list[bytes]:
        """Give every chunk's hash; several threads make those of a large payload: nothing else goes on."""
        starts = range(0, self.shape.num_bytes, CHUNK_BYTES)
        if len(starts) < THREADED_CHUNKS:
            return [self._hash(start) for start in starts]
        return list(threads().map(self._hash, starts))

    def _hash(self, start: int) -> bytes:
        """Give the hash of the chunk that begins at a byte."""
        return hash_of(*self._parts(start))

    def _parts(self, start: int) -> list[memoryview]:
        """Cut the chunk that begins at a byte."""
        found, left = [], CHUNK_BYTES
        for view in self._views:
            part = view[start : start + left] if start < view.nbytes else view[:0]
            start = max(0, start - view.nbytes)
            left -= part.nbytes
            if part.nbytes:
                found.append(part)
        return found


class Incoming:
    """A payload that comes in chunks, in a file that survives the process: what is there need not be sent again.

    `limit`: the largest magnitude that a number of the first kind may have, where these are integers; `spool`: of files
    that serve again.

    As long as it comes, a number behind its last byte says how many bytes are there: after them may lie others.
    """

    def __init__(
        self, path: Path, shape: Shape, digest: bytes, limit: int | None = None, spool: Spool | None = None
    ) -> None:
        self.path = path
        self.shape = shape
        self.digest = digest
        self.limit = limit
        self._spool = spool
        self._lock = threading.Lock()
        self._hashes: list[bytes] = []
        self._is_closed = False
        self.received = 0
        self.is_whole = False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = path.with_name(path.name + ".partial")
        if path.exists():  # whole by its name: but its machine may have died since, and this limit may be another
            os.replace(path, self._partial)
        self._file = self._open()
        try:
            self._take_up()
            try:
                self._finish_if_whole()
            except LinkError:  # what is spoilt comes again
                if not shape.num_bytes:
                    raise
        except BaseException:
            os.close(self._file)
            raise

    def take(self, chunk: Chunk) -> None:
        """Take the next chunk. Errors: LinkError if it is another, damaged, or holds what no update may; it is as if
        it had not come.
        """
        with self._lock:  # the file's handle must not be closed, and given to another file, under a write
            self._take(chunk)

    def _take(self, chunk: Chunk) -> None:
        size = min(CHUNK_BYTES, self.shape.num_bytes - self.received)
        if self.is_whole or self._is_closed or chunk.offset != self.received or chunk.data.nbytes != size:
            raise LinkError(
                f"a chunk of {chunk.data.nbytes} bytes at {chunk.offset}; {size} bytes at {self.received} come next"
            )
        hashed = hash_of(chunk.data)
        if check_of(self.digest, chunk.offset, hashed) != chunk.check:
            raise LinkError(f"the chunk at byte {chunk.offset} is damaged")
        self._admit(chunk.data, chunk.offset)
        try:
            self._write(chunk.data)
        except OSError:
            if self._spool is not None:
                self._spool.trim()
            raise
        self.received += size
        self._hashes.append(hashed)
        try:
            self._finish_if_whole()
        except OSError:  # so that it comes once more
            self.received -= size
            self._hashes.pop()
            raise

    def discard(self) -> None:
        """Forget it, and what has come of it."""
        self.close()
        for path in (self._partial, self.path):
            if self._spool is not None:
                self._spool.free(path)
            else:
                path.unlink(missing_ok=True)

    def vectors(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Give the numbers of what is whole: see `read`."""
        return read(self.path, self.shape, self._spool)

    def close(self) -> None:
        """Keep what has come for another process, and take no more."""
        with self._lock:
            if not self.is_whole and not self._is_closed:
                self._is_closed = True
                os.close(self._file)

    def _take_up(self) -> None:
        """Count what an earlier process has received, all or whole chunks only, unless it may not be used now."""
        whole = self.shape.num_bytes
        noted = os.pread(self._file, _RECEIVED.size, whole)
        said = _RECEIVED.unpack(noted) if len(noted) == _RECEIVED.size else ()
        there = min(os.fstat(self._file).st_size, whole, *said)
        there = there if there == whole else there // CHUNK_BYTES * CHUNK_BYTES
        try:
            while self.received < there:
                data = memoryview(os.pread(self._file, min(CHUNK_BYTES, there - self.received), self.received))
                self._admit(data, self.received)
                self._hashes.append(hash_of(data))
                self.received += data.nbytes
        except LinkError:
            self._drop()

    def _admit(self, data: memoryview, offset: int) -> None:
        """Hold a chunk against the limit. Errors: LinkError."""
        if self.limit is not None:
            _within(data, offset, self.shape, self.limit)

    def _finish_if_whole(self) -> None:
        """Hold the whole against its digest, and name it. Errors: LinkError if it is another one, which is dropped."""
        if self.received < self.shape.num_bytes:
            return
        if digest_of(self._hashes) != self.digest:
            self._drop()
            raise LinkError("the payload is not the one that was announced; all of it is dropped")
        os.ftruncate(self._file, self.shape.num_bytes)
        if self._spool is not None:
            self._spool.rename(self._partial, self.path)
        else:
            os.replace(self._partial, self.path)
        os.close(self._file)
        self.is_whole = True

    def _drop(self) -> None:
        """Begin anew, in another file, for somebody may read this one: nothing of what has come is of use."""
        self.received, self._hashes = 0, []
        self._partial.unlink(missing_ok=True)
        anew = self._open()
        os.close(self._file)
        self._file = anew

    def _open(self) -> int:
        """Open the file of what comes. Errors: OSError."""
        if self._spool is not None:
            return self._spool.begin(self._partial, lambda file: self._note(file, 0))
        return os.open(self._partial, os.O_RDWR | os.O_CREAT, 0o600)

    def _write(self, data: memoryview) -> None:
        """Write what comes next, and then how many bytes are there. Errors: OSError."""
        written = 0
        while written < data.nbytes:
            written += os.pwrite(self._file, data[written:], self.received + written)
        self._note(self._file, self.received + written)

    def _note(self, file: int, received: int) -> None:
        """Write down how many bytes are there."""
        os.pwrite(file, _RECEIVED.pack(received), self.shape.num_bytes)


def read(path: Path, shape: Shape, spool: Spool | None = None) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Give the numbers of a payload's file, which stays where it is: they are read-only and take no memory.

    `spool`: the file's, where it may serve again. Errors: OSError, ValueError.
    """
    if not shape.num_bytes:
        return np.empty(0, shape.dtype), np.empty(0, np.int64)
    mapped = (map_file if spool is None else spool.map)(path, shape.num_bytes)
    floats: NDArray[Any] = np.frombuffer(mapped, shape.dtype, shape.num_floats)
    return floats, np.frombuffer(mapped, np.int64, shape.num_ints, shape.float_bytes)


def _views(floats: NDArray[Any], ints: NDArray[np.int64]) -> list[memoryview]:
    """Give the bytes of vectors, without a copy where they lie as they must."""
    return [np.ascontiguousarray(part).data.cast("B") for part in (floats, ints) if part.size]


def _within(data: memoryview, offset: int, shape: Shape, limit: int) -> None:
    """Hold a chunk's numbers against the limit. Errors: LinkError naming the first that is over it."""
    end = min(data.nbytes, max(0, shape.float_bytes - offset))
    dtype = np.dtype(shape.dtype)
    assert dtype.kind == "i" and offset % dtype.itemsize == 0
    numbers = np.frombuffer(data[:end], dtype)
    if not numbers.size or (int(numbers.max()) <= limit and int(numbers.min()) >= -limit):
        return
    index = int(np.flatnonzero((numbers > limit) | (numbers < -limit))[0])
    where = offset // dtype.itemsize + index
    raise LinkError(f"element {where} of an update is {int(numbers[index])}; its round allows {limit} at most")
