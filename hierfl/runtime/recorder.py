"""Writes down what the hubs of a run are told, and tells a run that was cut off the same once more.

At a checkpoint a new segment begins: what came before is in the checkpoint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hierfl.config.schema import RunConfig
from hierfl.errors import HierflError, OutputError
from hierfl.journal import Lead, Writer
from hierfl.learning.state import ModelState
from hierfl.runtime.bits import settings_digest
from hierfl.runtime.driver import Driver, Handle
from hierfl.runtime.hubs import Kept
from hierfl.runtime.jobs import Memory, Order
from hierfl.runtime.keeper import Keeper
from hierfl.runtime.lines import Line, part_of, vectors_of, whole
from hierfl.runtime.underway import Before, UnderWay, Unreadable, carried
from tiers.journal import Barrier, Closed, Entry, GaveUp, Head, Replaced, Stopped, Told, join
from tiers.messages import Arrived, Begin, Close, Event, Lost, TimeUp, Update
from tiers.replay import Cue, Replay
from tiers.standing import Standing

__all__ = ["Recorder"]

FULL_BYTES = 1 << 30
"""From this size on a journal has grown enough: a checkpoint is smaller than what it would yet grow to."""

METHODS: dict[type, str] = {Begin: "begin", Arrived: "arrive", Lost: "lose", TimeUp: "elapse"}
"""How a hub's aggregator is told an event."""

Call = tuple[str, tuple[Any, ...]]
"""A method of an aggregator and its arguments."""


