"""What hubs were told in rounds that are under way at a checkpoint, which takes it along: such a hub goes on with them.

A checkpoint of the root's round may find hubs at work for one that has closed without them. The journal begins anew
with it, and what their sites have sent would be lost. So it lies with the checkpoint, as records in files of their own:

    head                        the journal's first record as it is at this checkpoint
    0003-00000017.record        one thing that a hub was told or did, by the process of this number, the oldest first
    0003-00000042.left          what this process had read in the journal, and has not come to yet

What the checkpoint before it has already is not written once more, where the file system knows links.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hierfl import durable
from hierfl.errors import HierflError
from hierfl.runtime.driver import Handle
from hierfl.runtime.lines import Line, whole
from tiers.carrying import going_on
from tiers.journal import MAGIC, Entry, Head, Record, Told, frame, read
from tiers.messages import Begin

__all__ = ["Before", "UnderWay", "carried"]

HEAD, LEFT = "head", ".left"


@dataclass(frozen=True, slots=True)
class Before:
    """What a checkpoint has of rounds under way: what hubs were told in them, and what a journal had that was left."""

    head: Head
    told: tuple[Entry, ...] = ()
    left: tuple[Entry, ...] = ()


class UnderWay:
    """The lines of every hub since it was last idle. `epoch`: the number of this process; `get`: fetches a vector."""

    def __init__(self, epoch: int, get: Callable[[Handle], Any]) -> None:
        self._epoch = epoch
        self._get = get
        self._lines: dict[str, list[tuple[int, Line]]] = {}
        self._num_lines = 0
        self._head: Head | None = None
        self._marked: dict[str, Line] = {}
        self._written: Path | None = None
        self._names: frozenset[str] = frozenset()

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
        named = (
            self._named(number, _bare(line, None if follows[path] else running[path])) for path, number, line in lines
        )
        self._head, self._marked = head, dict(sorted(named))
        for at, entry in left:
            self._marked[f"{self._epoch:04d}-{at:08d}{LEFT}"] = Line(entry.record, payload=entry.payload)

    @property
    def begun(self) -> set[str]:
        """List the hubs of which a beginning was marked."""
        records = (line.record for line in self._marked.values() if _begins(line))
        return {record.hub for record in records if isinstance(record, Told)}

    def write(self, folder: Path) -> None:
        """Write what was under way at the last mark, if anything was. Errors: OSError; HierflError for a vector that is
        no longer there, and nothing is left of it.
        """
        if not self._marked or self._head is None:
            return
        folder.mkdir()
        try:
            self._write(folder)
        except HierflError:
            shutil.rmtree(folder, ignore_errors=True)
            self._marked = {}
            raise

    def _write(self, folder: Path) -> None:
        assert self._head is not None
        durable.write(folder / HEAD, MAGIC, *frame(self._head))
        for name, line in self._marked.items():
            if name in self._names and self._written is not None:
                with contextlib.suppress(OSError):  # it is not there any more, or links are not known here
                    os.link(self._written / name, folder / name)
                    continue
            durable.write(folder / name, MAGIC, *frame(*self._whole(line)))

    def saved(self, folder: Path) -> None:
        """What was written is part of a checkpoint now, and lies in this folder."""
        self._written, self._names = folder, frozenset(self._marked)
        self._marked = {}

    def _named(self, number: int, line: Line) -> tuple[str, Line]:
        """Name the file of a line; a beginning with its model is another one than that without."""
        has_model = _begins(line) and len(line.arguments) > 1
        return f"{self._epoch:04d}-{number:08d}.{'begin' if has_model else 'record'}", line

    def _of(self, path: str) -> list[Line]:
        return [line for _, line in self._lines.get(path, ())]

    def _whole(self, line: Line) -> tuple[Record, Sequence[memoryview]]:
        """Give a record with its payload: all that has vectors has them beside it."""
        if line.payload is not None:
            return line.record, [line.payload]
        return whole(line, self._get) if len(line.arguments) > 1 else (line.record, ())


def carried(folder: Path) -> Before:
    """Read what a checkpoint has of rounds under way. Errors: OSError; ValueError if it is not whole."""
    told, left = list[Entry](), list[Entry]()
    for file in sorted(folder.glob("*-*")):
        (left if file.suffix == LEFT else told).extend(_read(file))
    [head] = _read(folder / HEAD)
    if not isinstance(head.record, Head):
        raise ValueError(f"{folder / HEAD} is no head of a journal")
    return Before(head.record, tuple(told), tuple(left))


def _read(file: Path) -> tuple[Entry, ...]:
    """Read a file's records."""
    content = read(file.read_bytes())
    if content.torn is not None or not content.entries:
        raise ValueError(f"{file}: {content.torn or 'it is empty'}")
    return content.entries


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
