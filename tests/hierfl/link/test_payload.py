"""Payloads in chunks: protobuf's bytes, checked, resumed, and refused before they are stored."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_members import forged, layout, model, payload_of, update

from hierfl.errors import LinkError
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.chunks import CHUNK_BYTES, check_of, decode, encode, hash_of
from hierfl.link.payload import Incoming, Outgoing, Shape, read


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.binary(min_size=1, max_size=300))
def test_a_chunk_is_what_protobuf_writes_and_reads(transfer: int, offset: int, data: bytes) -> None:
    check = check_of(b"a digest", offset, hash_of(data))
    ours = encode(transfer, offset, check, memoryview(data))
    # proto3 leaves out a zero; a chunk writes all of its fields
    theirs = wire.Chunk(transfer=transfer, offset=offset, check=check, data=data)
    assert wire.Chunk.FromString(ours) == theirs
    assert ours == theirs.SerializeToString(deterministic=True) or not (transfer and offset)
    found = decode(ours)
    assert (found.transfer, found.offset, found.check, bytes(found.data)) == (transfer, offset, check, data)


@given(st.binary(max_size=80))
def test_other_bytes_are_no_chunk(content: bytes) -> None:
    with pytest.raises(LinkError):
        decode(content)


def test_a_chunk_of_a_mib_is_read_and_one_byte_more_is_not() -> None:
    data = bytes(CHUNK_BYTES)
    whole = encode(1, 0, bytes(32), memoryview(data))
    assert decode(whole).data.nbytes == CHUNK_BYTES
    with pytest.raises(LinkError, match="at most"):
        decode(whole + b"x")


@pytest.mark.parametrize("size", [1, 5, CHUNK_BYTES // 4, CHUNK_BYTES // 4 + 1, 700_001])
def test_a_payload_comes_as_it_was(size: int, tmp_path: Path) -> None:
    sent = model(layout(size))
    outgoing = Outgoing(sent.floats, sent.ints)
    incoming = Incoming(tmp_path / "model", outgoing.shape, outgoing.digest)
    for chunk in outgoing.chunks(7, 0):
        incoming.take(decode(chunk))
    assert incoming.is_whole
    floats, ints = read(tmp_path / "model", outgoing.shape)
    assert np.array_equal(floats, sent.floats) and np.array_equal(ints, sent.ints)


def test_a_payload_goes_on_where_another_process_had_it(tmp_path: Path) -> None:
    outgoing = payload_of(layout(900_000))
    chunks = [decode(chunk) for chunk in outgoing.chunks(1, 0)]
    first = Incoming(tmp_path / "update", outgoing.shape, outgoing.digest)
    for chunk in chunks[:2]:
        first.take(chunk)
    first.close()
    with (tmp_path / "update.partial").open("ab") as file:
        file.write(b"the beginning of a chunk that was cut")
    second = Incoming(tmp_path / "update", outgoing.shape, outgoing.digest)
    assert second.received == 2 * CHUNK_BYTES
    for message in outgoing.chunks(1, second.received):
        second.take(decode(message))
    assert second.is_whole and Incoming(tmp_path / "update", outgoing.shape, outgoing.digest).is_whole


def test_a_file_that_has_nothing_to_lose_is_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ext4 writes a file to the disk as it is closed if it was ever cut to nothing, be it empty."""
    cuts: list[int] = []
    monkeypatch.setattr(os, "ftruncate", lambda file, size: cuts.append(size))
    outgoing = payload_of(layout(600_000))
    first, *others = (decode(chunk) for chunk in outgoing.chunks(1, 0))
    begun = Incoming(tmp_path / "update", outgoing.shape, outgoing.digest)
    begun.take(first)
    begun.close()
    again = Incoming(tmp_path / "update", outgoing.shape, outgoing.digest)
    for chunk in others:
        again.take(chunk)
    assert again.is_whole and 0 not in cuts


