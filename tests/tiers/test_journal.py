"""A journal reads back as it was written, from any prefix, and whatever is torn or changed is cut off and told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiers.journal import (
    MAGIC,
    Barrier,
    Closed,
    Entry,
    GaveUp,
    Head,
    Record,
    Stopped,
    Told,
    frame,
    join,
    read,
)
from tiers.messages import Arrived, Begin, Close, Lost, Opening, Share, Shortfall, TimeUp, Update
from tiers.standing import Errand

OPENING = Opening("w", 3, 32, 8.0, 70, "float32")
AT_WORK = {"m": Errand(3, 7, shortfalls=(Shortfall(1, 2, 7),)), "n": Errand(2, 1, dismissed=True)}
HEAD = Head(5, "abc", ("w/far",), {"w": AT_WORK}, {"w": {3: OPENING}})
UPDATE = Update("w", 5, (Share("a", 3), Share("b", 40)), 24, 7)
RECORDS: list[tuple[Record, bytes]] = [
    (HEAD, b""),
    (Barrier(1), b""),
    (Told("w", Begin(5, 2, {"a": 0.1, "b": 1e-9}, (Shortfall(4, 1, 2),))), b""),
    (Told("w", Arrived(UPDATE), ((".floats", "int32", (4,)), (".ints", "int64", (1, 1)))), bytes(range(24))),
    (Told("w", Arrived(Update("w", 5, (Share("inner", 9),)))), b""),
    (Told("w", Lost(5, {"c": "power cut"}, excused=True)), b""),
    (Told("w", TimeUp(5, 0.1 + 0.2)), b""),
    (Closed("w", Close(5, ("a", "b"), {"c": "power cut"}, 43, "all are in", {"d": "late by 1"})), b""),
    (GaveUp("w/inner", "nobody is left"), b""),
    (Stopped("w/inner", failed=True), b""),
]


def written(records: list[tuple[Record, bytes]] = RECORDS, magic: bytes = MAGIC) -> bytes:
    return magic + b"".join(bytes(part) for record, payload in records for part in frame(record, [memoryview(payload)]))


def plain(entries: tuple[Entry, ...]) -> list[tuple[Record, bytes]]:
    return [(entry.record, bytes(entry.payload)) for entry in entries]


def test_every_record_comes_back() -> None:
    found = read(written())
    assert plain(found.entries) == RECORDS and found.torn is None and found.num_bytes == len(written())


def test_every_prefix_gives_the_records_that_are_whole_in_it() -> None:
    data, ends = written(), [len(written(RECORDS[:number])) for number in range(len(RECORDS) + 1)]
    for length in range(len(data) + 1):
        found = read(data[:length])
        whole = sum(end <= length for end in ends[1:])
        assert plain(found.entries) == RECORDS[:whole]
        if length >= len(MAGIC):
            assert found.num_bytes == ends[whole]
        assert (found.torn is None) == (length in (0, *ends)), f"{length}: {found.torn}"


@given(st.integers(len(MAGIC), len(written()) - 1), st.integers(0, 7))
def test_a_flipped_bit_ends_the_journal_before_its_record(place: int, bit: int) -> None:
    data = bytearray(written())
    data[place] ^= 1 << bit
    found = read(bytes(data))
    whole = sum(len(written(RECORDS[:number])) <= place for number in range(1, len(RECORDS) + 1))
    assert plain(found.entries) == RECORDS[:whole] and found.torn


def test_what_is_no_journal_is_refused() -> None:
    with pytest.raises(ValueError, match="does not begin with"):
        read(b"hierfl journal 2\n" + written(magic=b""))


def test_the_newest_writer_says_how_far_those_before_it_count() -> None:
    first = written(RECORDS[:4])
    torn = first + written(RECORDS[4:5], b"")[:-3]
    second = written([(Barrier(2, {1: len(first)}), b""), RECORDS[5]])
    zombie = first + written(RECORDS[6:7], b"")
    for old in (torn, zombie, first):
        found = join({1: old, 2: second})
        assert found.head == HEAD and not found.torn
        assert plain(found.entries) == [*RECORDS[:4], (Barrier(2, {1: len(first)}), b""), RECORDS[5]]
        assert found.before == {1: len(first), 2: len(second)}
    third = written([(Barrier(4, found.before), b"")])
    assert plain(join({1: zombie, 2: second, 3: b"", 4: third}).entries)[:-1] == plain(found.entries)


def test_a_writer_that_ended_before_its_barrier_does_not_count() -> None:
    first = written(RECORDS[:4])
    assert join({1: first, 2: MAGIC[:5]}).entries == join({1: first}).entries
    assert join({1: first, 2: written([])}).before == {1: len(first)}
    assert join({}).head is None and join({1: b""}).head is None


def test_bytes_of_an_earlier_writer_that_are_gone_are_told() -> None:
    first = written(RECORDS[:4])
    second = written([(Barrier(2, {1: len(first)}), b""), RECORDS[5]])
    found = join({1: written(RECORDS[:3]), 2: second})
    assert plain(found.entries) == RECORDS[:3] and "are lost" in found.torn[0]
    assert found.before == {1: len(written(RECORDS[:3]))}
