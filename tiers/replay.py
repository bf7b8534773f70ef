"""What the hubs of a run were told before its process ended, told once more in the same order to machines made anew.

A hub's tape is what its journal says. What lies in the journal is played by itself; what follows from other hubs (that
a round begins, that a hub below has its update) is played once it has followed again. A hub hears of nothing new before
its tape is at its end. So each hub comes to the state that it had, and who has answered on the tape is not asked.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from tiers.federation import is_within
from tiers.journal import Barrier, Closed, Entry, GaveUp, Head, Record, Replaced, Stopped, Told, answers
from tiers.messages import Arrived, Begin, Close, Event, Lost, TimeUp

__all__ = ["INTERRUPTED", "Cue", "Replay"]

INTERRUPTED = "its work ended with the process that the run had"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cue(Generic[T]):
    """Tell a hub this now: as the journal has it (`entry`), as it came (`live`), or both, where one follows the other.

    Neither: nobody was told before, and it follows from the end of the process.
    """

    event: Event
    live: T | None = None
    entry: Entry | None = None


@dataclass(slots=True)
class _Tape(Generic[T]):
    """One hub's: what is still to be played, with its place in the journal; what has come meanwhile."""

    entries: deque[tuple[int, Entry]]
    last: list[Lost]
    live: deque[tuple[Event, T]] = field(default_factory=deque)


