"""Payloads: a model, or an update, as raw little-endian numbers under a layout that both sides know.

The digest, by which all call a payload, is the SHA-256 over the SHA-256 of every MiB. Whoever receives one holds every
chunk against its check, and hashes the whole again: what is written down of an update is true of its bytes. A member
that takes a model from its hub leaves that out, as the model is what the hub says it is, unless a part of it lay in a
file since an earlier process.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import LinkError
from hierfl.link.chunks import CHUNK_BYTES, Chunk, check_of, encode, mark_of

__all__ = ["DTYPES", "Incoming", "Outgoing", "Shape", "read"]

THREADED_CHUNKS = 8
HASHING_THREADS = min(4, os.cpu_count() or 1)
ASIDE_BYTES = 1 << 16
"""From so many on it pays to hash in a thread beside."""
WAITING_CHUNKS = 4
"""Of one payload, at most, that wait for their hash: they are held in memory for so long."""

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
        hashed = self._hashed()
        self.digest = sha256(b"".join(one for one, _ in hashed)).digest()
        self._checks = [check_of(self.digest, mark) for _, mark in hashed]

    def chunks(self, transfer: int, offset: int) -> Iterator[bytes]:
        """Write the chunks from an offset on, which is a chunk's first byte. Errors: LinkError for another."""
        if offset % CHUNK_BYTES or offset > self.shape.num_bytes:
            raise LinkError(f"no chunk begins at byte {offset} of {self.shape.num_bytes}")
        for start in range(offset, self.shape.num_bytes, CHUNK_BYTES):
            yield encode(transfer, start, self._checks[start // CHUNK_BYTES], *self._parts(start))

    def lies_at(self, path: Path) -> None:
        """Send from a file that has the same bytes, and let go of the memory."""
        self._views = _views(*read(path, self.shape))

    def _hashed(self) -> list[tuple[bytes, bytes]]:
        """Give every chunk's hash and mark; several threads make those of a large payload: nothing else goes on."""
        starts = range(0, self.shape.num_bytes, CHUNK_BYTES)
        if len(starts) < THREADED_CHUNKS:
            return [self._hash(start) for start in starts]
        return list(_hashers().map(self._hash, starts))

    def _hash(self, start: int) -> tuple[bytes, bytes]:
        """Give the hash and the mark of the chunk that begins at a byte, which may lie in several places."""
        parts = self._parts(start)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return sha256(data).digest(), mark_of(start, data)

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

    `limit`: the largest magnitude that a number of the first kind may have, where these are integers. `vouched`: what
    it holds is for its sender to say, and not hashed.
    """

    def __init__(
        self, path: Path, shape: Shape, digest: bytes, limit: int | None = None, *, vouched: bool = False
    ) -> None:
        self.path = path
        self.shape = shape
        self.digest = digest
        self.limit = limit
        self._lock = threading.Lock()
        self._hashes: dict[int, Future[bytes]] | None = None if vouched else {}
        self._is_closed = False
        self.received = 0
        # What an earlier process took was the whole of this digest, but perhaps within another limit.
        self.is_whole = limit is None and path.exists() and path.stat().st_size == shape.num_bytes
        if self.is_whole:
            self.received = shape.num_bytes
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = path.with_name(path.name + ".partial")
        if path.exists():
            os.replace(path, self._partial)
        self._file = os.open(self._partial, os.O_RDWR | os.O_CREAT, 0o600)
        self._take_up()
        try:
            self._finish_if_whole()
        except LinkError:  # what is spoilt comes again
            if not shape.num_bytes:
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
        if check_of(self.digest, mark_of(chunk.offset, chunk.data)) != chunk.check:
            raise LinkError(f"the chunk at byte {chunk.offset} is damaged")
        self._admit(chunk.data, chunk.offset)
        written = 0
        while written < size:
            written += os.pwrite(self._file, chunk.data[written:], self.received + written)
        self.received += size
        try:
            self._finish_if_whole()
        except OSError:  # so that it comes once more
            self.received -= size
            raise

    def discard(self) -> None:
        """Forget it, and what has come of it."""
        self.close()
        self.path.with_name(self.path.name + ".partial").unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Keep what has come for another process, and take no more."""
        with self._lock:
            if not self.is_whole and not self._is_closed:
                self._is_closed = True
                os.close(self._file)

    def _take_up(self) -> None:
        """Count what an earlier process has received, whole chunks only, unless it may not be used now."""
        size = os.fstat(self._file).st_size
        there = min(size, self.shape.num_bytes) // CHUNK_BYTES * CHUNK_BYTES
        if there < size:  # a file that was ever cut to nothing, even if it was empty, ext4 writes to the disk on close
            os.ftruncate(self._file, there)
        if there and self._hashes is None:
            self._hashes = {}
        try:
            while self.received < there:
                self._admit(memoryview(os.pread(self._file, CHUNK_BYTES, self.received)), self.received)
                self.received += CHUNK_BYTES
        except LinkError:
            self._drop()

    def _admit(self, data: memoryview, offset: int) -> None:
        """Hold a chunk against the limit, and hash it where that has to be. Errors: LinkError."""
        if self.limit is not None:
            _within(data, offset, self.shape, self.limit)
        if self._hashes is not None:
            self._hashes[offset] = _hash_aside(data)
            before = self._hashes.get(offset - WAITING_CHUNKS * CHUNK_BYTES)
            if before is not None:
                before.result()

    def _finish_if_whole(self) -> None:
        """Hold the whole against its digest, and name it. Errors: LinkError if it is another one, which is dropped."""
        if self.received < self.shape.num_bytes:
            return
        if self._hashes is not None:
            hashed = sha256(b"".join(one.result() for one in self._hashes.values())).digest()
            if hashed != self.digest:
                self._drop()
                raise LinkError("the payload is not the one that was announced; all of it is dropped")
        os.replace(self._partial, self.path)
        os.close(self._file)
        self.is_whole = True

    def _drop(self) -> None:
        """Begin anew: nothing of what has come is of use."""
        os.ftruncate(self._file, 0)
        self.received, self._hashes = 0, {}


def read(path: Path, shape: Shape) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Give the numbers of a payload's file, which stays where it is: they are read-only and take no memory."""
    floats: NDArray[Any] = np.empty(0, shape.dtype)
    ints: NDArray[np.int64] = np.empty(0, np.int64)
    if shape.num_floats:
        floats = np.memmap(path, shape.dtype, "r", 0, (shape.num_floats,))
    if shape.num_ints:
        ints = np.memmap(path, np.int64, "r", shape.float_bytes, (shape.num_ints,))
    return floats, ints


@cache
def _hashers() -> ThreadPoolExecutor:
    """Give the threads in which all payloads of the process are hashed."""
    return ThreadPoolExecutor(HASHING_THREADS, thread_name_prefix="hash")


def _hash_aside(data: memoryview) -> Future[bytes]:
    """Hash a chunk beside whatever else is done with it."""
    if data.nbytes >= ASIDE_BYTES:
        return _hashers().submit(_sha256, data)
    found: Future[bytes] = Future()
    found.set_result(_sha256(data))
    return found


def _sha256(data: memoryview) -> bytes:
    return sha256(data).digest()


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
