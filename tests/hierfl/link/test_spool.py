"""Files that serve again: never under a reader, never another process's, and never taken for what lay there before."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from link_members import layout, payload_of

from hierfl.link.chunks import CHUNK_BYTES, decode
from hierfl.link.payload import Incoming, Outgoing
from hierfl.link.spool import KEPT, Spool

LAYOUT = layout(600_000)


def payload(seed: int) -> Outgoing:
    return payload_of(LAYOUT, seed=seed)


def coming(spool: Spool, outgoing: Outgoing, chunks: int | None = None) -> Incoming:
    """Let a payload come, or so many chunks of it."""
    name = f"{outgoing.digest.hex()}.update"
    incoming = Incoming(spool.folder / name, outgoing.shape, outgoing.digest, spool=spool)
    for chunk in list(outgoing.chunks(1, incoming.received))[:chunks] if not incoming.is_whole else ():
        incoming.take(decode(chunk))
    return incoming


def digest_of(vectors: tuple[Any, Any]) -> bytes:
    return Outgoing(*vectors).digest


def inodes(folder: Path) -> Iterator[int]:
    return (path.stat().st_ino for path in folder.iterdir())


def handles(folder: Path) -> int:
    """Count this process's open files in a folder."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{number}").startswith(f"{folder}/")
    return found


def test_a_file_serves_again_once_nobody_reads_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    first = coming(spool, payload(1))
    floats, ints = first.vectors()
    (inode,) = inodes(tmp_path)
    first.discard()
    second = coming(spool, payload(2), 1)
    assert os.stat(f"{second.path}.partial").st_ino != inode
    kept = floats[5:9].reshape(2, 2)
    del floats, ints
    gc.collect()
    third = coming(spool, payload(3), 1)
    assert os.stat(f"{third.path}.partial").st_ino != inode, "a part of it is read yet"
    del kept
    fourth = coming(spool, payload(4))
    assert fourth.path.stat().st_ino == inode
    assert digest_of(fourth.vectors()) == payload(4).digest and fourth.path.stat().st_size == fourth.shape.num_bytes


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["come", "read", "let go", "discard"])), max_size=40))
def test_what_is_read_never_changes(steps: list[tuple[int, str]]) -> None:
    """Whoever comes, is read, and goes, in whatever order: what a reader holds stays as it was."""
    sent = [Outgoing(np.full(3, number, np.int32), np.zeros(0, np.int64)) for number in range(6)]
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder))
        there: dict[int, Incoming] = {}
        held: dict[int, list[Any]] = {}
        for number, step in steps:
            if step == "come" and number not in there:
                there[number] = coming(spool, sent[number])
            elif step == "read" and number in there:
                held.setdefault(number, []).append(there[number].vectors()[0])
            elif step == "discard" and number in there:
                there.pop(number).discard()
            elif step == "let go":
                held.pop(number, None)
            assert all((one == value).all() for value, own in held.items() for one in own)
            assert all(digest_of(one.vectors()) == one.digest for one in there.values())
        for one in there.values():
            one.discard()
        held.clear()
        assert len(list(Path(folder).iterdir())) <= KEPT


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_a_forked_process_reads_never_changes(tmp_path: Path) -> None:
    spool, (heard, say) = Spool(tmp_path), os.pipe()
    first = coming(spool, payload(1))
    vectors = first.vectors()
    child = os.fork()
    if not child:
        os.read(heard, 1)
        os._exit(0 if digest_of(vectors) == payload(1).digest else 1)
    first.discard()
    del vectors
    later = coming(spool, payload(2))
    os.write(say, b"x")
    assert os.waitpid(child, 0)[1] == 0
    later.discard()
    (spare,) = inodes(tmp_path)
    assert coming(spool, payload(3)).path.stat().st_ino == spare, "nobody has forked since"
    os.close(heard)
    os.close(say)


def test_a_folder_that_was_made_anew_is_another_process_s(tmp_path: Path) -> None:
    place = tmp_path / "updates"
    early = Spool(place)
    mine = coming(early, payload(1))
    shutil.rmtree(place)
    late = Spool(place)
    theirs = coming(late, payload(1))
    reading = theirs.vectors()
    mine.discard()
    assert coming(early, payload(2)).is_whole
    assert digest_of(reading) == payload(1).digest


