"""Writes a journal beside the run: what is told goes to disk in groups, at the latest a tenth of a second later.

Rounds that are over sooner are never written: their checkpoint has all that they gave (group commit, DeWitt et al.
1984). A journal that cannot be written, or whose run somebody else has taken up, is said; it does not stop the thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from hierfl.journal.store import Store, Stream
from tiers.journal import MAGIC, Barrier, Entry, Head, Record, frame, read

__all__ = ["DELAY_S", "MOST_BYTES", "Line", "Writer"]

DELAY_S = 0.1
"""How long what is told may wait for its way to disk."""

MOST_BYTES = 1 << 30
"""What may wait at most; whoever tells more waits until some of it is written."""

BATCH_BYTES = 256 << 20
"""What is written at a time, at least one record."""

Line: TypeAlias = Callable[[], tuple[Record, Sequence[memoryview]]]
"""Gives a record and its payload, fetched when it is written."""


class Writer:
    """Adds to one segment after the other, as the writer of an epoch.

    `begin` says where, and what was told before the first waits for it; each other one drops what has not been written,
    since a checkpoint has it. Who takes a run up says so in its segment at once, before it has told anybody anything.
    """

    delay_s = DELAY_S

    def __init__(self, store: Store, epoch: int) -> None:
        self.store = store
        self.epoch = epoch
        self.failure: str | None = None
        self._changed = threading.Condition()
        self._waiting: deque[tuple[float, int, Line]] = deque()
        self._bytes = 0
        self._segment: tuple[int, Head, Barrier] | None = None
        self._to_drop = False
        self._to_open = False
        self._has_written = False
        self._hurry = self._ends = self._writes = False
        self._thread: threading.Thread | None = None

    def begin(self, head: Head, before: Barrier | None = None) -> None:
        """Add to the segment of a checkpoint from now on; `before`: what stands there already."""
        with self._changed:
            if self._segment is not None:
                self._waiting.clear()
                self._bytes = 0
            elif self.epoch > 1:
                self._to_open = True
                self._start()
            self._to_drop = self._to_drop or self._has_written or self._writes
            self._has_written, self.failure = False, None
            self._segment = (head.rounds_done, head, before or Barrier(self.epoch))
            self._changed.notify_all()

    def append(self, line: Line, num_bytes: int = 0) -> None:
        """Add a record soon; waits while too much waits."""
        with self._changed:
            if self.failure is not None:
                return
            self._start()
            while self._bytes > MOST_BYTES and self.failure is None:
                self._hurry = True
                self._changed.notify_all()
                self._changed.wait()
            self._waiting.append((time.monotonic(), num_bytes, line))
            self._bytes += num_bytes
            if len(self._waiting) == 1:
                self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all is durable, or has failed."""
        with self._changed:
            while self._segment and self._is_behind() and not self.failure and self._thread:
                self._hurry = True
                self._changed.notify_all()
                self._changed.wait()

    def written(self) -> tuple[Entry, ...]:
        """Read back what this writer has added to the segment so far. Errors: OSError."""
        assert self._segment is not None
        stream = self.store.read(self._segment[0]).get(self.epoch)
        return read(stream).entries if stream is not None else ()

    def close(self) -> None:
        """Write what waits, and end the thread."""
        if self._thread is not None:
            with self._changed:
                self._ends = True
                self._changed.notify_all()
            self._thread.join()
            self._thread = None

    def _start(self) -> None:
        """Start the thread, if it is not at work."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
            self._thread.start()

    def _is_behind(self) -> bool:
        """Whether anything that was told, or is to be opened, is not on disk."""
        return bool(self._waiting) or self._writes or self._to_open

    def _run(self) -> None:
        """Write in groups until the end."""
        stream: Stream | None = None
        of: tuple[int, Head, Barrier] | None = None
        while True:
            with self._changed:
                while not self._is_due():
                    self._changed.wait(self._left_s())
                batch, segment, to_drop = self._take(), self._segment, self._to_drop
                to_open, self._to_open = self._to_open, False
                self._to_drop, self._writes = False, True
                ends = self._ends and not (self._waiting or batch or to_open)
            failure = None
            try:
                if stream is not None and (segment is not of or ends):
                    stream.close()
                    stream = None
                try:
                    if (batch or to_open) and segment is not None:
                        stream, of = self._write(stream, segment, batch), segment
                finally:  # the new one holds what is to be kept of the old one, or there is no room for it
                    if to_drop and segment is not None:
                        self.store.drop(segment[0], self.epoch)
            except Exception as error:  # of the disk, or of a vector that is no longer there: the run goes on without
                stream = None
                reason = error.strerror if isinstance(error, OSError) else None
                failure = str(reason or error) or type(error).__name__
            with self._changed:
                self._writes = False
                self._has_written = self._has_written or (bool(batch or to_open) and segment is self._segment)
                if failure is not None and segment is self._segment:
                    self.failure = failure
                    self._waiting.clear()
                    self._bytes = 0
                self._hurry = self._hurry and bool(self._waiting)
                self._changed.notify_all()
            if ends:
                return

    def _write(self, stream: Stream | None, segment: tuple[int, Head, Barrier], batch: list[Line]) -> Stream:
        """Write a group, at a segment's beginning after what it goes on from. Errors: OSError."""
        number, head, barrier = segment
        buffers: list[bytes | memoryview] = []
        if stream is None:
            stream = self.store.open(number, self.epoch)
            buffers.append(MAGIC)
            if not barrier.before:
                buffers += frame(head)
            buffers += frame(barrier)
        try:
            for line in batch:
                buffers += frame(*line())
            stream.append(buffers)
        except BaseException:
            stream.close()
            raise
        return stream

    def _is_due(self) -> bool:
        return self._ends or self._to_open or (self._left_s() is not None and (self._hurry or self._left_s() == 0))

    def _left_s(self) -> float | None:
        """Give the seconds until the next group is due; None if nothing waits."""
        if not self._waiting or self._segment is None:
            return None
        return max(0.0, self._waiting[0][0] + self.delay_s - time.monotonic())

    def _take(self) -> list[Line]:
        """Take the next group."""
        batch: list[Line] = []
        size = 0
        while self._waiting and (not batch or size + self._waiting[0][1] <= BATCH_BYTES):
            _, num_bytes, line = self._waiting.popleft()
            size += num_bytes
            batch.append(line)
        self._bytes -= size
        return batch
