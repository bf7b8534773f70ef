"""Hubs that are told once more what they were told come to the same state, whatever has come meanwhile."""

from __future__ import annotations

from random import Random

import pytest
from hub_schedules import HubSchedule

from tiers.journal import Barrier, Closed, Entry, GaveUp, Head, Record, Stopped, Told, Vector
from tiers.messages import Arrived, Begin, Close, Lost, Share, TimeUp, Update
from tiers.replay import INTERRUPTED, Replay
from tiers.standing import Errand

HEAD = Head(0, "")
VECTORS: tuple[Vector, ...] = ((".floats", "int32", (0,)),)


def arrived(member: str, number: int = 0, hub: str = "w", *, whole: bool = True) -> Told:
    return Told(hub, Arrived(Update(hub, number, (Share(member, 1),))), VECTORS if whole else ())


def replay(*records: Record, head: Head = HEAD, sequential: tuple[str, ...] = ()) -> Replay[str]:
    return Replay(head, [Entry(record, memoryview(b"")) for record in records], root="w", sequential=sequential)


def events(cues: list) -> list:  # type: ignore[type-arg]
    return [cue.event for cue in cues]


@pytest.mark.parametrize("kind", ["all", "deadline", "buffered", "sample"])
def test_any_prefix_of_what_a_machine_was_told_brings_a_new_one_to_its_state(kind: str) -> None:
    for seed in range(60):
        schedule = HubSchedule.drawn(kind, Random(f"{kind} {seed}"))
        for _ in range(25):
            schedule.step()
        told = [event for event in schedule.told if isinstance(event, Begin | Arrived | Lost | TimeUp)]
        cut = schedule.random.randint(0, len(told))
        records = [Told("w", event, VECTORS if isinstance(event, Arrived) else ()) for event in told[:cut]]
        script = replay(*records)
        one, two = schedule.fresh(), schedule.fresh()
        commands = [one.handle(event) for event in told]
        again = [two.handle(cue.event) for cue in script.start("w")]
        for event in told:
            if isinstance(event, Begin) or len(again) >= cut:
                again += [two.handle(cue.event) for cue in script.offer("w", event, "live")]
        assert again[:cut] == commands[:cut]
        assert len(again) >= cut and "w" not in script.hubs


def test_what_follows_from_other_hubs_waits_until_it_has_followed() -> None:
    inner = Update("w", 0, (Share("inner", 1),))
    script = replay(
        Told("w", Begin(0, 1, {"a": 9.0})),
        arrived("a"),
        Told("w/inner", Begin(0)),
        arrived("x", hub="w/inner"),
        Told("w", Arrived(inner)),
        arrived("b"),
    )
    assert set(script.members) == {"w/a", "w/b", "w/inner/x"}
    assert script.start("w") == []
    assert events(script.offer("w", Begin(0, 1, {"a": 1.0}), "begin")) == [Begin(0, 1, {"a": 9.0}), arrived("a").event]
    assert script.offer("w", arrived("c").event, "c") == [], "nothing new before what is on the tape"
    assert events(script.offer("w/inner", Begin(0), "begin")) == [Begin(0), arrived("x", hub="w/inner").event]
    cues = script.offer("w", Arrived(inner), "result")
    assert events(cues) == [Arrived(inner), arrived("b").event, arrived("c").event]
    assert [cue.live for cue in cues] == ["result", None, "c"] and script.hubs == ()
    assert events(script.offer("w", TimeUp(0, 1.0), "later")) == [TimeUp(0, 1.0)]


def test_who_has_answered_is_not_asked() -> None:
    script = replay(Told("w", Begin(0)), arrived("a"), Told("w", Lost(0, {"b": "ill"})))
    assert script.answered("w", 0, "a") and script.answered("w", 0, "b")
    assert not script.answered("w", 1, "a") and not script.answered("w", 0, "c") and not script.answered("v", 0, "a")


def test_a_loss_that_follows_once_more_is_told_and_written_down_once() -> None:
    """An update that the hub refuses, and refuses again when it is told again: its loss stands on the tape already."""
    refused, other = Lost(0, {"a": "its update was refused: it is late"}), Lost(0, {"b": "ill"})
    script = replay(Told("w", Begin(0)), arrived("a"), Told("w", refused), arrived("b", 1))
    assert events(script.offer("w", Begin(0), "begin")) == [
        Begin(0),
        arrived("a").event,
        refused,
        arrived("b", 1).event,
    ]
    assert script.offer("w", refused, "again") == []
    assert events(script.offer("w", other, "new")) == [other]
    assert events(script.offer("w", refused, "twice")) == [refused], "of a round that is done once more, it is another"