def test_a_damaged_chunk_a_wrong_one_and_one_over_the_clip_are_as_if_they_had_not_come(tmp_path: Path) -> None:
    outgoing = payload_of(layout(600_000))
    incoming = Incoming(tmp_path / "update", outgoing.shape, outgoing.digest, limit=2**20)
    first, second, *_ = outgoing.chunks(1, 0)
    with pytest.raises(LinkError, match="damaged"):
        incoming.take(decode(first[:-1] + bytes([first[-1] ^ 1])))
    with pytest.raises(LinkError, match="come next"):
        incoming.take(decode(second))
    large = np.frombuffer(bytes(decode(first).data), np.int32).copy()
    large[5] = 2**20 + 1
    data = large.tobytes()
    with pytest.raises(LinkError, match="element 5 of an update is 1048577; its round allows 1048576"):
        incoming.take(decode(encode(1, 0, check_of(outgoing.digest, 0, hash_of(data)), memoryview(data))))
    assert incoming.received == 0
    incoming.take(decode(first))
    assert incoming.received == CHUNK_BYTES


@pytest.mark.parametrize("value", [2**20, -(2**20)])
def test_a_number_at_the_limit_is_taken_and_one_beyond_it_is_not(value: int, tmp_path: Path) -> None:
    for limit in (2**20, 2**20 - 1):
        outgoing = Outgoing(np.array([0, value, 0], np.int32), np.zeros(0, np.int64))
        incoming = Incoming(tmp_path / f"{limit}", outgoing.shape, outgoing.digest, limit)
        with contextlib.nullcontext() if limit == 2**20 else pytest.raises(LinkError, match=f"element 1 .*is {value};"):
            incoming.take(decode(next(outgoing.chunks(1, 0))))
        assert incoming.is_whole == (limit == 2**20)
        incoming.close()


def test_what_is_closed_takes_no_more_into_whatever_file_has_its_handle_now(tmp_path: Path) -> None:
    outgoing = payload_of(layout(1000))
    incoming = Incoming(tmp_path / "update", outgoing.shape, outgoing.digest)
    incoming.close()
    with (tmp_path / "other").open("wb"), pytest.raises(LinkError, match="come next"):
        incoming.take(decode(next(outgoing.chunks(1, 0))))
    assert (tmp_path / "other").stat().st_size == 0


def test_a_disk_that_takes_part_of_a_chunk_is_given_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outgoing, write = payload_of(layout(1000)), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: write(file, data[:1500], at))
    incoming = Incoming(tmp_path / "update", outgoing.shape, outgoing.digest)
    incoming.take(decode(next(outgoing.chunks(1, 0))))
    assert Outgoing(*read(tmp_path / "update", outgoing.shape)).digest == outgoing.digest


def test_chunks_of_another_payload_or_place_are_damaged(tmp_path: Path) -> None:
    announced, other = payload_of(layout(600_000)), payload_of(layout(600_000), seed=2)
    incoming = Incoming(tmp_path / "update", announced.shape, announced.digest)
    first, second, *_ = (decode(chunk) for chunk in announced.chunks(1, 0))
    for chunk in (decode(next(other.chunks(1, 0))), replace(second, offset=0), replace(first, check=second.check)):
        with pytest.raises(LinkError, match="damaged"):
            incoming.take(chunk)
    assert incoming.received == 0 and not (tmp_path / "update").exists()
    for message in announced.chunks(1, 0):
        incoming.take(decode(message))
    assert incoming.is_whole


def test_what_another_sends_than_announced_it_is_hashed(tmp_path: Path) -> None:
    """A member that hands others a vector under a digest that is not its own: they are not deceived, each by itself."""
    announced, other = payload_of(layout(10)), payload_of(layout(10), seed=2)
    incoming = Incoming(tmp_path / "update", announced.shape, announced.digest)
    with pytest.raises(LinkError, match="not the one that was announced"):
        incoming.take(forged(announced.digest, other, 1)[0])
    assert incoming.received == 0 and not (tmp_path / "update").exists()
    incoming.take(decode(next(announced.chunks(1, 0))))
    assert incoming.is_whole