class Recorder:
    """The journal of a run that is under way; before `take_up`, and where none is kept, nothing is written down.

    `lead`: this process's hold on the run; `replay`: what an earlier process of the run left.
    """

    def __init__(self, config: RunConfig, driver: Driver, keeper: Keeper, lead: Lead, rounds_done: int) -> None:
        self.replay: Replay[tuple[Any, ...]] | None = None
        self.warnings: list[str] = []
        self._config = config
        self._tree = config.federation
        packs = {path: node.compression for path, node in config.hubs.items()}
        packs |= {path: node.compression for path, node in config.sites.items()}
        self._compressions = {path: one for path, one in packs.items() if one is not None}
        self._driver = driver
        self._keeper = keeper
        self._lead = lead
        self._writer: Writer | None = None
        self._head = Head(rounds_done, settings_digest(config))
        self._barrier = Barrier(0)
        self._begun: set[str] = set()
        self._num_found = 0
        self._under_way = UnderWay(driver.get)
        self._num_written = self._marked = self._num_bytes = 0
        self._has_complained = False
        self._lost = ""

    def take_up(self, under_way: Path | None = None) -> None:
        """Claim the run, and take up what earlier processes wrote; `under_way`: of the newest checkpoint, where hubs
        are to go on with their rounds. Errors: OutputError; those of `Lead.claim`.
        """
        store = self._lead.store
        if store is None:
            return
        try:
            if not self._lead.is_taken:
                join(store.read(self._head.rounds_done))  # what cannot be read is refused before
            self._lead.claim()
            self.resume(Writer(store, self._lead.epoch), store.read(self._head.rounds_done), self._before(under_way))
        except (OSError, ValueError) as error:
            raise OutputError(f"the journal cannot be read: {error}; delete it to go on without it") from error

    def _before(self, folder: Path | None) -> Before | Unreadable | None:
        """Read what a checkpoint has of rounds under way."""
        try:
            return carried(folder) if folder is not None else None
        except (OSError, ValueError) as error:
            said = "what was under way at the checkpoint cannot be read, and the journal is of no use without it"
            return Unreadable(f"{said}: {error}")

    def resume(
        self, writer: Writer, streams: Mapping[int, memoryview], before: Before | Unreadable | None = None
    ) -> None:
        """Take up what earlier processes wrote, by epoch, as far as it is of use; `before`: with the checkpoint.

        Errors: ValueError.
        """
        self._writer, self._barrier = writer, Barrier(writer.epoch)
        self._under_way = UnderWay(self._driver.get)
        found = join(streams)
        self.warnings += [f"the journal ends before its end: {torn}" for torn in found.torn]
        if isinstance(before, Unreadable):
            self.warnings.append(before.reason)
            return
        if found.head is not None and (before is None or found.head != before.head):
            before = Before(found.head)  # who wrote this journal did not go on with what the checkpoint has
        if before is None:
            return
        if before.head.settings != self._head.settings:
            said = "the settings have changed: what the journal has of the round under way is of no use"
            self.warnings.append(said)
            return
        hubs = self._tree.hubs
        chains = [path for path, hub in hubs.items() if hub.topology.sequential]
        entries, root = [*before.left, *found.entries], self._tree.root.name
        self.replay = Replay(before.head, entries, root=root, sequential=chains, carried=before.told)
        self._head, self._barrier = before.head, Barrier(self._barrier.epoch, found.before)
        self._begun |= self.replay.begun
        self._num_found = len(self.replay.members)

    def begin(self) -> None:
        """What is told from now on is written down; whoever took the run up before adds nothing that counts."""
        if self._lead.failure and self._writer is not None:
            self._writer.failure = self._lead.failure
        elif self._writer is not None:
            self._writer.begin(self._head, self._barrier)
            self._writer.flush()

    def story(self) -> list[tuple[str, str]]:
        """Say what was found in the journal: each with its level."""
        found = [("warning", said) for said in self.warnings]
        if self._num_found:
            counted = "site's update" if self._num_found == 1 else "sites' updates"
            said = f"{self._num_found} {counted} since round {self._head.rounds_done} are in the journal, and count"
            found.append(("info", said))
        return found

    @property
    def is_full(self) -> bool:
        """Whether it is time for a checkpoint, since the segment has grown."""
        return self._num_bytes >= FULL_BYTES

    def start(self, path: str) -> list[Call]:
        """A hub is made; give what it is told at once."""
        self._under_way.drop([path])
        return self._deliver(path, self.replay.start(path)) if self.replay is not None else []

    def tell(self, path: str, method: str, arguments: tuple[Any, ...]) -> list[Call]:
        """A hub is to be told something; give what it is told now, which is written down."""
        first = arguments[0]
        event: Event = Arrived(first) if isinstance(first, Update) else first
        if self.replay is None:
            line = Line(Told(path, event), arguments, self._kept(path, event))
            self._add(path, line)
            self._write(line)
            return [(method, arguments)]
        return self._deliver(path, self.replay.offer(path, event, arguments))

    def stop(self, path: str, stopped: Sequence[str], *, failed: bool) -> list[Call]:
        """A hub's rounds were ended; `stopped`: it and those below with fresh machines. Give what it is told now."""
        self._under_way.drop(stopped)
        known, cues = self.replay.stop(path) if self.replay is not None else (None, [])
        for hub in stopped if known is None else ():
            self._write(Line(Stopped(hub, failed)))
        return self._deliver(path, cues)

    def closed(self, path: str, close: Close) -> str | None:
        """A hub has closed a round; say how that departs from what was written before, if it does."""
        said = self.replay.departs(path, close) if self.replay is not None else None
        line = Line(Closed(path, close))
        self._add(path, line)
        self._write(line)
        return said

    def idle(self, path: str, num_left: int) -> None:
        """A hub has ended its rounds, and remembers all but the last so many things that it was told."""
        self._under_way.idle(path, num_left)

    def gave_up(self, path: str, reason: str) -> None:
        """A hub could not close its round; where it had been stopped for that, it is written down already."""
        if self.replay is None or not self.replay.stops(path):
            self._write(Line(GaveUp(path, reason)))

    def replaced(self, path: str, replica: int, cause: str, reason: str) -> None:
        """A replica of a hub was replaced."""
        self._write(Line(Replaced(path, replica, cause, reason)))

    def answered(self, path: str, round_number: int, member: str) -> bool:
        """Say whether a member's answer is in the journal, so that it need not be asked."""
        return self.replay is not None and self.replay.answered(path, round_number, member)

    def over(self, path: str, round_number: int, member: str) -> bool:
        """Say whether an inner hub's answer is there as it was, so that it need not do that round once more."""
        return self.replay is not None and self.replay.over(path, round_number, member)

    def under_way(self, path: str) -> tuple[Begin, Order, Handle] | None:
        """Give the rounds in which a hub was at the checkpoint, if it is to go on with them: what its parent had
        ordered, and the model.
        """
        entry = self.replay.under_way(path) if self.replay is not None else None
        if entry is None:
            return None
        assert isinstance(entry.record, Told) and isinstance(entry.record.event, Begin)
        above, _, name = path.rpartition("/")
        errand = self._head.errands[above][name]
        opening = self._head.openings[above][errand.round_number]
        objective = self._config.hubs[above].strategy.objective()
        asked, short = ((name, errand.weight),), {name: errand.shortfalls}
        order = Order(above, errand.round_number, asked, opening, objective, shortfalls=short)
        return entry.record.event, order, self._driver.put(ModelState(**vectors_of(entry)))

    def mark(self, rounds_done: int, kept: Mapping[str, Kept], running: Mapping[str, Handle]) -> None:
        """Note how the hubs stand between two rounds of the root: a checkpoint of this moment may follow.

        `running`: hubs whose rounds are under way, each with the model that its members train from.
        """
        standings = {path: one.memory.standing for path, one in kept.items()}
        errands = {path: dict(standing.errands) for path, standing in standings.items() if standing.errands}
        openings = {
            path: {
                number: kept[path].memory.openings[number] for number in {one.round_number for one in found.values()}
            }
            for path, found in errands.items()
        }
        self._head = Head(rounds_done, self._head.settings, tuple(running), errands, openings)
        self._under_way.mark(self._head, running, self.replay.left() if self.replay is not None else ())
        self._marked = self._num_written

    def carry(self, rounds_done: int, folder: Path) -> None:
        """Write into the checkpoint of these rounds what was under way then, if anything was, and if the last mark is
        of them: a stop may find a round that is marked and not committed. Errors: OSError.
        """
        if rounds_done != self._head.rounds_done:
            return
        hubs = ", ".join(sorted(self._under_way.begun))
        try:
            self._under_way.write(folder)
        except HierflError as error:
            said = f"what is under way at {hubs} cannot be kept with the checkpoint: {error}"
            self._lost = f"{said}; {_WITHOUT}, what was sent there since does not count"

    def rotate(self, rounds_done: int, folder: Path) -> None:
        """The checkpoint of these rounds is durable: begin a new segment, with what was told since the last mark, if
        that is of them.

        `folder`: where the checkpoint has what was under way.
        """
        if self._writer is None or rounds_done != self._head.rounds_done:
            return
        own = self._own_since_mark() if self._num_written > self._marked else []
        self._begun = self._under_way.begun
        self._under_way.saved(folder)
        self._num_written = self._marked = self._num_bytes = 0
        self._has_complained = False
        self._writer.begin(self._head)
        for entry in own:
            self._write(Line(entry.record, payload=entry.payload))

    def _own_since_mark(self) -> list[Entry]:
        """Read back what this process has written since the last mark."""
        assert self._writer is not None
        self._writer.flush()
        own = self._writer.written()
        return [entry for entry in own if not isinstance(entry.record, Head | Barrier)][self._marked :]

    def check(self) -> None:
        """Errors: Fenced if another process has taken the run up: nothing of this one may be published."""
        with contextlib.suppress(OSError):  # it is said that the journal cannot be written
            self._lead.check()

    def heed(self) -> None:
        """Errors: Fenced if it is known that another process has taken the run up; costs nothing to ask."""
        self._lead.heed()

    def complaints(self) -> list[str]:
        """Say, once for each segment, why it cannot be written, if that is so, and what a checkpoint could not keep."""
        found, self._lost = [self._lost] if self._lost else [], ""
        failure = self._writer.failure if self._writer is not None else None
        if failure is not None and not self._has_complained:
            self._has_complained = True
            found.append(f"the journal cannot be written: {failure}; {_WITHOUT}, sites train once more")
        return found

    def end(self) -> None:
        """The run is over, and its last checkpoint durable: drop what was written."""
        if self._writer is not None:
            self._writer.close()
            self._writer.store.drop(None, self._writer.epoch)

    def close(self) -> None:
        """Write what waits."""
        if self._writer is not None:
            self._writer.close()

    def recalled(self, kept: Mapping[str, Kept]) -> dict[str, Kept]:
        """Give what hubs remember, with who was at work: what is told again says whether they have answered."""
        forgotten = self.replay.forgotten if self.replay is not None else set()
        left = {path: one.given_up() if path in forgotten else one for path, one in kept.items()}
        found = {path: one for path, one in left.items() if one is not None}
        for path, errands in [one for one in self._head.errands.items() if one[0] not in forgotten]:
            before = found.get(path) or Kept(Memory(Standing(max(one.round_number for one in errands.values()))))
            standing = replace(before.memory.standing, errands=dict(errands))
            openings = {**self._head.openings[path], **before.memory.openings}
            found[path] = Kept(Memory(standing, openings), before.payloads)
        return found

    def _deliver(self, path: str, cues: list[Cue[tuple[Any, ...]]]) -> list[Call]:
        """Turn cues into calls; what was not written down yet is now."""
        calls = []
        for cue in cues:
            event, arguments = cue.event, cue.live
            if cue.entry is not None and arguments is None:
                arguments = self._played(cue.entry)
            elif arguments is None:
                arguments = (event,)
            elif isinstance(event, Begin):
                arguments = (event, *arguments[1:])
            line = Line(Told(path, event), arguments, self._kept(path, event))
            self._add(path, line)
            if cue.entry is None:
                self._write(line)
            else:
                self._note(line)
            calls.append((METHODS[type(event)], arguments))
        return calls

    def _played(self, entry: Entry) -> tuple[Any, ...]:
        """Give the arguments of an event that lies in the journal; what its sites keep counts now."""
        assert isinstance(entry.record, Told)
        event = entry.record.event
        if not isinstance(event, Arrived):
            return (event,)
        vectors = vectors_of(entry)
        own = {name.removeprefix("."): vectors.pop(name) for name in [*vectors] if name.startswith(".")}
        self._restore(vectors)
        update = event.update
        weight = sum(share.weight for share in update.shares)
        compression = self._compressions.get(f"{entry.record.hub}/{update.shares[0].member}")
        return update, self._driver.put(part_of(own, weight, compression))

    def _restore(self, vectors: Mapping[str, NDArray[Any]]) -> None:
        """Let sites keep what they kept after the training of an update."""
        kept: dict[str, dict[str, NDArray[Any]]] = {}
        for name, vector in vectors.items():
            site, _, key = name.rpartition(":")
            kept.setdefault(site, {})[key] = vector
        if kept:
            handles = {site: self._driver.put({site: own}) for site, own in kept.items()}
            self._keeper.restore({**self._keeper.kept(), **handles})

    def _kept(self, path: str, event: Event) -> tuple[Mapping[str, int], Sequence[Handle]]:
        """Give what the sites of an update keep now."""
        if not isinstance(event, Arrived):
            return {}, ()
        return self._keeper.of(f"{path}/{share.member}" for share in event.update.shares)

    def _add(self, path: str, line: Line) -> None:
        """Keep what a hub was told for as long as it is under way."""
        if self._writer is not None:
            self._under_way.add(path, line)

    def _write(self, line: Line) -> None:
        """Write a line."""
        self._num_written += 1
        self._append(line)

    def _note(self, line: Line) -> bool:
        """Note which hubs have begun in this segment; say whether an update must be written whole, with its vectors."""
        record = line.record
        if not isinstance(record, Told):
            return False
        if isinstance(record.event, Begin):
            self._begun.add(record.hub)
        if not isinstance(record.event, Arrived):
            return False
        path = f"{record.hub}/{record.event.update.shares[0].member}"
        return path in self._tree.sites or path not in self._begun

    def _append(self, line: Line) -> None:
        """Hand a line to the writer."""
        record, payload = line.record, line.payload
        if self._writer is None:
            return
        if payload is not None:
            self._note(line)
            self._writer.append(lambda: (record, [payload]), payload.nbytes)
        elif self._note(line):
            assert isinstance(record, Told) and isinstance(record.event, Arrived)
            self._num_bytes += record.event.update.num_bytes
            self._writer.append(lambda: whole(line, self._driver.get), record.event.update.num_bytes)
        else:
            self._writer.append(lambda: (record, ()))


_WITHOUT = "the run goes on; if it is killed before its next checkpoint"
