"""What hubs were told in rounds that are under way at a checkpoint, which takes it along: such a hub goes on with them.

A checkpoint of the root's round may find hubs at work for one that has closed without them. The journal begins anew
with it, and what their sites have sent would be lost. So it lies with the checkpoint, as the records of a journal:

    head                the journal's first record as it is at this checkpoint, and where each record that counts lies:
                        those of what hubs were told or did, and those that this process had read and not come to yet
    000017.records      records of one hub that came since the checkpoint before

What the checkpoint before it has already is not written once more, where the file system knows links. So a file is of
one hub and one checkpoint, however many sites sent something; it goes once the hub is idle, and nothing in it counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from hierfl import durable
from hierfl.errors import HierflError
from hierfl.runtime.driver import Handle
from hierfl.runtime.lines import Line, whole
from tiers.carrying import going_on
from tiers.journal import MAGIC, Closed, Entry, Head, Record, Told, frame, read
from tiers.messages import Begin

__all__ = ["Before", "UnderWay", "Unreadable", "carried"]

HEAD = "head"

Place = tuple[str, int]
"""A file, and which of its records."""


class _Key(NamedTuple):
    """Tells a record from all others that a process marks, in order; one beginning with its model from that without."""

    is_left: bool
    number: int
    has_model: bool = False


@dataclass(frozen=True, slots=True)
class Before:
    """What a checkpoint has of rounds under way: what hubs were told in them, and what a journal had that was left."""

    head: Head
    told: tuple[Entry, ...] = ()
    left: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What a checkpoint has of rounds under way cannot be read; a journal that goes on from it is of no use."""

    reason: str


class UnderWay:
    """The lines of every hub since it was last idle. `get`: fetches a vector."""

    def __init__(self, get: Callable[[Handle], Any]) -> None:
        self._get = get
        self._lines: dict[str, list[tuple[int, Line]]] = {}
        self._num_lines = 0
        self._head: Head | None = None
        self._marked: dict[_Key, Line] = {}
        self._num_files = 0
        self._written: dict[_Key, Place] = {}
        self._saved: tuple[Path, Mapping[_Key, Place]] | None = None

    def add(self, path: str, line: Line) -> None:
        """A hub was told something, or has closed a round."""
        bare = replace(line, kept=({}, ()))  # the checkpoint has what sites keep
        self._lines.setdefault(path, []).append((self._num_lines, bare))
        self._num_lines += 1

    def idle(self, path: str, num_left: int) -> None:
        """A hub has ended its rounds, and remembers all but the last so many things that it was told."""
        told = [one for one in self._lines.pop(path, []) if isinstance(one[1].record, Told)]
        if num_left:
            self._lines[path] = told[-num_left:]

    def drop(self, paths: Iterable[str]) -> None:
        """What these hubs were told is void."""
        for path in paths:
            self._lines.pop(path, None)

    def mark(self, head: Head, running: Mapping[str, Handle], left: Iterable[tuple[int, Entry]] = ()) -> None:
        """Note how things are between two rounds of the root. `running`: hubs whose rounds are under way, and models;
        `left`: what was told before and is to be told again yet, each with its place. A hub of which no beginning is
        known (no journal is kept, or it is to be told that yet) cannot go on.
        """
        begun = {path: next(filter(_begins, self._of(path)), None) for path in running}
        asked_in = {path: line.arguments[1].round_number for path, line in begun.items() if line is not None}
        told = {path: [line.record for line in self._of(path)] for path in asked_in}
        follows = going_on(told, asked_in, head.errands)
        lines = ((path, *one) for path in follows for one in self._lines[path])
        marked = {
            _key(number, bare): bare
            for path, number, line in lines
            for bare in [_bare(line, None if follows[path] else running[path])]
        }
        marked |= {_Key(True, at): Line(entry.record, payload=entry.payload) for at, entry in left}
        self._head, self._marked = head, dict(sorted(marked.items(), key=lambda one: one[0]))

    @property
    def begun(self) -> set[str]:
        """List the hubs of which a beginning was marked."""
        records = (line.record for line in self._marked.values() if _begins(line))
        return {record.hub for record in records if isinstance(record, Told)}

    def write(self, folder: Path) -> None:
        """Write what was under way at the last mark, if anything was. Errors: OSError; HierflError for a vector that is
        no longer there, and nothing is left of it.
        """
        self._written = {}
        if not self._marked or self._head is None:
            return
        folder.mkdir()
        try:
            self._write(folder, self._head)
        except HierflError:
            shutil.rmtree(folder, ignore_errors=True)
            self._marked = {}
            raise

    def _write(self, folder: Path, head: Head) -> None:
        """Link what the checkpoint before has, write what is new, and say in what order it counts."""
        places = self._linked(folder)
        new: dict[str, dict[_Key, Line]] = {}
        for key, line in self._marked.items():
            if key not in places:
                new.setdefault("" if key.is_left else _hub(line.record), {})[key] = line
        for lines in new.values():
            name, self._num_files = f"{self._num_files:06d}.records", self._num_files + 1
            durable.write(folder / name, self._frames(lines.values()))
            places |= {key: (name, at) for at, key in enumerate(lines)}
        self._written = {key: places[key] for key in self._marked}
        told, left = ([place for key, place in self._written.items() if key.is_left is one] for one in (False, True))
        index = json.dumps([told, left]).encode()
        durable.write(folder / HEAD, [MAGIC, *frame(head, [memoryview(index)])])
        durable.flush(folder)

    def _linked(self, folder: Path) -> dict[_Key, Place]:
        """Link the files of the checkpoint before in which something counts yet; give what is in them."""
        if self._saved is None:
            return {}
        before, places = self._saved
        for name in {places[key][0] for key in self._marked.keys() & places.keys()}:
            with contextlib.suppress(OSError):  # it is not there any more, or links are not known here
                os.link(before / name, folder / name)
        return {key: place for key, place in places.items() if (folder / place[0]).exists()}

    def saved(self, folder: Path) -> None:
        """What was written is part of a checkpoint now, and lies in this folder."""
        self._saved = folder, self._written
        self._marked = {}

    def _of(self, path: str) -> list[Line]:
        return [line for _, line in self._lines.get(path, ())]

    def _frames(self, lines: Iterable[Line]) -> Iterator[bytes | memoryview]:
        """Give a file's buffers, the vectors of one line at a time."""
        yield MAGIC
        for line in lines:
            yield from frame(*self._whole(line))

    def _whole(self, line: Line) -> tuple[Record, Sequence[memoryview]]:
        """Give a record with its payload: all that has vectors has them beside it."""
        if line.payload is not None:
            return line.record, [line.payload]
        return whole(line, self._get) if len(line.arguments) > 1 else (line.record, ())


