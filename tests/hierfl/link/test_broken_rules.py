"""A member that breaks the rules costs a round no more than itself: what it was asked ends by name, and not the log."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from link_dialers import hello_of
from link_inside import Inside, several_runs  # noqa: F401
from link_members import (
    FakeMember,
    Pki,
    forged,
    hub_on_loopback,
    job,
    lane,
    layout,
    model,
    payload_of,
    prepared,
    trained,
)
from masked_members import Cohort
from small_runs import Listener, config_of, hub, site

from hierfl.errors import DataError, LinkError, SiteFailed
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.chunks import decode
from hierfl.link.codec import integer_out
from hierfl.link.door import SERVICE
from hierfl.link.identity import server_name
from hierfl.link.lane import Lane
from hierfl.link.log import LINES_AT_ONCE, Sparing
from hierfl.link.permits import NODE_KEY
from hierfl.monitor.records import RoundClosed
from hierfl.runtime.jobs import LeftOut

LAYOUT = layout()
LINK = {"address": "hub.example.org:8443"}


def asked_to_train(folder: Path) -> tuple[Lane, FakeMember, list[Any], list[float]]:
    """A lane whose member was asked to train, and for its update, with what is done and the clock."""
    clock = [0.0]
    place, done = lane(folder, now=lambda: clock[0], deadline_s=60.0)
    prepared(place, member := FakeMember())
    place.call(2, "train", (job(), model(LAYOUT)))
    place.call(3, "collect", ("world", 0))
    return place, member, done, clock


@pytest.mark.parametrize(
    ("method", "answer", "said"),
    [
        ("train", wire.Answer(trained=wire.Trained(weight=2**60)), "the weight of an update is"),
        ("train", wire.Answer(described=wire.Described()), "described in answer to train"),
        ("train", wire.Answer(trained=wire.Trained(error="x" * 5000)), "an error of 5000 characters"),
        ("train", wire.Answer(), "None in answer to train"),
        ("evaluate", wire.Answer(evaluated=wire.Evaluated(duration_s=-1)), "duration_s"),
        ("describe", wire.Answer(described=wire.Described(num_train=2**53)), "num_train"),
    ],
)
def test_an_answer_that_may_not_be_is_the_last_to_what_was_asked(
    tmp_path: Path, method: str, answer: wire.Answer, said: str
) -> None:
    place, done = lane(tmp_path)
    prepared(place, member := FakeMember())
    measuring = ("world", ["world/us"], model(LAYOUT), 1)
    arguments = {"train": (job(), model(LAYOUT)), "evaluate": measuring, "describe": ([],)}
    place.call(2, method, arguments[method])
    place.call(3, "evaluate", ("world", ["world/us"], model(LAYOUT, 1), 1))
    answer.id = member.last.ask.id
    with pytest.raises(LinkError, match=said):
        place.answered(answer)
    value = done[-1].value
    error = value.errors["world/us"] if method == "evaluate" else value[0].error
    assert done[-1].ticket == 2 and error.startswith("its answer was refused: ") and said in error
    place.left(member.session)
    place.joined((again := FakeMember()).session)
    assert again.last.ask.HasField("evaluate") and again.last.ask.id != answer.id, "what comes next"


def test_a_model_that_is_spoken_of_at_too_great_length_is_another_one(tmp_path: Path) -> None:
    place, done = lane(tmp_path)
    place.joined((member := FakeMember()).session)
    place.call(1, "prepare", (LAYOUT, None))
    with pytest.raises(LinkError, match="at most 2000"):
        place.answered(wire.Answer(id=member.last.ask.id, prepared=wire.Prepared(difference="x" * 5000)))
    assert done[-1].value == "its answer was refused: a difference of 5000 characters; at most 2000"


def test_whoever_breaks_the_rules_and_joins_anew_has_its_deadline_once(tmp_path: Path) -> None:
    place, member, done, clock = asked_to_train(tmp_path)
    for _ in range(7):
        clock[0] += 10.0
        place.heard()
        place.look()
        assert len(done) == 2
        place.strayed(member.session)
        place.left(member.session)
        place.joined((member := FakeMember()).session)
    clock[0] += 1.0
    place.look()
    assert [one.ticket for one in done] == [0, 1, 2, 3]
    assert done[2].value[0].error == "broke the rules, and has not answered since for 60 s (link.deadline_s)"
    assert done[2].crashed is None and done[3].value is None


def test_an_answer_ends_what_was_held_against_a_member(tmp_path: Path) -> None:
    place, member, done, clock = asked_to_train(tmp_path)
    place.strayed(member.session)
    clock[0] = 59.0
    place.answered(trained(member.last.ask, payload_of(LAYOUT)))
    clock[0] = 100.0
    place.heard()
    place.look()
    assert [one.ticket for one in done] == [0, 1, 2]
    place.reset()
    for ticket in (5, 6):
        place.call(ticket, "evaluate", ("world", ["world/us"], model(LAYOUT), 1))
    with pytest.raises(LinkError):  # a refused one, too: what is asked next has its own time
        place.answered(wire.Answer(id=member.last.ask.id))
    place.strayed(member.session)
    clock[0] = 200.0
    place.heard()
    place.look()
    assert done[-1].ticket == 5


def test_an_update_that_is_refused_for_a_deadline_is_left_out(tmp_path: Path) -> None:
    place, member, done, clock = asked_to_train(tmp_path)
    payload, other = payload_of(LAYOUT), payload_of(LAYOUT, seed=2)
    place.answered(trained(member.last.ask, payload))
    for number in range(8):
        clock[0] = 10.0 * number
        chunks = forged(payload.digest, other, member.last.take.transfer)
        *whole, last = chunks
        for chunk in whole:
            place.receive(chunk)
        with pytest.raises(LinkError, match="not the one that was announced"):
            place.receive(last)
        place.look()
        if done[-1].ticket == 3:
            break
        place.left(member.session)
        place.joined((member := FakeMember()).session)
    assert clock[0] == 70.0 and isinstance(done[-1].value, LeftOut)
    assert done[-1].value.sites["world/us"].startswith("broke the rules, and has not answered since for 60 s")
    assert not list(tmp_path.glob("*.update*"))


def test_an_update_that_comes_further_than_what_was_refused_goes_on(tmp_path: Path) -> None:
    big = layout(1_000_000)  # four chunks
    place, member, done, clock = asked_to_train(tmp_path)
    place.reset()
    place.call(4, "prepare", (big, None))
    place.answered(wire.Answer(id=member.last.ask.id, prepared=wire.Prepared()))
    place.call(5, "train", (job(), model(big)))
    place.call(6, "collect", ("world", 0))
    payload = payload_of(big)
    place.answered(trained(member.last.ask, payload))
    first, *others = (decode(chunk) for chunk in payload.chunks(member.last.take.transfer, 0))
    with pytest.raises(LinkError, match="damaged"):
        place.receive(replace(first, check=bytes(32)))
    for chunk in (first, *others):
        clock[0] += 40.0
        place.receive(chunk)
        place.look()
    assert done[-1].ticket == 6 and done[-1].value.num_bytes == payload.shape.num_bytes


@pytest.mark.parametrize("kind", ["key", "mask"])
def test_who_takes_no_part_in_a_masked_sum_is_out_where_rounds_go_on(tmp_path: Path, kind: str) -> None:
    for rule in ("continue", "stop"):
        play = Cohort(tmp_path / rule, names=("a", "b", "c", "d"), on_failure=rule)
        play.order()
        play.play(kind)
        [path, *_] = play.paths
        ask = play.members[path].fake.last.ask
        wrong = wire.Keyed(key=wire.MemberKey(node="x")) if kind == "key" else None
        answer = wire.Answer(id=ask.id, keyed=wrong) if wrong else wire.Answer(id=ask.id, masked=wire.Masked())
        with pytest.raises(LinkError):
            play.lanes[path].answered(answer)
        play.members[path].num_done = len(play.members[path].fake.said)
        play.play()
        if rule == "stop":
            [error] = [str(one.error) for one in play.done if one.error is not None]
            assert f"{path} takes no part in the masked sum: its answer was refused: " in error
            continue
        out = {
            path: why for one in play.done if isinstance(one.value, LeftOut) for path, why in one.value.sites.items()
        }
        assert out[path].startswith("takes no part in the masked sum: its answer was refused: ")
        others = [len(done.value.shares) for done in play.handed_sums]
        assert (others, len(out)) == (([3], 1) if kind == "key" else ([], 4)), (
            "of who may have masked there is no other"
        )


LIES: dict[str, tuple[str, Callable[[Any], object]]] = {
    "num": ("described", lambda said: setattr(said, "num_train", 2**53)),
    "late": ("trained", lambda said: setattr(said, "weight", 2**60)),
    "dur": ("trained", lambda said: setattr(said, "duration_s", 1e308)),
    "tally": ("evaluated", lambda said: setattr(said.tally, "num_left_out", 2**60)),
    "loss": ("evaluated", lambda said: setattr(said.tally, "loss", integer_out(-(2**700)))),
}


class Lying(Inside):
    """One of whose members says what it may not; its session goes on."""

    lie = "num"

    def _open(self, members: tuple[str, ...], done: Any, base: Any) -> Any:
        service, lanes = super()._open(members, done, base)
        liar, (kind, change) = lanes["world/c"], LIES[self.lie]
        honest = liar.answered

        def answered(answer: wire.Answer) -> None:
            if answer.WhichOneof("what") == kind:
                change(getattr(answer, kind))
            with contextlib.suppress(LinkError):
                honest(answer)

        liar.answered = answered
        return service, lanes


@pytest.mark.usefixtures("several_runs")
@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("rule", ["continue", "stop"])
def test_a_lie_is_the_failure_of_who_tells_it(tmp_path: Path, lie: str, rule: str) -> None:
    members = [{**site(name), "link": LINK} for name in "abc"]
    rules = {"on_failure": rule, "quorum": 0.5} if rule == "continue" else {"on_failure": rule}
    linked = Lying(config_of(tmp_path / "runs", hub("world", *members, rounds=2, **rules)), tmp_path / "linked")
    linked.lie, monitor = lie, Listener()
    if rule == "stop":
        with pytest.raises((SiteFailed, DataError), match=r"world/c.*: its answer was refused: "):
            linked.go(monitor)
        return
    assert linked.go(monitor)["status"] == "finished"
    closed = [record for record in monitor.of(RoundClosed) if record.node == "world"]
    trains = LIES[lie][0] == "evaluated"
    assert [sorted(record.members) for record in closed] == [[*"abc"] if trains else [*"ab"]] * 2
    if not trains:
        assert all(record.missing["c"].startswith("its answer was refused: ") for record in closed)


def test_a_member_that_breaks_the_rules_again_and_again_fills_no_log(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    with hub_on_loopback(pki) as (service, lanes, done, heard):
        lanes["world/us"].call(0, "describe", (["world/us"],))
        key, certificate, authority = pki.kit("world/us").credentials()
        credentials = grpc.ssl_channel_credentials(authority, key, certificate)
        options = [("grpc.ssl_target_name_override", server_name("heart", "world"))]
        bad = [wire.MemberSays(hello=hello_of("a"), sequence=1), wire.MemberSays(sequence=7)]
        with grpc.secure_channel(f"localhost:{service.port}", credentials, options) as channel:
            control = channel.stream_stream(f"/{SERVICE}/Control", request_serializer=wire.MemberSays.SerializeToString)
            for _ in range(30):
                said = [wire.HubSays.FromString(one) for one in control(iter(bad), metadata=((NODE_KEY, b"world/us"),))]
                assert said[-1].bye.reason.startswith("this was refused: message 7")
        assert LINES_AT_ONCE <= len(heard) < LINES_AT_ONCE + 10, len(heard)
        assert any("broke the rules: message 7 of a session" in line for line in heard)
        assert done.empty() and lanes["world/us"]._calls[0].strayed_s is not None


def test_lines_that_are_left_out_are_counted() -> None:
    clock, said = [0.0], list[tuple[str, str, str]]()
    sparing = Sparing(lambda *line: said.append(line), lambda: clock[0])
    for number in range(50):
        sparing("info", "world/a", f"line {number}")
    sparing("info", "world/b", "of another")
    assert [line[2] for line in said] == [*(f"line {number}" for number in range(20)), "of another"]
    clock[0] = 5.0
    sparing("warning", "world/a", "line 50")
    assert said[-1] == ("warning", "world/a", "line 50 (30 lines before this one were left out)")
    clock[0] = 10.0
    sparing("info", "world/a", "line 51")
    assert said[-1][2] == "line 51"
