"""Members of one hub send their updates in turns: none is lost, however they are cut and come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from link_members import FakeMember, job, lane, layout, model, payload_of, prepared, trained

from hierfl.link.chunks import decode
from hierfl.link.lane import Lane
from hierfl.link.payload import Outgoing
from hierfl.link.turns import Turns

LAYOUT = layout()


def several_ready(folder: Path, payload: Outgoing, num: int) -> dict[str, tuple[Lane, FakeMember, list[Any]]]:
    """Members of one hub that all have an update ready, and are collected."""
    turns, found = Turns(now=lambda: 0.0), {}
    for path in (f"world/{number}" for number in range(num)):
        place, done = lane(folder, path=path, turns=turns)
        prepared(place, member := FakeMember())
        place.call(2, "train", (job(path=path), model(LAYOUT)))
        place.call(3, "collect", ("world", 0))
        place.answered(trained(member.last.ask, payload))
        found[path] = (place, member, done)
    return found


def sends(member: FakeMember) -> bool:
    return member.last.WhichOneof("what") == "take"


def test_members_send_in_turns_and_all_have_sent_in_the_end(tmp_path: Path) -> None:
    payload = payload_of(LAYOUT)
    hub = several_ready(tmp_path, payload, 5)
    assert [sends(member) for _, member, _ in hub.values()] == [True, True, False, False, False]
    for _ in range(len(hub)):
        place, member, _ = next(one for one in hub.values() if sends(one[1]))
        for message in payload.chunks(member.last.take.transfer, 0):
            place.receive(decode(message))
        assert sum(sends(one) for _, one, _ in hub.values()) <= 2
    assert all(done[-1].ticket == 3 for _, _, done in hub.values())


def test_a_turn_is_the_next_ones_where_a_member_is_cut_or_given_up(tmp_path: Path) -> None:
    payload = payload_of(LAYOUT)
    hub = several_ready(tmp_path, payload, 5)
    (first, cut, _), (second, _, _), (third, waits, _), (_, fourth, _), (_, fifth, _) = hub.values()
    third.left(waits.session)
    first.left(cut.session)
    assert not sends(waits) and sends(fourth), "who is gone has no turn"
    second.reset()
    assert sends(fifth)
    first.joined((again := FakeMember()).session)
    third.joined((back := FakeMember()).session)
    assert not again.said and not back.said
    for place, member, _ in list(hub.values())[3:]:
        for message in payload.chunks(member.last.take.transfer, 0):
            place.receive(decode(message))
    assert sends(again) and sends(back)


class Gap:
    """A lane's lock; `then` happens once, right after it was let go of."""

    def __init__(self, place: Lane, then: Callable[[], None]) -> None:
        self.lock, self.then = place._lock, [then]
        place._lock = self  # type: ignore[assignment]

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()
        if self.then:
            self.then.pop()()


def test_a_turn_is_not_lost_where_a_member_is_back_before_its_old_session_is_done_with(tmp_path: Path) -> None:
    hub = several_ready(tmp_path, payload_of(LAYOUT), 4)
    (first, cut, _), (second, _, _), (_, third, _), (fourth, waits, _) = hub.values()
    back = FakeMember()
    Gap(fourth, lambda: fourth.joined(back.session))
    fourth.left(waits.session)
    first.left(cut.session)
    assert sends(third) and not back.said
    second.reset()
    assert sends(back)


def test_a_turn_is_not_lost_where_a_member_is_cut_and_back_just_as_it_comes(tmp_path: Path) -> None:
    hub = several_ready(tmp_path, payload_of(LAYOUT), 4)
    (first, cut, _), (second, _, _), (third, waits, _), (_, fourth, _) = hub.values()
    have_turn, back = third._collect._have_turn, FakeMember()
    waited = third._turns._waiting

    def comes() -> None:
        third.left(waits.session)
        third.joined(back.session)
        assert third.path in waited
        have_turn()

    waited[third.path] = comes
    first.left(cut.session)
    assert sends(fourth) and not back.said
    second.reset()
    assert sends(back)


def test_a_turn_that_was_lost_comes_all_the_same(tmp_path: Path) -> None:
    hub = several_ready(tmp_path, payload_of(LAYOUT), 3)
    (first, cut, _), _, (third, waits, _) = hub.values()
    third._turns.forget(third.path)
    first.left(cut.session)
    assert not sends(waits)
    third.look()
    assert sends(waits)