def carried(folder: Path) -> Before:
    """Read what a checkpoint has of rounds under way. Errors: OSError; ValueError if it is not whole."""
    head, *_ = _read(folder / HEAD)
    if not isinstance(head.record, Head):
        raise ValueError(f"{folder / HEAD} is no head of a journal")
    index: list[list[Place]] = json.loads(bytes(head.payload))
    files = {name: _read(folder / name) for name in dict.fromkeys(name for places in index for name, _ in places)}
    try:
        told, left = (tuple(files[name][at] for name, at in places) for places in index)
    except IndexError:
        raise ValueError(f"{folder}: a file in it ends before its end") from None
    return Before(head.record, told, left)


def _read(file: Path) -> tuple[Entry, ...]:
    """Read a file's records."""
    content = read(file.read_bytes())
    if content.torn is not None or not content.entries:
        raise ValueError(f"{file}: {content.torn or 'it is empty'}")
    return content.entries


def _hub(record: Record) -> str:
    assert isinstance(record, Told | Closed), "a hub is told nothing else while it is under way"
    return record.hub


def _key(number: int, line: Line) -> _Key:
    return _Key(False, number, _begins(line) and len(line.arguments) > 1)


def _begins(line: Line) -> bool:
    return isinstance(line.record, Told) and isinstance(line.record.event, Begin)


def _bare(line: Line, model: Handle) -> Line:
    """Leave of a beginning its event, and the model unless it will be given once more: the one that the hub was given,
    or that its members train from, where it was given none.
    """
    if not _begins(line):
        return line
    event, _, given, *_ = line.arguments
    return replace(line, arguments=(event,) if model is None else (event, model if given is None else given))