def test_a_loss_in_rounds_that_were_stopped_is_another_one() -> None:
    ill = Lost(0, {"x": "ill"})
    script = replay(Told("w/i", Begin(0)), Told("w/i", ill), Stopped("w/i"), Told("w/i", Begin(1)))
    script.offer("w/i", Begin(0), "")
    script.stop("w")
    assert events([*script.offer("w/i", Begin(1), ""), *script.offer("w/i", ill, "new")]) == [Begin(1), ill]


def test_a_hub_that_was_stopped_is_told_what_came_after() -> None:
    script = replay(
        Told("w/i", Begin(0)), arrived("x", hub="w/i"), Stopped("w/i"), Told("w/i", Begin(1)), arrived("y", 1, "w/i")
    )
    assert len(script.offer("w/i", Begin(0), "")) == 2
    assert script.offer("w/i", arrived("z", hub="w/i").event, "") == []
    assert script.stops("w/i")
    known, told = script.stop("w/i")
    assert known is not None and told == [], "it need not be written down again"
    assert [entry.record for entry in known] == [Stopped("w/i")]
    assert events(script.offer("w/i", Begin(1), "")) == [Begin(1), arrived("y", 1, "w/i").event]
    assert not script.stops("w/i") and script.stop("w/i") == (None, [])


@pytest.mark.parametrize("begins_again", [False, True])
def test_with_a_hub_those_below_it_are_stopped_wherever_they_are(begins_again: bool) -> None:
    """The root goes on without a hub as soon as its tape says so, before those below gave up once more."""
    again = Told("w/i/j", Begin(1)), arrived("y", 1, "w/i/j")
    script = replay(
        *(Told("w/i", Begin(0)), Told("w/i/j", Begin(0)), Told("w/i/j", Lost(0, {"x": "ill"})), GaveUp("w/i/j", "ill")),
        *(Stopped("w/i/j", failed=True), Told("w/i", Lost(0, {"j": "ill"})), GaveUp("w/i", "ill")),
        *(Stopped("w/i", failed=True), Stopped("w/i/j", failed=True), Told("w/i", Begin(1)), *again),
    )
    script.offer("w/i", Begin(0), "")
    if begins_again:
        assert len(script.offer("w/i/j", Begin(0), "")) == 2
    known, _ = script.stop("w/i")
    assert {entry.record.hub for entry in known or ()} == {"w/i", "w/i/j"}  # type: ignore[union-attr]
    assert events(script.offer("w/i", Begin(1), "")) == [Begin(1)]
    assert events(script.offer("w/i/j", Begin(1), "")) == [record.event for record in again]
    assert script.hubs == ()


def test_a_stop_of_which_the_journal_has_nothing_voids_all_that_hubs_below_have_left() -> None:
    script = replay(Told("w/i", Begin(0)), Told("w/i/j", Begin(0)), arrived("x", hub="w/i/j"))
    script.offer("w/i", Begin(0), "")
    assert script.stop("w/i") == (None, []) and script.hubs == ()
    assert events(script.offer("w/i/j", Begin(1), "")) == [Begin(1)]


def test_what_was_done_below_a_hub_whose_beginning_is_not_there_is_left_out() -> None:
    late = arrived("z", 0, "w/i/j")
    records = [late, Told("w/i/j", Begin(1)), arrived("x", 1, "w/i/j"), Told("w/i", Lost(1, {"y": "ill"}))]
    head = Head(1, "", ("w/i",))
    script = replay(*records, head=head)
    assert script.hubs == ("w/i/j",) and events(script.start("w/i/j")) == [late.event]
    assert events(script.offer("w/i/j", Begin(2), "")) == [Begin(2)]
    again = Told("w/i", Begin(2)), Told("w/i/j", Begin(2)), arrived("x", 2, "w/i/j")
    script = replay(*records, Stopped("w/i"), Stopped("w/i/j"), *again, head=head)
    assert script.start("w/i/j") == [], "it was stopped, and has forgotten its late member"
    assert events(script.offer("w/i", Begin(2), "")) == [Begin(2)]
    assert events(script.offer("w/i/j", Begin(2), "")) == [record.event for record in again[1:]]


