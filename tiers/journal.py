"""The journal: what the hubs of a run were told since its newest checkpoint, as bytes that one only appends to.

    MAGIC  frame  frame ...        frame = size of the header (u32) | size of the payload (u64) | CRC-32 (u32)
                                           | header (JSON: the record) | payload (vectors, one after the other)

Machines are deterministic: who tells a new one the same in the same order has the old one's state, so that any prefix
of a journal is a state that the run was in. What a write that was cut short left at the end has no right CRC and is cut
off (Mohan et al. 1992, ARIES, calls such a log write-ahead; Pillai et al. 2014 list how files end when machines die).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from tiers.messages import Arrived, Begin, Close, Event, Lost, Opening, Share, Shortfall, TimeUp, Update
from tiers.standing import Errand

__all__ = [
    "MAGIC",
    "Barrier",
    "Closed",
    "Entry",
    "GaveUp",
    "Head",
    "Read",
    "Record",
    "Replaced",
    "Stopped",
    "Told",
    "answers",
    "frame",
    "read",
]

MAGIC = b"hierfl journal 1\n"

_SIZES = struct.Struct("<IQ")
_CRC = struct.Struct("<I")

Vector: TypeAlias = tuple[str, str, tuple[int, ...]]
"""What a part of a payload is called, its dtype and its shape."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first record: the journal goes on from the checkpoint of `rounds_done` rounds of the root.

    `settings`: a digest of all that the bits follow from. `running`: hubs whose rounds were under way at that time;
    their beginnings lie with the checkpoint, or nowhere. `errands`: who was at work when a hub was last idle, by hub
    and member; `openings`: those of their rounds.
    """

    rounds_done: int
    settings: str
    running: tuple[str, ...] = ()
    errands: Mapping[str, Mapping[str, Errand]] = field(default_factory=dict)
    openings: Mapping[str, Mapping[int, Opening]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Barrier:
    """A writer of this epoch has read all that stands before, and goes on; what an earlier one writes counts no more.

    `before`: how many bytes each earlier writer had written, by epoch, of those that count.
    """

    epoch: int
    before: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Told:
    """A hub is told this. `vectors`: what lies in the payload, of an update and of what its sites keep; of the model
    with which a hub begins, where nobody is there to give it once more.
    """

    hub: str
    event: Event
    vectors: tuple[Vector, ...] = ()


@dataclass(frozen=True, slots=True)
class Stopped:
    """A hub's rounds were ended, and all that it remembered is void; `failed`: since it, or a hub above, gave up."""

    hub: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Closed:
    """A hub has closed a round: the list of who counts is settled."""

    hub: str
    close: Close


@dataclass(frozen=True, slots=True)
class GaveUp:
    """A hub could not close its round, for a reason."""

    hub: str
    reason: str


@dataclass(frozen=True, slots=True)
class Replaced:
    """A replica of what serves a hub, counted from 0, was replaced: why, in a word and in more. Nothing follows from
    it; it is there for those who read the journal.
    """

    hub: str
    replica: int
    cause: str
    reason: str