class Replay(Generic[T]):
    """The tapes of all hubs. `T`: what comes with an event that is told live.

    `head`, `entries`: of the journal; `root`: the root hub; `sequential`: hubs whose members train one after the other.
    `carried`: what hubs were told before, in rounds that were under way at the head's checkpoint. Where a run gave up
    and was taken up again, those that were lost and led to it are asked again. `forgotten`: hubs that were stopped in
    rounds of which nothing has the beginning, and with them what they remembered from before.
    """

    def __init__(
        self,
        head: Head,
        entries: Iterable[Entry],
        *,
        root: str,
        sequential: Iterable[str] = (),
        carried: Sequence[Entry] = (),
    ) -> None:
        self.forgotten: set[str] = set()
        void = set(head.running) - {entry.record.hub for entry in carried if isinstance(entry.record, Told)}
        lines = _lines(void, [*carried, *entries], root, set(sequential), self.forgotten)
        self.begun = {hub for hub, line in lines.items() if any(_begins(entry) for _, entry in line)}
        self._under_way = {hub for hub, line in lines.items() if _beginning(line) is not None}
        self._answered = {(hub, *key) for hub, line in lines.items() for key in answers(one.record for _, one in line)}
        self._over = {
            (hub, number, name)
            for hub, line in lines.items()
            for number, name in answers(one.record for at, one in line if at < len(carried) or _has_vectors(one))
            if number not in _begun_for(lines.get(f"{hub}/{name}", ()))
        }
        self._closings = {
            (hub, entry.record.close.round_number): entry.record.close
            for hub, line in lines.items()
            for _, entry in line
            if isinstance(entry.record, Closed)
        }
        self._losses = {
            hub: [event for _, entry in line if (event := _loss(entry)) is not None] for hub, line in lines.items()
        }
        hubs = dict.fromkeys([*(hub for hub in head.errands if hub not in self.forgotten), *lines])
        self._tapes: dict[str, _Tape[T]] = {hub: self._tape(hub, lines.get(hub, []), head) for hub in hubs}

    def _tape(self, hub: str, line: Iterable[tuple[int, Entry]], head: Head) -> _Tape[T]:
        """Make a hub's tape, at its end the word of those that were at work and have not answered."""
        left: dict[int, dict[str, str]] = {}
        for name, errand in head.errands.get(hub, {}).items() if hub not in self.forgotten else ():
            if not self.answered(hub, errand.round_number, name) and f"{hub}/{name}" not in self._under_way:
                left.setdefault(errand.round_number, {})[name] = INTERRUPTED
        last = [Lost(number, names, excused=True) for number, names in left.items()]
        return _Tape(deque((at, entry) for at, entry in line if isinstance(entry.record, Told | Stopped)), last)

    @property
    def hubs(self) -> tuple[str, ...]:
        """List the hubs of which something is left to be played."""
        return tuple(self._tapes)

    @property
    def members(self) -> tuple[str, ...]:
        """List the members, by path, whose updates lie in the journal and are left to be played, once for each."""
        found = []
        for hub, tape in self._tapes.items():
            for _, entry in tape.entries:
                match entry.record:
                    case Told(_, Arrived(update), vectors) if vectors:
                        found += [f"{hub}/{share.member}" for share in update.shares]
        return tuple(found)

    def left(self) -> list[tuple[int, Entry]]:
        """Give what is left to be played, in the journal's order, each entry with its place."""
        left = [one for tape in self._tapes.values() for one in tape.entries]
        return sorted(left, key=lambda one: one[0])

    def answered(self, hub: str, round_number: int, member: str) -> bool:
        """Say whether a member's answer for a hub's round is in the journal, so that it need not be asked."""
        return (hub, round_number, member) in self._answered

    def over(self, hub: str, round_number: int, member: str) -> bool:
        """Say whether an inner hub's answer for a round is there as it was, so that it need not follow once more."""
        return (hub, round_number, member) in self._over

    def under_way(self, hub: str) -> Entry | None:
        """Give the beginning of a hub's rounds, with the model, where they were under way at the checkpoint and follow
        from nothing that is told again: it is to be offered once the hub's machine is made.
        """
        return _beginning(self._tapes[hub].entries) if hub in self._tapes else None

    def start(self, hub: str) -> list[Cue[T]]:
        """A hub's machine is made; give what it is told at once."""
        return self._play(hub) if hub in self._tapes else []

    def offer(self, hub: str, event: Event, live: T) -> list[Cue[T]]:
        """A hub is to be told something; give what it is told now, in order: nothing for a loss that is on its tape, as
        that of an update that it refuses once more.
        """
        losses = self._losses.get(hub, [])
        if event in losses:
            losses.remove(event)
            return []
        if hub not in self._tapes:
            return [Cue(event, live)]
        self._tapes[hub].live.append((event, live))
        return self._play(hub)

    def stops(self, hub: str) -> bool:
        """Say whether a hub's tape has it that its rounds are ended from above."""
        tape = self._tapes.get(hub)
        return tape is not None and any(isinstance(entry.record, Stopped) for _, entry in tape.entries)

    def stop(self, hub: str) -> tuple[list[Entry] | None, list[Cue[T]]]:
        """A hub's rounds are ended from above, with those of all hubs below it: what tapes have up to there is void.

        Give the entries that say so, or None if the journal does not, and what the hub is told now.
        """
        tape = self._tapes.get(hub)
        for one in [one for one in self._losses if is_within(one, hub)]:
            del self._losses[one]
        place, known = math.inf, None
        while tape is not None and tape.entries and known is None:
            at, entry = tape.entries.popleft()
            if isinstance(entry.record, Stopped):
                place, known = at, [entry]
        for below in [one for one in self._tapes if one.startswith(hub + "/")]:
            void = self._cut(below, place)
            if known is not None:
                known += [entry for entry in void if isinstance(entry.record, Stopped)]
        if tape is None:
            return known, []
        tape.live.clear()
        tape.last.clear()
        return known, self._play(hub)

    def _cut(self, hub: str, place: float) -> list[Entry]:
        """Leave out of a tape, and give, what comes before a place, and after it until the hub begins again."""
        tape, void = self._tapes[hub], []
        tape.live.clear()
        tape.last.clear()
        while tape.entries and (tape.entries[0][0] < place or not _begins(tape.entries[0][1])):
            void.append(tape.entries.popleft()[1])
        if not tape.entries:
            del self._tapes[hub]
        return void

    def departs(self, hub: str, close: Close) -> str | None:
        """A hub has closed a round; say how that departs from what the journal has, if it does."""
        before = self._closings.get((hub, close.round_number))
        if before is None or _counted(before) == _counted(close):
            return None
        return (
            f"round {close.round_number + 1} of {hub} had closed with {_named(before)}, and now closes with"
            f" {_named(close)}"
        )

    def _play(self, hub: str) -> list[Cue[T]]:
        """Take from a hub's tape what can be told; at its end, what has come meanwhile."""
        tape = self._tapes[hub]
        cues: list[Cue[T]] = []
        while tape.entries:
            entry = tape.entries[0][1]
            if not isinstance(entry.record, Told):
                return cues  # until the hub is stopped
            event, came = entry.record.event, None
            if _follows(entry.record):
                came = next((one for one in tape.live if _same(one[0], event)), None)
                if came is None:
                    return cues
                tape.live.remove(came)
            cues.append(Cue(event, came and came[1], entry))
            tape.entries.popleft()
        del self._tapes[hub]
        return [*cues, *(Cue(event) for event in tape.last), *(Cue(event, live) for event, live in tape.live)]


def _lines(
    void: set[str], entries: Iterable[Entry], root: str, chains: set[str], forgotten: set[str]
) -> dict[str, list[tuple[int, Entry]]]:
    """Sort a journal by hub, each entry with its place; without what led a run to give up before it was taken up.

    Where a hub gave up and was not stopped, the run ended with it: its parent does not go on without it. What a hub was
    told in rounds of which nothing has the beginning (`void`) is left out, and what it had those below it do for them;
    who was stopped with them is added to `forgotten`.
    """
    lines: dict[str, list[tuple[int, Entry]]] = {}
    begun: set[str] = set()

    def retry() -> None:
        ended = {hub for hub, line in lines.items() if isinstance(line[-1][1].record, GaveUp)}
        for hub in lines if root in ended else ended:
            lines[hub] = _retried(lines[hub], hub in chains)

    for at, entry in enumerate(entries):
        match entry.record:
            case Head() | Replaced():
                continue
            case Barrier():
                retry()
                continue
            case Stopped(hub) if hub in void or any(hub.startswith(one + "/") for one in void):
                forgotten.add(hub)
                lines.pop(hub, None)
                continue
            case Told(hub, Begin()) if any(hub.startswith(one + "/") for one in void):
                void.add(hub)
            case Told(hub, Begin()):
                begun.add(hub)
                void.discard(hub)
        if entry.record.hub not in void:
            lines.setdefault(entry.record.hub, []).append((at, entry))
    retry()
    return {hub: [one for one in line if _can_follow(one[1].record, begun)] for hub, line in lines.items()}