def test_who_was_stopped_in_rounds_whose_beginning_is_not_there_has_forgotten_what_was_before() -> None:
    head = Head(1, "", ("w/i",), {"w/i/j": {"m": Errand(0, 1)}, "w/i/k": {"n": Errand(0, 1)}})
    again = Told("w/i", Begin(2)), Told("w/i/j", Begin(2)), arrived("x", 2, "w/i/j")
    script = replay(arrived("m", 0, "w/i/j"), Stopped("w/i"), Stopped("w/i/j"), *again, head=head)
    assert script.forgotten == {"w/i", "w/i/j"} and not script.answered("w/i/j", 0, "m")
    assert script.start("w/i/j") == [] and len(script.start("w/i/k")) == 1
    assert events(script.offer("w/i", Begin(2), "")) == [Begin(2)]
    assert events(script.offer("w/i/j", Begin(2), "")) == [record.event for record in again[1:]]


def test_work_that_ended_with_the_process_is_excused_and_hubs_under_way_begin_anew() -> None:
    head = Head(1, "", ("w/i",), {"w": {"i": Errand(0, 1), "m": Errand(0, 1), "n": Errand(0, 1)}})
    script = replay(arrived("x", hub="w/i"), arrived("m"), Told("w", Begin(1)), arrived("i", 0), head=head)
    assert script.start("w/i") == [] and "w/i" not in script.hubs
    assert events(script.start("w")) == [arrived("m").event]
    cues = script.offer("w", Begin(1), "")
    assert events(cues)[-1] == Lost(0, {"n": INTERRUPTED}, excused=True) and cues[-1].entry is None
    lone = replay(head=head)
    assert [set(cue.event.members) for cue in lone.start("w")] == [{"i", "m", "n"}]  # type: ignore[union-attr]


def test_an_update_of_a_hub_that_cannot_follow_is_left_out() -> None:
    script = replay(Told("w", Begin(0)), arrived("i", whole=False), arrived("a"))
    assert events(script.offer("w", Begin(0), "")) == [Begin(0), arrived("a").event]
    assert not script.answered("w", 0, "i")


LOST, GONE = Told("w", Lost(0, {"b": "no data"})), GaveUp("w", "b: no data")


def test_a_run_that_gave_up_asks_those_again_who_were_lost() -> None:
    for after in ((), (Barrier(2),), (Barrier(2), arrived("c"), LOST, GONE), (Barrier(2), Barrier(3))):
        script = replay(Barrier(1), Told("w", Begin(0)), arrived("a"), LOST, arrived("d"), GONE, *after)
        told = events(script.offer("w", Begin(0), ""))
        assert arrived("a").event in told and arrived("d").event in told and LOST.event not in told
        assert not script.answered("w", 0, "b")


def test_what_let_a_member_be_asked_stays_where_a_run_gave_up() -> None:
    """The word that its earlier work had ended, or the end of that work, made a member free for this round."""
    for freed in (Lost(3, {"c": INTERRUPTED}, excused=True), Lost(3, {"c": "power cut"})):
        script = replay(Told("w", Begin(4)), Told("w", freed), arrived("c", 4), Told("w", Lost(4, {"b": "ill"})), GONE)
        assert events(script.offer("w", Begin(4), "")) == [Begin(4), freed, arrived("c", 4).event]


def test_a_late_members_loss_that_ended_a_run_is_not_told_again_whatever_else_was_told_meanwhile() -> None:
    """The hub had closed a round without it, and gave up the next one when it was lost."""
    up = TimeUp(0, 5.0)
    late = Closed("w", Close(0, ("a",), {"b": "late: still at work when the round closed"}, 1, "time"))
    refused = Told("w", Lost(0, {"a": "its update was refused: it has already reported"}))
    script = replay(Told("w", Begin(0, 2)), arrived("a"), Told("w", up), LOST, late, refused, GONE)
    assert events(script.offer("w", Begin(0, 2), "")) == [Begin(0, 2), arrived("a").event, up]
    assert not script.answered("w", 0, "b") and script.answered("w", 0, "a")


