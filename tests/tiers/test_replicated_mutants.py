"""Protocols that leave one thing out, each of which the drawn histories find: the tests of that test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import replicated_hub
from protocol_mutants import losses_that_ended_a_run_stay, news_before_the_tape, no_deduplication_of_updates
from replicated_brain import Recall, Said, forget
from replicated_carried import SinceIdle
from replicated_disk import Disk, Line
from replicated_hub import Process, Served
from replicated_run import Supervisor
from replicated_world import World

from tiers import replicas
from tiers.collecting import Collecting
from tiers.journal import Entry, Head, Joined, Told
from tiers.messages import Begin
from tiers.replay import Replay
from tiers.replica_messages import Abandon, Answered, CarryOut, Command, Replace, Retire
from tiers.replicas import Replicas
from tiers.standing import Attendance

Patch = pytest.MonkeyPatch

FEW = 1500
"""Histories within which every one of them is found; most are in the first hundred."""


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What machines said is not looked up under another protocol."""
    forget()
    yield
    forget()


# replicas: whose answer counts


def no_deduplication_of_answers(patch: Patch) -> None:
    """An answer that comes once more, equal to the one that counted, is carried out once more."""

    def again(self: Replicas, event: Answered, commands: list[Command]) -> list[Command]:
        if commands or event.index >= self.carried_out or event.life != self.lives[event.replica]:
            return commands
        return [CarryOut(event.index, (event.replica,))]

    _after_answers(patch, again)


def votes_of_one_replica_count_twice(patch: Patch) -> None:
    """Who repeats itself has two votes."""
    doubled: set[tuple[int, int]] = set()
    needs = Replicas._needs

    def noted(self: Replicas, event: Answered) -> Answered:
        if event.index >= self.carried_out and event.index < self._replicas[event.replica].answered:
            doubled.add((id(self), event.index))
            self._replicas[event.replica].answered = event.index
        return event

    _before_answers(patch, noted)
    patch.setattr(
        Replicas, "_needs", lambda self, digest: needs(self, digest) - ((id(self), self.carried_out) in doubled)
    )