def test_what_lay_in_a_file_is_hashed_whoever_sends_the_rest(tmp_path: Path) -> None:
    outgoing = payload_of(layout(600_000))
    chunks = [decode(chunk) for chunk in outgoing.chunks(1, 0)]
    first = Incoming(tmp_path / "update", outgoing.shape, outgoing.digest)
    for chunk in chunks[:2]:
        first.take(chunk)
    first.close()
    with (tmp_path / "update.partial").open("r+b") as file:
        file.seek(CHUNK_BYTES + 5)
        file.write(b"spoilt")
    second = Incoming(tmp_path / "update", outgoing.shape, outgoing.digest)
    with pytest.raises(LinkError, match="not the one that was announced"):
        second.take(chunks[2])
    assert second.received == 0
    for chunk in chunks:
        second.take(chunk)
    assert second.is_whole


@pytest.mark.parametrize("num_chunks", [2, 4])
def test_what_an_earlier_process_took_is_held_against_the_limit_of_now(num_chunks: int, tmp_path: Path) -> None:
    outgoing = payload_of(layout(900_000))
    chunks = [decode(chunk) for chunk in outgoing.chunks(1, 0)]
    first = Incoming(tmp_path / "update", outgoing.shape, outgoing.digest, limit=2**20)
    for chunk in chunks[:num_chunks]:
        first.take(chunk)
    first.close()
    assert first.is_whole is (num_chunks == len(chunks))
    again = Incoming(tmp_path / "update", outgoing.shape, outgoing.digest, limit=2**20)
    assert again.received == min(num_chunks * CHUNK_BYTES, outgoing.shape.num_bytes)
    assert again.is_whole is first.is_whole
    again.close()
    stricter = Incoming(tmp_path / "update", outgoing.shape, outgoing.digest, limit=2**19)
    assert stricter.received == 0
    with pytest.raises(LinkError, match="its round allows 524288 at most"):
        stricter.take(chunks[0])


def test_a_spoilt_file_of_whole_chunks_comes_again(tmp_path: Path) -> None:
    floats, ints = update(layout(CHUNK_BYTES // 2))
    outgoing = Outgoing(floats, ints[:0])
    (tmp_path / "update").write_bytes(bytes(outgoing.shape.num_bytes))
    incoming = Incoming(tmp_path / "update", outgoing.shape, outgoing.digest, limit=2**20)
    assert incoming.received == 0 and not incoming.is_whole
    for chunk in outgoing.chunks(1, 0):
        incoming.take(decode(chunk))
    assert incoming.is_whole


@pytest.mark.parametrize("limit", [None, 2**20])
def test_a_file_of_the_right_size_is_not_trusted_without_its_digest(limit: int | None, tmp_path: Path) -> None:
    """A machine died: the name and the length were on its disk, and not all of the bytes."""
    outgoing = payload_of(layout(900_000))
    sound = b"".join(bytes(decode(chunk).data) for chunk in outgoing.chunks(7, 0))
    (tmp_path / "model").write_bytes(sound[:-4096] + bytes(4096))
    incoming = Incoming(tmp_path / "model", outgoing.shape, outgoing.digest, limit)
    assert not incoming.is_whole and incoming.received == 0
    for chunk in outgoing.chunks(7, 0):
        incoming.take(decode(chunk))
    assert incoming.is_whole and (tmp_path / "model").read_bytes() == sound


def test_a_model_whose_file_was_cut_short_comes_again(tmp_path: Path) -> None:
    """A machine died: the name was on its disk, and not all of the bytes."""
    outgoing = payload_of(layout(900_000))
    (tmp_path / "model").write_bytes(b"".join(bytes(decode(chunk).data) for chunk in outgoing.chunks(7, 0))[:-1])
    incoming = Incoming(tmp_path / "model", outgoing.shape, outgoing.digest)
    assert not incoming.is_whole and 0 < incoming.received < outgoing.shape.num_bytes
    for chunk in outgoing.chunks(7, incoming.received):
        incoming.take(decode(chunk))
    assert incoming.is_whole


def test_only_numbers_of_known_types_travel() -> None:
    with pytest.raises(LinkError, match="allowed: float32"):
        Shape(1, 1, "object")


def test_an_empty_payload_is_whole_at_once(tmp_path: Path) -> None:
    outgoing = Outgoing(np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert Incoming(tmp_path / "nothing", outgoing.shape, outgoing.digest).is_whole
    assert [part.size for part in read(tmp_path / "nothing", outgoing.shape)] == [0, 0]
