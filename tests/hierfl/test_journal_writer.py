"""Segments of a journal, one after the other, by the real writer in a real folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from hierfl.journal.store import LocalStore, Stream
from hierfl.journal.writer import Writer
from tiers.journal import Barrier, GaveUp, Head, Record, read


@dataclass
class Small(LocalStore):
    """A disk that has room for one segment."""

    folder: Path

    def open(self, segment: int, epoch: int) -> Stream:
        if self.writers():
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().open(segment, epoch)


def line(name: str) -> tuple[Record, list[memoryview]]:
    return GaveUp(name, "nobody is left"), []


def head(rounds_done: int) -> Head:
    return Head(rounds_done, "settings", (), {}, {})


def told(store: LocalStore, segment: int) -> list[str]:
    """Give whose giving up stands in a segment."""
    entries = read(store.read(segment)[1]).entries
    assert [type(entry.record) for entry in entries[:2]] == [Head, Barrier]
    return [entry.record.hub for entry in entries[2:] if isinstance(entry.record, GaveUp)]


@contextmanager
def writing(store: LocalStore) -> Iterator[Writer]:
    """A writer after round 1, in whose segment something stands."""
    writer = Writer(store, 1)
    writer.begin(head(1))
    writer.append(partial(line, "a"))
    writer.flush()
    assert store.writers() == {(1, 1)}
    try:
        yield writer
    finally:
        writer.close()


def test_a_new_segment_takes_the_place_of_the_old_one_once_something_stands_in_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with writing(store) as writer:
        writer.append(partial(line, "in the checkpoint, too"))
        writer.begin(head(2))
        for name in "bc":
            writer.append(partial(line, name))
        writer.flush()
        assert store.writers() == {(2, 1)} and told(store, 2) == ["b", "c"]


def test_a_segment_that_its_checkpoint_has_whole_is_gone_at_the_end(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with writing(store) as writer:
        writer.begin(head(2))
    assert not store.writers()


def test_a_disk_without_room_for_both_has_room_at_the_next_checkpoint(tmp_path: Path) -> None:
    store = Small(tmp_path)
    with writing(store) as writer:
        writer.begin(head(2))
        writer.append(partial(line, "b"))
        writer.flush()
        assert writer.failure == "No space left on device" and not store.writers()
        writer.append(partial(line, "said to nobody"))
        writer.begin(head(3))
        writer.append(partial(line, "c"))
        writer.flush()
        assert writer.failure is None and store.writers() == {(3, 1)} and told(store, 3) == ["c"]


def test_what_was_told_before_the_first_segment_stands_in_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    writer = Writer(store, 1)
    writer.append(partial(line, "a"))
    writer.begin(head(1))
    writer.close()
    assert told(store, 1) == ["a"]


@pytest.mark.parametrize("epoch", [1, 2])
def test_who_takes_a_run_up_says_so_at_once(tmp_path: Path, epoch: int) -> None:
    store = LocalStore(tmp_path)
    writer = Writer(store, epoch)
    writer.begin(head(1))
    writer.flush()
    assert store.writers() == ({(1, 2)} if epoch == 2 else set())
    writer.close()


def test_nobody_waits_for_what_was_written_or_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So much may wait at most; a new segment drops it, since the checkpoint has it."""
    monkeypatch.setattr("hierfl.journal.writer.MOST_BYTES", 10)
    with writing(LocalStore(tmp_path)) as writer:
        writer.delay_s = 60.0
        for number in range(3):
            writer.begin(head(number))
            assert writer._bytes == 0
            writer.append(partial(line, "dropped"), 20)
        writer.flush()
        assert writer._bytes == 0


def test_what_is_added_is_on_disk_when_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, flushed, flush = LocalStore(tmp_path).open(1, 1), list[bytes](), os.fsync
    [file] = tmp_path.glob("after-*/*.journal")
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(file.read_bytes()) or flush(handle))
    stream.append([b"one", memoryview(b"two")])
    stream.close()
    assert flushed == [b"onetwo"]