@pytest.mark.parametrize("again", [(), (Barrier(2, {}),)])
def test_a_member_that_was_lost_after_its_late_update_counted_is_asked_again(again: tuple[Barrier, ...]) -> None:
    """The round that closed with what it had from before had asked it anew, and is no round that went on without it."""
    closed = Closed("w", Close(1, ("a",), {}, 2, "goal", {"b": "late"}))
    rounds = Told("w", Begin(0)), Told("w", Begin(1)), arrived("b", 0), arrived("a", 1), closed, Told("w", Begin(2))
    script = replay(*rounds, *again, *[closed for _ in again], Told("w", Lost(1, {"b": "ill"})), GaveUp("w", "b: ill"))
    script.offer("w", Begin(0), "")
    script.offer("w", Begin(1), "")
    assert events(script.offer("w", Begin(2), "")) == [Begin(2)]
    assert not script.answered("w", 1, "b") and script.answered("w", 0, "b")


def test_what_a_chain_had_after_a_loss_does_not_count_again() -> None:
    script = replay(Told("w", Begin(0)), arrived("a"), LOST, arrived("d"), GONE, sequential=("w",))
    assert events(script.offer("w", Begin(0), "")) == [Begin(0), arrived("a").event]
    assert not script.answered("w", 0, "d")


def test_a_loss_that_the_hub_went_on_without_stays() -> None:
    inner = Told("w/i", Lost(0, {"y": "ill"}))
    script = replay(
        Told("w", Begin(0)), Told("w/i", Begin(0)), inner, GaveUp("w/i", "ill"), Stopped("w/i", failed=True)
    )
    assert events(script.offer("w/i", Begin(0), "")) == [Begin(0), inner.event]
    script = replay(
        Told("w", Begin(0, 2)),
        arrived("a"),
        LOST,
        Closed("w", Close(0, ("a",), {"b": "no data"}, 1, "")),
        arrived("a", 1),
        Told("w", Lost(1, {"b": "no data"})),
        GONE,
    )
    assert events(script.offer("w", Begin(0, 2), ""))[1:] == [arrived("a").event, LOST.event, arrived("a", 1).event]


def test_a_hub_with_which_the_run_ended_asks_those_again_whose_loss_led_to_it() -> None:
    """Its parent does not go on without it, and closes nothing itself: the journal ends with the hub's word."""
    began = [Told("w", Begin(0)), arrived("a"), Told("w/i", Begin(0)), arrived("x", hub="w/i")]
    ill = Told("w/i", Lost(0, {"y": "ill"}))
    for end in ((), (Barrier(2), arrived("b"))):
        script = replay(Barrier(1), *began, ill, GaveUp("w/i", "y: ill"), *end)
        assert events(script.offer("w", Begin(0), ""))[1] == arrived("a").event
        assert events(script.offer("w/i", Begin(0), "")) == [Begin(0), arrived("x", hub="w/i").event]
        assert script.answered("w/i", 0, "x") and not script.answered("w/i", 0, "y") and script.hubs == ()


def test_hubs_below_one_that_gave_up_go_on_with_it() -> None:
    script = replay(
        Told("w", Begin(0)),
        Told("w/i", Begin(0)),
        arrived("x", hub="w/i"),
        Told("w/i", Lost(0, {"y": "ill"})),
        GaveUp("w/i", "ill"),
        Stopped("w/i", failed=True),
        Told("w", Lost(0, {"i": "ill"})),
        GaveUp("w", "i: ill"),
    )
    assert events(script.offer("w", Begin(0), "")) == [Begin(0)]
    assert events(script.offer("w/i", Begin(0), "")) == [Begin(0), arrived("x", hub="w/i").event]
    assert script.hubs == ()


def test_a_close_that_departs_from_the_journal_is_told() -> None:
    close = Close(0, ("a", "b"), {}, 2, "all")
    script = replay(Told("w", Begin(0)), Closed("w", close))
    script.offer("w", Begin(0), "")
    assert script.departs("w", Close(0, ("b", "a"), {"c": "another reason"}, 2, "")) is None
    assert "a, b (weight 2)" in str(script.departs("w", Close(0, ("a",), {}, 1, "")))
    assert script.departs("w", Close(1, ("a",), {}, 1, "")) is None and script.departs("v", close) is None