def _can_follow(record: Record, begun: set[str]) -> bool:
    """Whether what follows from another hub will come: not if that hub's rounds began before the journal does."""
    if isinstance(record, Told) and isinstance(record.event, Arrived) and not record.vectors:
        return f"{record.hub}/{record.event.update.shares[0].member}" in begun
    return True


def _retried(line: list[tuple[int, Entry]], is_chain: bool) -> list[tuple[int, Entry]]:
    """Of rounds that were given up keep closings and updates, and losses from which such followed; where members are a
    chain, up to the first loss.
    """
    begun = max((index for index, (_, entry) in enumerate(line) if _begins(entry)), default=-1)
    kept, rest = line[: begun + 1], line[begun + 1 :]
    records = [entry.record for _, entry in rest]
    if not any(isinstance(record, GaveUp) or (isinstance(record, Stopped) and record.failed) for record in records):
        return line
    first = kept[-1][1].record.event.round_number if kept else 0  # type: ignore[union-attr]
    closings = {record.close.round_number: record.close for record in records if isinstance(record, Closed)}
    closed_at: dict[int, int] = {}
    for place, record in enumerate(records):
        if isinstance(record, Closed):
            closed_at.setdefault(record.close.round_number, place)
    settled = max(closings, default=first - 1)
    newest = _newest(records, settled)

    def went_on_without(number: int, name: str, reason: str, place: int) -> bool:
        """Whether a round of these closed without a member since it was lost before, and not while it was at work."""
        if number < first or place >= closed_at.get(number, -1):
            return False
        return closings[number].missing.get(name) == reason or name in closings[number].carried

    is_broken = False
    for place, (at, entry) in enumerate(rest):
        match entry.record:
            case Told(_, Lost(excused=True)):
                kept.append((at, entry))
            case Told(hub, Lost(number, members)):
                stay = {
                    name: reason
                    for name, reason in members.items()
                    if number <= settled and (newest[name] > number or went_on_without(number, name, reason, place))
                }
                is_broken = is_chain and (is_broken or len(stay) < len(members))
                if stay and not is_broken:
                    kept.append((at, replace(entry, record=Told(hub, Lost(number, stay)))))
            case Told(_, TimeUp(number)) if number > settled:
                is_broken = is_chain
            case Told() if not is_broken:
                kept.append((at, entry))
            case Closed():
                kept.append((at, entry))
    return kept


def _newest(records: Iterable[Record], settled: int) -> Mapping[str, int]:
    """Give the newest round of which each member is heard on a tape, losses in rounds that have not closed left out."""
    newest: defaultdict[str, int] = defaultdict(lambda: -1)
    for record in records:
        match record:
            case Told(_, Arrived(update)):
                for share in update.shares:
                    newest[share.member] = max(newest[share.member], update.round_number)
            case Told(_, Lost(number, members)) if number <= settled:
                for name in members:
                    newest[name] = max(newest[name], number)
    return newest


def _follows(record: Told) -> bool:
    """Whether an event follows from what other hubs do, and is not in the journal whole."""
    return isinstance(record.event, Begin) or (isinstance(record.event, Arrived) and not record.vectors)


def _same(came: Event, told: Event) -> bool:
    """Whether what has come is what a tape waits for; forecasts are other ones each time, and a tape of an earlier
    version has no shortfalls.
    """
    match came, told:
        case Begin(), Begin():
            return (came.round_number, came.rounds) == (told.round_number, told.rounds)
        case Arrived(), Arrived():
            return (came.update.round_number, came.update.shares) == (told.update.round_number, told.update.shares)
        case _:
            return False


def _counted(close: Close) -> tuple[frozenset[str], frozenset[str], int]:
    return frozenset(close.members), frozenset(close.carried), close.weight


def _named(close: Close) -> str:
    return f"{', '.join([*close.members, *close.carried])} (weight {close.weight})"


def _loss(entry: Entry) -> Lost | None:
    event = entry.record.event if isinstance(entry.record, Told) else None
    return event if isinstance(event, Lost) and not event.excused else None


def _begins(entry: Entry) -> bool:
    return isinstance(entry.record, Told) and isinstance(entry.record.event, Begin)


def _begun_for(line: Iterable[tuple[int, Entry]]) -> set[int]:
    """List the rounds of the hub above for which the rounds on a tape were begun."""
    events = (entry.record.event for _, entry in line if isinstance(entry.record, Told))
    return {event.round_number // event.rounds for event in events if isinstance(event, Begin)}


def _beginning(line: Iterable[tuple[int, Entry]]) -> Entry | None:
    """Give the first beginning on a tape, if its model is beside it."""
    first = next((entry for _, entry in line if _begins(entry)), None)
    return first if first is not None and _has_vectors(first) else None


def _has_vectors(entry: Entry) -> bool:
    return isinstance(entry.record, Told) and bool(entry.record.vectors)