Record: TypeAlias = Head | Barrier | Told | Stopped | Closed | GaveUp | Replaced


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as it was read, and its payload, which is a part of what was read."""

    record: Record
    payload: memoryview


@dataclass(frozen=True, slots=True)
class Read:
    """What a journal holds: its whole entries, how many bytes they take, and what is wrong behind them, if anything."""

    entries: tuple[Entry, ...]
    num_bytes: int
    torn: str | None = None


def answers(records: Iterable[Record]) -> set[tuple[int, str]]:
    """List whose answers for which rounds a hub was told: of updates, and of members that will send none."""
    found: set[tuple[int, str]] = set()
    for record in records:
        match record:
            case Told(_, Arrived(update)):
                found.update((update.round_number, share.member) for share in update.shares)
            case Told(_, Lost(round_number, members)):
                found.update((round_number, name) for name in members)
    return found


def frame(record: Record, payload: Sequence[memoryview] = ()) -> list[bytes | memoryview]:
    """Give the buffers that append a record with its payload, in order; nothing is copied."""
    header = json.dumps(_written(record), separators=(",", ":")).encode()
    parts = [part.cast("B") for part in payload if part.nbytes]
    sizes = _SIZES.pack(len(header), sum(part.nbytes for part in parts))
    crc = zlib.crc32(header, zlib.crc32(sizes))
    for part in parts:
        crc = zlib.crc32(part, crc)
    return [sizes + _CRC.pack(crc) + header, *parts]


def read(data: bytes | memoryview) -> Read:
    """Read a journal as far as it is whole. Errors: ValueError if it is none, or of another version."""
    view = memoryview(data).cast("B")
    if bytes(view[: len(MAGIC)]) != MAGIC:
        if MAGIC.startswith(bytes(view)):
            return Read((), 0, "its first bytes are not all there" if view.nbytes else None)
        raise ValueError(f"it does not begin with {MAGIC!r}")
    entries: list[Entry] = []
    at = len(MAGIC)
    for entry, end in _frames(view, at):
        if isinstance(entry, str):
            return Read(tuple(entries), at, f"{entry} at byte {at} of {view.nbytes}")
        entries.append(entry)
        at = end
    return Read(tuple(entries), at)


@dataclass(frozen=True, slots=True)
class Joined:
    """What several writers of one journal wrote, one after the other: entries that count, by whom how many bytes.

    `torn`: what was cut off, and where.
    """

    head: Head | None = None
    entries: tuple[Entry, ...] = ()
    before: Mapping[int, int] = field(default_factory=dict)
    torn: tuple[str, ...] = ()


def join(streams: Mapping[int, bytes | memoryview]) -> Joined:
    """Put together what each writer wrote, by epoch: the newest says how far it had read those before it.

    What an earlier writer has added since then does not count. Errors: ValueError as of `read`.
    """
    torn: list[str] = []
    for epoch in sorted(streams, reverse=True):
        newest = read(streams[epoch])
        if newest.torn:
            torn.append(f"of writer {epoch}: {newest.torn}")
        barrier = next((entry.record for entry in newest.entries if isinstance(entry.record, Barrier)), None)
        if barrier is None:
            continue  # it ended before it had said how far it had read
        entries: list[Entry] = []
        for earlier, num_bytes in sorted(barrier.before.items()):
            found = read(memoryview(streams.get(earlier, b"")).cast("B")[:num_bytes])
            entries += found.entries
            if found.num_bytes < num_bytes:
                torn.append(f"of writer {earlier}: {num_bytes - found.num_bytes} of {num_bytes} bytes are lost")
                head = next((entry.record for entry in entries if isinstance(entry.record, Head)), None)
                return Joined(head, tuple(entries), {**_until(barrier, earlier), earlier: found.num_bytes}, tuple(torn))
        entries += newest.entries
        head = next((entry.record for entry in entries if isinstance(entry.record, Head)), None)
        before = {**barrier.before, epoch: newest.num_bytes}
        return Joined(head, tuple(entries), before, tuple(torn)) if head is not None else Joined(torn=tuple(torn))
    return Joined(torn=tuple(torn))


def _until(barrier: Barrier, epoch: int) -> dict[int, int]:
    return {earlier: size for earlier, size in barrier.before.items() if earlier < epoch}


def _frames(view: memoryview, at: int) -> Iterator[tuple[Entry | str, int]]:
    """Yield each frame's entry and its end, or what is wrong with it."""
    while at < view.nbytes:
        start = at + _SIZES.size + _CRC.size
        if start > view.nbytes:
            yield "a frame is cut short", at
            return
        header_bytes, payload_bytes = _SIZES.unpack(view[at : at + _SIZES.size])
        [crc] = _CRC.unpack(view[at + _SIZES.size : start])
        middle, end = start + header_bytes, start + header_bytes + payload_bytes
        if end > view.nbytes:
            yield "a record is cut short", at
            return
        if zlib.crc32(view[start:end], zlib.crc32(view[at : at + _SIZES.size])) != crc:
            yield "a record has not the checksum that was written with it", at
            return
        try:
            record = _read(json.loads(bytes(view[start:middle])))
        except (ValueError, KeyError, TypeError) as error:
            yield f"a record cannot be understood ({error!r})", at
            return
        yield Entry(record, view[middle:end]), end
        at = end


_EVENTS: dict[str, type[Event]] = {"begin": Begin, "arrived": Arrived, "lost": Lost, "time": TimeUp}
_WORDS = {cls: word for word, cls in _EVENTS.items()}


def _written(record: Record) -> dict[str, Any]:
    """Give a record as JSON has it."""
    match record:
        case Told():
            told = {"is": "told", "hub": record.hub, "what": _WORDS[type(record.event)], "event": asdict(record.event)}
            return {**told, "vectors": record.vectors} if record.vectors else told
        case _:
            return {"is": type(record).__name__.lower(), **asdict(record)}


def _read(said: dict[str, Any]) -> Record:
    """Make a record of what JSON has. Errors: KeyError, TypeError, ValueError."""
    kind = said.pop("is")
    match kind:
        case "told":
            vectors = tuple((str(name), str(dtype), tuple(shape)) for name, dtype, shape in said.get("vectors", ()))
            return Told(said["hub"], _event(said["what"], said["event"]), vectors)
        case "head":
            errands = {
                hub: {name: _errand(one) for name, one in members.items()} for hub, members in said["errands"].items()
            }
            openings = {
                hub: {int(number): Opening(**one) for number, one in found.items()}
                for hub, found in said["openings"].items()
            }
            return Head(said["rounds_done"], said["settings"], tuple(said["running"]), errands, openings)
        case "closed":
            close = said["close"]
            return Closed(said["hub"], Close(**{**close, "members": tuple(close["members"])}))
        case "barrier":
            return Barrier(said["epoch"], {int(epoch): int(size) for epoch, size in said["before"].items()})
        case "stopped":
            return Stopped(**said)
        case "gaveup":
            return GaveUp(**said)
        case "replaced":
            return Replaced(**said)
        case _:
            raise ValueError(f"a record of the kind {kind!r}")


def _event(word: str, said: dict[str, Any]) -> Event:
    """Make an event of what JSON has."""
    if word == "begin":
        return Begin(**{**said, "shortfalls": _shortfalls(said)})
    if word != "arrived":
        return _EVENTS[word](**said)
    shares = tuple(Share(**share) for share in said["update"]["shares"])
    return Arrived(Update(**{**said["update"], "shares": shares}))


def _errand(said: Mapping[str, Any]) -> Errand:
    """Read who is at work, and with what it was told."""
    return Errand(**{**said, "shortfalls": _shortfalls(said)})


def _shortfalls(said: Mapping[str, Any]) -> tuple[Shortfall, ...]:
    return tuple(Shortfall(**one) for one in said.get("shortfalls", ()))
