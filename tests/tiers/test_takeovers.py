"""Runs that are killed, hang and come back, by drawn schedules: what was durable counts once, and nobody trains again.

The mutants are protocols that leave out one thing each; that the schedules find every one of them is the test of this
test.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from protocol_mutants import losses_that_ended_a_run_stay, news_before_the_tape, no_deduplication_of_updates
from takeovers import Process, Schedule, Violation

from hierfl.runtime.recorder import Recorder
from tiers import journal
from tiers.journal import Barrier, Told
from tiers.messages import Arrived, Lost, TimeUp
from tiers.replay import Replay
from tiers.standing import Attendance

Patch = pytest.MonkeyPatch


@pytest.mark.parametrize("number", [800, pytest.param(100_000, marks=pytest.mark.slow)])
def test_no_schedule_breaks_what_must_hold(number: int) -> None:
    for seed in range(number):
        try:
            Schedule(seed).run()
        except Violation as violation:
            raise AssertionError(f"schedule {seed}: {violation}") from violation


def no_fencing(patch: Patch) -> None:
    """A process whose run was taken up goes on publishing."""
    patch.setattr(Recorder, "check", lambda self: None)


def no_barrier(patch: Patch) -> None:
    """A successor does not say how far it has read: what the earlier ones add later counts."""
    read = journal.read
    patch.setattr(
        "hierfl.runtime.recorder.join",
        lambda streams: replace(
            journal.join(streams),
            entries=tuple(one for epoch in sorted(streams) for one in read(streams[epoch]).entries),
        ),
    )


def epochs_repeat(patch: Patch) -> None:
    """A successor takes the number of its predecessor."""
    patch.setattr(Schedule, "next_epoch", staticmethod(lambda disk: max(1, disk.epoch())))
    patch.setattr("takeovers.Disk.claim", lambda self, epoch: self.claimed.add(epoch))


def earlier_writers_are_forgotten(patch: Patch) -> None:
    """A successor's journal does not go on from those before."""
    resume = Recorder.resume

    def alone(self: Recorder, *found: Any) -> None:
        resume(self, *found)
        self._barrier = Barrier(self._barrier.epoch)

    patch.setattr(Recorder, "resume", alone)


def no_checksums(patch: Patch) -> None:
    """What a kill has cut short is read as if it were whole."""
    frames = journal._frames

    def padded(view: memoryview, at: int) -> Any:
        return frames(memoryview(bytes(view) + bytes(64)), at)

    patch.setattr(journal, "_frames", padded)
    patch.setattr(journal.zlib, "crc32", lambda *_: 0)


def answered_members_are_asked(patch: Patch) -> None:
    """A successor asks everybody."""
    patch.setattr(Recorder, "answered", lambda *_: False)


def time_is_not_written(patch: Patch) -> None:
    """That time was up is not in the journal: rounds close otherwise when told again."""
    _leave_out(patch, TimeUp)


def losses_are_not_written(patch: Patch) -> None:
    """Who was lost is not in the journal."""
    _leave_out(patch, Lost)


def _leave_out(patch: Patch, kind: type) -> None:
    write = Recorder._append

    def some(self: Recorder, line: Any) -> None:
        if not (isinstance(line.record, Told) and isinstance(line.record.event, kind)):
            write(self, line)

    patch.setattr(Recorder, "_append", some)


def segments_end_before_the_checkpoint(patch: Patch) -> None:
    """The journal is cut before what it led to is saved."""
    mark = Recorder.mark

    def early(self: Recorder, *arguments: Any) -> None:
        mark(self, *arguments)
        self._writer.store.drop(None, self._writer.epoch)  # type: ignore[union-attr]

    patch.setattr(Recorder, "mark", early)


def work_that_ended_is_waited_for(patch: Patch) -> None:
    """Nobody tells a hub that members are no longer at work."""
    made = Replay._tape

    def silent(self: Any, *arguments: Any) -> Any:
        tape = made(self, *arguments)
        tape.last.clear()
        return tape

    patch.setattr(Replay, "_tape", silent)


def tapes_are_played_backwards(patch: Patch) -> None:
    """Updates are told again in another order than they came."""
    made = Replay._tape

    def turned(self: Any, hub: str, line: Any, head: Any) -> Any:
        tape = made(self, hub, line, head)
        told = [one for one in tape.entries if isinstance(one[1].record.event, Arrived | TimeUp)]
        rest = [one for one in tape.entries if one not in told]
        tape.entries = deque([*rest, *reversed(told)])
        return tape

    patch.setattr(Replay, "_tape", turned)


def errands_are_not_remembered(patch: Patch) -> None:
    """Who is at work for a round that closed is forgotten when the run is taken up."""
    patch.setattr(Recorder, "recalled", lambda self, kept: dict(kept))


def members_are_freed_twice(patch: Patch) -> None:
    """Who has answered is still thought to be at work."""
    patch.setattr(Attendance, "answered", lambda self, member: self.losses.pop(member, None))


MUTANTS: list[Callable[[Patch], None]] = [
    no_fencing,
    no_barrier,
    epochs_repeat,
    earlier_writers_are_forgotten,
    no_checksums,
    no_deduplication_of_updates,
    answered_members_are_asked,
    news_before_the_tape,
    time_is_not_written,
    losses_are_not_written,
    segments_end_before_the_checkpoint,
    work_that_ended_is_waited_for,
    losses_that_ended_a_run_stay,
    tapes_are_played_backwards,
    errands_are_not_remembered,
    members_are_freed_twice,
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_protocol_that_leaves_something_out_is_found(mutant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutant(monkeypatch)
    for seed in range(1500):
        try:
            Schedule(seed).run()
        except Exception:  # whatever goes wrong: a violation, or a machine that meets what cannot be
            return
    raise AssertionError("no schedule of 1500 finds it")


def test_the_schedules_meet_what_they_are_about() -> None:
    seen = {"hung": 0, "taken up": 0, "every": 0, "calm": 0, "early": 0}
    for seed in range(150):
        schedule = Schedule(seed)
        schedule.run()
        seen["hung"] += bool(schedule.hung)
        seen["taken up"] += isinstance(schedule.process, Process) and schedule.process.recorder.replay is not None
        seen["every"] += schedule.every > 1
        seen["calm"] += schedule.is_calm
        seen["early"] += schedule.hub.participation.may_close_early
    assert min(seen.values()) > 8, seen