def f_equal_answers_are_enough(patch: Patch) -> None:
    """One vote fewer decides."""
    patch.setattr("tiers.replicas.quorum_of", lambda mode, num: max(1, num // 2))


def all_must_answer(patch: Patch) -> None:
    """A hub waits for each of its replicas."""
    patch.setattr("tiers.replicas.quorum_of", lambda mode, num: num)


def one_failure_counts(patch: Patch) -> None:
    """The first answer counts, also where it is that there is none."""
    patch.setattr(Replicas, "_needs", lambda self, digest: self.quorum)


def signatures_are_not_checked(patch: Patch) -> None:
    """Whoever speaks in a replica's name has its vote."""
    _before_answers(patch, lambda self, event: replace(event, signed=True))


def vectors_are_not_looked_at(patch: Patch) -> None:
    """What lies beside an answer is taken to be what was signed."""
    patch.setattr(Served, "_take", lambda self, index, voters, answers: answers[0])


def only_the_list_is_voted_on(patch: Patch) -> None:
    """Replicas sign who counts, and not the sum."""
    agreed = replicated_hub.agreed

    def of_lists(said: Said, truth: Said, index: int) -> bytes:
        return agreed(truth if said.commands == truth.commands else said, truth, index)

    patch.setattr(replicated_hub, "agreed", of_lists)


def answers_count_for_another_message(patch: Patch) -> None:
    """An answer says only whose it is, not to what."""

    def shifted(self: Replicas, event: Answered) -> Answered:
        due = self._replicas[event.replica].answered
        return replace(event, index=due) if event.index < due < self.told else event

    _before_answers(patch, shifted)


# lives


def earlier_lives_are_heard(patch: Patch) -> None:
    """What a process says that was replaced counts as its successor's."""
    _before_answers(patch, lambda self, event: replace(event, life=self.lives[event.replica]))


def votes_outlive_their_process(patch: Patch) -> None:
    """A replica's successor has its vote, and one of its own."""
    end = Replicas._end

    def kept(self: Replicas, *arguments: Any) -> list[Command]:
        votes = {index: dict(found) for index, found in self._votes.items()}
        commands = end(self, *arguments)
        self._votes = votes
        return commands

    patch.setattr(Replicas, "_end", kept)


def leases_end_without_fencing(patch: Patch) -> None:
    """Who is silent for too long has a successor of the same life."""
    tick = Replicas._tick

    def unfenced(self: Replicas, number: int, now: float) -> list[Command]:
        commands = tick(self, number, now)
        for command in commands:
            if isinstance(command, Replace):
                self._replicas[number].life -= 1
        return [replace(one, life=one.life - 1) if isinstance(one, Replace) else one for one in commands]

    patch.setattr(Replicas, "_tick", unfenced)


def stops_begin_no_lives(patch: Patch) -> None:
    """After a hub was stopped what its replicas still say of its old rounds is an answer to the new ones."""
    stop = Replicas._stop

    def same(self: Replicas) -> None:
        stop(self)
        for one in self._replicas:
            one.life -= 1

    patch.setattr(Replicas, "_stop", same)


def successors_are_told_only_what_is_new(patch: Patch) -> None:
    """A replica that takes another's place begins with an empty machine."""
    begin = Replicas._begin

    def late(self: Replicas, one: Any) -> None:
        begin(self, one)
        one.begins = one.answered = self.told

    class New(Process):
        __slots__ = ()

        def __init__(self, life: int, served: Served, recalls: Recall | None = None, *, fresh: bool = False) -> None:
            super().__init__(life, served, recalls, fresh=fresh)
            self.next = len(served.told)

    patch.setattr(Replicas, "_begin", late)
    patch.setattr(replicated_hub, "Process", New)


def successors_recall_nothing(patch: Patch) -> None:
    """What a hub remembered between its rounds is not told to a replica that takes another's place."""

    class Blank(Process):
        __slots__ = ()

        def __init__(self, life: int, served: Served, recalls: Recall | None = None, *, fresh: bool = False) -> None:
            super().__init__(life, served, recalls and Recall(replace(recalls.standing, errands={}), {}), fresh=fresh)

    patch.setattr(replicated_hub, "Process", Blank)


# who sits out


def the_sixth_death_ends_the_run(patch: Patch) -> None:
    """A run does not go on without a replica."""
    _instead(patch, Retire, lambda self, one: Abandon(one.replica, one.reason))


def who_sits_out_is_missed_by_nobody(patch: Patch) -> None:
    """However few are left, a replica that dies again and again sits out."""

    def out(self: Replicas, one: Abandon) -> Retire:
        self._replicas[one.replica].sits_out = True
        return Retire(one.replica, self._replicas[one.replica].life, "died", one.reason)

    _instead(patch, Abandon, out)


def fewer_decide_where_one_sits_out(patch: Patch) -> None:
    """A majority of those that are left is enough."""
    patch.setattr(Replicas, "quorum", property(lambda self: replicas.quorum_of(self.mode, len(self.active))))


def who_sits_out_does_not_return(patch: Patch) -> None:
    """Once out, always out."""
    patch.setattr(Replicas, "_opened", lambda self: [])


def _instead(patch: Patch, kind: type, make: Callable[[Replicas, Any], Command]) -> None:
    end = Replicas._end

    def other(self: Replicas, *arguments: Any) -> list[Command]:
        return [make(self, one) if isinstance(one, kind) else one for one in end(self, *arguments)]

    patch.setattr(Replicas, "_end", other)


# epochs and the journal


def no_fencing(patch: Patch) -> None:
    """A supervisor whose run was taken up goes on publishing."""
    patch.setattr(Supervisor, "is_fenced", lambda self: False)


def no_barrier(patch: Patch) -> None:
    """A successor does not say how far it has read: what the earlier ones add later counts."""

    def joined(self: Disk) -> Joined:
        streams = [self.streams[epoch].entries for epoch in sorted(self.streams)]
        entries: list[Entry] = [entry for stream in streams for entry in stream]
        head = next((entry.record for entry in entries if isinstance(entry.record, Head)), None)
        before = {epoch: len(one.entries) for epoch, one in self.streams.items()}
        return Joined(head, tuple(entries), before) if head is not None else Joined()

    patch.setattr(Disk, "read", joined)


def receipts_before_the_flush(patch: Patch) -> None:
    """Members hear that their update counts before it is durable."""
    deliver = Supervisor._deliver

    def hasty(self: Supervisor, *arguments: Any) -> None:
        deliver(self, *arguments)
        self.acknowledge(self.waiting[-1:])

    patch.setattr(Supervisor, "_deliver", hasty)


def answered_members_are_asked(patch: Patch) -> None:
    """A successor asks everybody."""
    patch.setattr(Replay, "answered", lambda *_: False)


def what_is_under_way_is_left_behind(patch: Patch) -> None:
    """A checkpoint has nothing of hubs that are at work for a round which has closed without them."""
    patch.setattr(SinceIdle, "carried", lambda *_: iter(()))


def of_what_is_under_way_there_is_the_beginning_alone(patch: Patch) -> None:
    """A hub that was under way is told what came after the checkpoint, and nothing from before."""
    carried = SinceIdle.carried

    def some(self: SinceIdle, *arguments: Any) -> Iterator[Line]:
        return (line for line in carried(self, *arguments) if isinstance(line[0], Told) and _begins(line[0]))

    patch.setattr(SinceIdle, "carried", some)


def _begins(record: Told) -> bool:
    return isinstance(record.event, Begin)


def hubs_that_have_answered_do_their_round_again(patch: Patch) -> None:
    """A hub that goes on with its rounds has those below it do again what they did in them."""
    patch.setattr(Replay, "over", lambda *_: False)


def parents_take_what_goes_on_for_ended(patch: Patch) -> None:
    """A hub hears that the work of those has ended who go on with it."""
    tape = Replay._tape

    def made(self: Any, *arguments: Any) -> Any:
        self._under_way = set()
        return tape(self, *arguments)

    patch.setattr(Replay, "_tape", made)


# the rounds of a hub


def lists_leave_out_who_is_carried(patch: Patch) -> None:
    """Updates of earlier rounds are in the sum, and not on the list."""
    closed = Collecting.closed
    patch.setattr(Collecting, "closed", lambda self, reason: replace(closed(self, reason), carried={}))


def members_are_free_once_a_round_closes(patch: Patch) -> None:
    """Who is still at work is asked for the next round."""
    patch.setattr(Attendance, "errands", property(lambda self: {}, lambda self, found: None), raising=False)


def _before_answers(patch: Patch, change: Callable[[Replicas, Answered], Answered]) -> None:
    answered = Replicas._answered
    patch.setattr(Replicas, "_answered", lambda self, event: answered(self, change(self, event)))


def _after_answers(patch: Patch, change: Callable[[Replicas, Answered, list[Command]], list[Command]]) -> None:
    answered = Replicas._answered
    patch.setattr(Replicas, "_answered", lambda self, event: change(self, event, answered(self, event)))


MUTANTS: list[Callable[[Patch], None]] = [
    no_deduplication_of_answers,
    votes_of_one_replica_count_twice,
    f_equal_answers_are_enough,
    all_must_answer,
    one_failure_counts,
    signatures_are_not_checked,
    vectors_are_not_looked_at,
    only_the_list_is_voted_on,
    answers_count_for_another_message,
    earlier_lives_are_heard,
    votes_outlive_their_process,
    leases_end_without_fencing,
    stops_begin_no_lives,
    successors_are_told_only_what_is_new,
    successors_recall_nothing,
    the_sixth_death_ends_the_run,
    who_sits_out_is_missed_by_nobody,
    fewer_decide_where_one_sits_out,
    who_sits_out_does_not_return,
    no_fencing,
    no_barrier,
    receipts_before_the_flush,
    answered_members_are_asked,
    what_is_under_way_is_left_behind,
    of_what_is_under_way_there_is_the_beginning_alone,
    hubs_that_have_answered_do_their_round_again,
    parents_take_what_goes_on_for_ended,
    news_before_the_tape,
    losses_that_ended_a_run_stay,
    no_deduplication_of_updates,
    lists_leave_out_who_is_carried,
    members_are_free_once_a_round_closes,
]


def breaks(seed: int) -> bool:
    try:
        World(seed, alone=False).run()
    except Exception:  # whatever goes wrong: a violation, or a machine that meets what cannot be
        return True
    return False


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_protocol_that_leaves_something_out_is_found(mutant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutant(monkeypatch)
    assert any(map(breaks, range(FEW))), f"no history of {FEW} finds it"
