"""The disk of played processes: journals that lose what was not flushed, torn at the end, and checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hierfl.runtime.hubs import Kept
from hierfl.runtime.underway import Before
from tiers.journal import MAGIC, Barrier, Entry, Head, frame, read

__all__ = ["Disk", "Queue", "Saved"]


class Disk:
    """What outlives a process: streams of bytes by segment and epoch, and checkpoints."""

    def __init__(self) -> None:
        self.claimed: set[int] = set()
        self.segments: dict[int, dict[int, bytearray]] = {}
        self.saved: Saved | None = None
        self.published: dict[int, int] = {}

    def epoch(self) -> int:
        return max(self.claimed, default=0)

    def claim(self, epoch: int) -> None:
        if epoch in self.claimed:
            raise FileExistsError(epoch)
        self.claimed.add(epoch)

    def lease(self, epoch: int) -> None:
        """Nobody's: nothing is renewed here, for the schedule plays all that time does."""

    def read(self, segment: int) -> dict[int, memoryview]:
        return {epoch: memoryview(bytes(stream)) for epoch, stream in self.segments.get(segment, {}).items()}

    def drop(self, but: int | None, epoch: int) -> None:
        for number, streams in self.segments.items():
            if number != but:
                for writer in [one for one in streams if one <= epoch]:
                    del streams[writer]


@dataclass(frozen=True)
class Saved:
    """A checkpoint: rounds done, the model, what the hub remembers with the payloads that it holds."""

    rounds_done: int
    model: int
    kept: Kept | None
    counted: frozenset[tuple[str, int]]
    before: Before | None = None


class Queue:
    """The writer, with the thread's work done by the schedule: `write` makes some of what waits durable."""

    def __init__(self, disk: Disk, epoch: int) -> None:
        self.store, self.epoch, self.failure = disk, epoch, None
        self.waiting: list[Callable[[], Any]] = []
        self.segment: tuple[int, Head, Barrier] | None = None
        self.began = False

    def begin(self, head: Head, before: Barrier | None = None) -> None:
        if self.segment is not None:
            self.waiting.clear()
            self.store.drop(head.rounds_done, self.epoch)
        opens = self.segment is None and self.epoch > 1
        self.segment, self.began = (head.rounds_done, head, before or Barrier(self.epoch)), False
        if opens:  # as the writer's thread does at once
            self._put(self._opening())

    def append(self, line: Callable[[], Any], num_bytes: int = 0) -> None:
        self.waiting.append(line)

    def write(self, number: int, torn: int | None = None) -> None:
        """Write so many records, the last one short by `torn` bytes."""
        data = self._opening() if not self.began and number else bytearray()
        for line in self.waiting[:number]:
            data += _bytes(frame(*line()))
        del self.waiting[:number]
        if torn:
            data = data[: max(0, len(data) - torn)]
        self._put(data)

    def _opening(self) -> bytearray:
        """Give what a stream begins with."""
        assert self.segment is not None
        _, head, barrier = self.segment
        self.began = True
        return bytearray(MAGIC + _bytes(frame(head) if not barrier.before else []) + _bytes(frame(barrier)))

    def _put(self, data: bytearray) -> None:
        """Make something durable."""
        assert self.segment is not None
        if data:
            self.store.segments.setdefault(self.segment[0], {}).setdefault(self.epoch, bytearray()).extend(data)

    def flush(self) -> None:
        self.write(len(self.waiting))

    def written(self) -> tuple[Entry, ...]:
        assert self.segment is not None
        return read(bytes(self.store.segments.get(self.segment[0], {}).get(self.epoch, b""))).entries

    def close(self) -> None:
        self.flush()


def _bytes(buffers: list[bytes | memoryview]) -> bytes:
    return b"".join(bytes(buffer) for buffer in buffers)