def test_what_is_left_is_given_in_the_journals_order() -> None:
    records = [Told("w/i", Begin(0)), Told("w", Begin(0)), arrived("x", hub="w/i"), arrived("a")]
    script = replay(*records)
    assert [entry.record for _, entry in script.left()] == records
    script.offer("w", Begin(0), "")
    assert [(at, entry.record) for at, entry in script.left()] == [(0, records[0]), (2, records[2])]


UNDER_WAY = Head(1, "", ("w/i", "w/i/j"), {"w": {"i": Errand(0, 1), "m": Errand(0, 1)}})
MODEL: tuple[Vector, ...] = (("floats", "float32", (0,)),)


def goes_on(carried: list[Record], *records: Record, head: Head = UNDER_WAY) -> Replay[str]:
    before, since = ([Entry(record, memoryview(b"")) for record in some] for some in (carried, records))
    return Replay(head, since, root="w", carried=before)


def test_rounds_that_were_under_way_at_the_checkpoint_go_on_from_their_beginning() -> None:
    begun = Told("w/i", Begin(0), MODEL)
    since = Told("w", Begin(1)), arrived("y", hub="w/i"), arrived("i", 0, whole=False), arrived("a", 1)
    script = goes_on([begun, arrived("x", hub="w/i")], *since)
    assert script.start("w") == [] and script.start("w/i") == []
    entry = script.under_way("w/i")
    assert entry is not None and entry.record == begun and script.under_way("w") is None
    told = events(script.offer("w/i", begun.event, "begin"))
    assert told == [begun.event, arrived("x", hub="w/i").event, arrived("y", hub="w/i").event]
    assert script.under_way("w/i") is None and set(script.members) == {"w/a"}
    assert events(script.offer("w", Begin(1), "")) == [Begin(1)], "until it has followed"
    cues = script.offer("w", arrived("i", 0).event, "result")
    assert events(cues) == [arrived("i", 0).event, arrived("a", 1).event, Lost(0, {"m": INTERRUPTED}, excused=True)]


def test_nobody_is_told_that_the_work_of_a_hub_has_ended_that_goes_on() -> None:
    script = goes_on([Told("w/i", Begin(0), MODEL)])
    [cue] = script.start("w")
    assert cue.event == Lost(0, {"m": INTERRUPTED}, excused=True)


def test_a_hub_below_one_that_goes_on_is_begun_by_it_and_not_if_its_answer_is_there() -> None:
    begun, below = Told("w/i", Begin(0, 2), MODEL), [Told("w/i/j", Begin(1)), arrived("y", 1, "w/i/j")]
    done = arrived("j", 0, "w/i"), Told("w/i", Lost(0, {"k": "ill"}))
    script = goes_on([begun, *done, *below], Told("w/i", Lost(1, {"k": "ill"})), arrived("j", 1, "w/i", whole=False))
    assert script.under_way("w/i/j") is None and script.start("w/i/j") == []
    assert script.over("w/i", 0, "j") and script.over("w/i", 0, "k")
    assert not script.over("w/i", 1, "j") and not script.over("w/i", 1, "k"), "these follow once more"
    assert len(script.offer("w/i", begun.event, "")) == 4, "up to the update that follows"
    assert events(script.offer("w/i/j", Begin(1), "")) == [record.event for record in below]
    assert events(script.offer("w/i", arrived("j", 1, "w/i").event, "")) == [arrived("j", 1, "w/i").event]
    assert script.hubs == ("w",)


def test_a_hub_that_goes_on_and_is_stopped_is_told_what_came_after() -> None:
    again = Told("w/i", Begin(2)), arrived("y", 2, "w/i")
    script = goes_on([Told("w/i", Begin(0), MODEL), arrived("x", hub="w/i")], Stopped("w/i"), *again)
    assert script.forgotten == set() and script.under_way("w/i") is not None
    assert len(script.offer("w/i", Begin(0), "")) == 2 and script.stops("w/i")
    known, _ = script.stop("w/i")
    assert [entry.record for entry in known or ()] == [Stopped("w/i")]
    assert events(script.offer("w/i", Begin(2), "")) == [record.event for record in again]


def test_of_a_hub_whose_beginning_is_not_there_what_was_told_since_is_left_out() -> None:
    script = goes_on([], arrived("y", hub="w/i"))
    assert script.under_way("w/i") is None and not script.answered("w/i", 0, "y")
    assert len(script.start("w")) == 1 and script.hubs == ()