def test_a_full_disk_costs_no_handle_and_takes_the_spare_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, write = Spool(tmp_path), os.pwrite
    for one in [coming(spool, payload(seed)) for seed in range(KEPT)]:
        one.discard()

    def full(file: int, data: Any, at: int) -> int:
        if len(data) < 100:
            return write(file, data, at)
        raise OSError(errno.ENOSPC, "No space left on device")

    before = handles(tmp_path)
    monkeypatch.setattr(os, "pwrite", full)
    for seed in range(10, 12):
        outgoing = payload(seed)
        incoming = Incoming(tmp_path / f"{seed}", outgoing.shape, outgoing.digest, spool=spool)
        with pytest.raises(OSError, match="No space"):
            incoming.take(decode(next(outgoing.chunks(1, 0))))
        incoming.close()
    assert handles(tmp_path) == before and not list(tmp_path.glob("*.spare"))
    monkeypatch.setattr(os, "pwrite", write)
    assert coming(spool, payload(10)).is_whole


def test_a_file_that_cannot_be_read_costs_no_handle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path)
    begun = coming(spool, payload(1), 1)
    begun.close()
    before = handles(tmp_path)

    def broken(*asked: Any) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", broken)
    for _ in range(3):
        with pytest.raises(OSError, match="Input/output"):
            coming(spool, payload(1))
    assert handles(tmp_path) == before


def test_so_many_stay_and_no_more(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    all_of = [coming(spool, payload(seed)) for seed in range(KEPT + 3)]
    for one in all_of:
        one.discard()
    assert len(list(tmp_path.iterdir())) == KEPT


def test_what_another_process_began_or_left_never_serves(tmp_path: Path) -> None:
    before = Spool(tmp_path)
    theirs, begun = coming(before, payload(1)), coming(before, payload(2), 1)
    coming(before, payload(3)).discard()
    assert len(list(tmp_path.iterdir())) == 3
    reading = theirs.vectors()
    spool = Spool(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2, "a spare file of a process that is gone serves nobody"
    begun.close()
    for one in (payload(1), payload(2)):
        own = coming(spool, one)
        assert own.is_whole and digest_of(own.vectors()) == one.digest
        own.discard()
    assert not list(tmp_path.iterdir())
    coming(spool, payload(4))
    assert digest_of(reading) == payload(1).digest


@pytest.mark.parametrize("size", [600_000, 900_000, 300_000])
def test_what_came_into_a_spare_file_goes_on_in_another_process(size: int, tmp_path: Path) -> None:
    spool, outgoing = Spool(tmp_path), payload_of(layout(size))
    coming(spool, payload(1)).discard()
    (inode,) = inodes(tmp_path)
    first = coming(spool, outgoing, 1)
    assert list(inodes(tmp_path)) == [inode] and not first.is_whole
    first.close()
    second = Incoming(first.path, outgoing.shape, outgoing.digest, spool=Spool(tmp_path))
    assert second.received == CHUNK_BYTES
    for chunk in outgoing.chunks(1, second.received):
        second.take(decode(chunk))
    assert second.is_whole and digest_of(second.vectors()) == outgoing.digest


def test_at_the_end_nothing_is_left_that_nobody_needs(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    read, unread, needed = (coming(spool, payload(seed)) for seed in range(3))
    vectors = read.vectors()
    read.discard()
    unread.discard()
    spool.close()
    assert list(tmp_path.iterdir()) == [needed.path]
    assert digest_of(vectors) == read.digest
    del vectors
    needed.discard()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("is_spare", [False, True])
def test_what_was_all_there_as_its_process_died_need_not_come_again(is_spare: bool, tmp_path: Path) -> None:
    spool, outgoing = Spool(tmp_path), payload(1)
    if is_spare:
        coming(spool, payload_of(layout(900_000))).discard()
    dying = coming(spool, outgoing, 2)
    dying._finish_if_whole = lambda: None  # type: ignore[method-assign]
    for chunk in list(outgoing.chunks(1, dying.received)):
        dying.take(decode(chunk))
    dying.close()
    found = Incoming(dying.path, outgoing.shape, outgoing.digest, spool=Spool(tmp_path))
    assert found.is_whole and found.path.stat().st_size == outgoing.shape.num_bytes


def test_what_is_spoilt_comes_again_into_another_file(tmp_path: Path) -> None:
    """Somebody may read the one that was taken for whole."""
    spool = Spool(tmp_path)
    whole = coming(spool, payload(1))
    floats, _ = whole.vectors()
    seen = floats[0]
    with whole.path.open("r+b") as file:
        file.seek(1000)
        file.write(b"spoilt")
    again = coming(spool, payload(1))
    assert again.is_whole and digest_of(again.vectors()) == again.digest
    assert floats[0] == seen and digest_of((floats, again.vectors()[1])) != again.digest


def test_a_spare_file_that_somebody_deleted_is_not_missed(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    coming(spool, payload(1)).discard()
    for path in tmp_path.iterdir():
        path.unlink()
    assert coming(spool, payload(2)).is_whole
