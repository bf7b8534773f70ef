"""What outlives the processes of a played run: journals, as records or as the bytes of the product, and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

from replicated_hub import Recall, Said, must

from tiers.journal import MAGIC, Barrier, Entry, Head, Joined, Record, frame, join, read

__all__ = ["Disk", "Line", "Saved", "written"]

Line: TypeAlias = tuple[Record, int, Said | None]
"""A record, the value beside it, and what the hub's machine said to it."""


def written(line: Line, as_bytes: bool) -> Entry:
    """Give a record as it is read again."""
    record, value, said = line
    if not as_bytes:
        return Entry(record, (value, said))  # type: ignore[arg-type]
    [entry] = read(b"".join([MAGIC, *frame(record, [memoryview(value.to_bytes(12, "little"))])])).entries
    return entry


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint: rounds done, the model, what hubs remember, what they were told in rounds that are under way."""

    number: int
    model: int
    kept: Mapping[str, Recall]
    head: Head | None = None
    carried: tuple[Entry, ...] = ()
    left: tuple[Entry, ...] = ()


class Stream:
    """What one epoch writes to the newest segment: entries, whole as they are."""

    def __init__(self, first: Sequence[Record]) -> None:
        self.first: Sequence[Record] = first
        self.entries: list[Any] = []

    def write(self, lines: Sequence[Line]) -> None:
        if not self.entries:
            self.entries += [Entry(record, (0, None)) for record in self.first]  # type: ignore[arg-type]
        self.entries += [Entry(record, (value, said)) for record, value, said in lines]  # type: ignore[arg-type]

    def tear(self, random: Random) -> None:
        """A line is there or not: nothing of it is left behind."""
        random.random()


class ByteStream(Stream):
    """The same as bytes, with the frames and checksums of the product."""

    def __init__(self, first: Sequence[Record]) -> None:
        super().__init__(first)
        self.data = bytearray()

    def write(self, lines: Sequence[Line]) -> None:
        if not self.data:
            self.data += MAGIC
            for record in self.first:
                self.data += b"".join(frame(record))
        for record, value, _ in lines:
            self.data += b"".join(frame(record, [memoryview(value.to_bytes(12, "little"))]))

    def tear(self, random: Random) -> None:
        """A kill leaves a part of a record behind, which was never acknowledged."""
        part = b"".join(frame(Barrier(0)))
        part = part[: int(random.random() * len(part))]
        if self.data:
            self.data += part


class Disk:
    """Epochs, the newest segment's streams, and the newest checkpoint."""

    def __init__(self, as_bytes: bool) -> None:
        self.epoch = 0
        self.saved = Saved(0, 1, {})
        self.streams: dict[int, Any] = {}
        self.kind = ByteStream if as_bytes else Stream

    def claim(self) -> int:
        self.epoch += 1
        return self.epoch

    def stream(self, epoch: int, found: Joined) -> Stream:
        """Begin to write after what was found."""
        barrier = Barrier(epoch, found.before)
        first = [barrier] if found.before else [self.saved.head or Head(self.saved.number, ""), barrier]
        stream = self.streams[epoch] = self.kind(first)
        return stream

    def rotate(self, epoch: int, head: Head) -> Stream:
        """A checkpoint is there: what came before is dropped."""
        self.streams.clear()
        stream = self.streams[epoch] = self.kind([head, Barrier(epoch)])
        return stream

    def read(self) -> Joined:
        """Put together what each epoch wrote: the newest says how far it had read those before it."""
        if self.kind is ByteStream:
            return join({epoch: memoryview(bytes(one.data)) for epoch, one in self.streams.items()})
        for epoch in sorted(self.streams, reverse=True):
            own = self.streams[epoch].entries
            barrier = next((one.record for one in own if type(one.record) is Barrier), None)
            if barrier is None:
                continue
            entries: list[Entry] = []
            for earlier, number in barrier.before.items():
                entries += self.streams[earlier].entries[:number]
            entries += own
            head = next((one.record for one in entries if type(one.record) is Head), None)
            assert head is not None
            return Joined(head, tuple(entries), {**barrier.before, epoch: len(own)})
        return Joined()

    @staticmethod
    def value(entry: Entry) -> int:
        """Give the value beside a record."""
        if isinstance(entry.payload, tuple):
            return int(entry.payload[0])
        return int.from_bytes(entry.payload, "little")

    @staticmethod
    def compare(entry: Entry, said: Said) -> None:
        """A hub that is told the same again says the same again."""
        if isinstance(entry.payload, tuple) and entry.payload[1] is not None:
            before = entry.payload[1]
            must(before.same(said), "told {} again, the hub says {}, not {}", entry.record, said, before)
