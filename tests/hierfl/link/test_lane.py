"""A hub's side of one member, without a network: asked again after every cut, done once."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from link_members import FakeMember, forged, job, lane, layout, model, payload_of, prepared, trained, update

from hierfl.errors import LinkError
from hierfl.learning.standardise import Moments
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.chunks import decode
from hierfl.link.codec import MOST_SAMPLES, moments_out
from hierfl.link.payload import Incoming

LAYOUT = layout()


def test_a_round_goes_to_the_member_and_its_update_comes_back(tmp_path: Path) -> None:
    place, done = lane(tmp_path)
    member = FakeMember()
    prepared(place, member)
    place.call(2, "train", (job(), model(LAYOUT)))
    place.call(3, "collect", ("world", 0))
    ask = member.last.ask
    assert ask.train.hub == "world" and ask.train.weight == 10 and ask.train.total_weight == 40
    payload = payload_of(LAYOUT)
    place.answered(trained(ask, payload))
    take = member.last.take
    assert take.digest == payload.digest and take.offset == 0
    for message in payload.chunks(take.transfer, 0):
        place.receive(decode(message))
    assert [one.ticket for one in done] == [0, 1, 2, 3]
    header, part = done[-1].value, done[-1].beside[0]
    assert header.shares[0].member == "us" and header.shares[0].weight == part.weight == 10
    assert np.array_equal(part.floats, np.frombuffer(b"".join(map(bytes, payload._views[:1])), np.int32))
    assert member.last.receipt.digest == payload.digest
    assert not list(tmp_path.glob("*.update*"))  # what is mapped needs no name


def test_after_a_cut_the_same_is_asked_under_the_same_id(tmp_path: Path) -> None:
    place, done = lane(tmp_path)
    first = FakeMember()
    prepared(place, first)
    place.call(2, "train", (job(), model(LAYOUT)))
    ask = first.last.ask
    place.left(first.session)
    again = FakeMember()
    place.joined(again.session)
    assert [said.ask.id for said in again.said] == [ask.id]
    other, _ = lane(tmp_path)
    prepared(other, anew := FakeMember())
    other.call(9, "train", (job(), model(LAYOUT)))
    assert anew.last.ask.id == ask.id
    assert len(done) == 2


def test_a_new_process_is_prepared_before_it_is_asked(tmp_path: Path) -> None:
    place, done = lane(tmp_path)
    prepared(place, first := FakeMember())
    place.call(2, "train", (job(), model(LAYOUT)))
    ask = first.last.ask
    second = FakeMember("b")
    place.joined(second.session)
    assert first.ended == ["another process serves the member now"]
    assert second.last.ask.WhichOneof("what") == "prepare"
    place.answered(wire.Answer(id=second.last.ask.id, prepared=wire.Prepared()))
    assert second.last.ask == ask and len(done) == 2
    place.joined(FakeMember("b").session)
    assert second.ended == ["the member has connected anew"]


def test_a_new_process_with_another_model_is_sent_away(tmp_path: Path) -> None:
    place, _ = lane(tmp_path)
    prepared(place, FakeMember())
    place.call(2, "train", (job(), model(LAYOUT)))
    place.joined((second := FakeMember("b")).session)
    place.answered(wire.Answer(id=second.last.ask.id, prepared=wire.Prepared(difference="it is larger")))
    assert second.ended == ["it cannot take part in the run any more: it is larger"]


def test_a_model_other_than_the_hubs_is_told_to_whoever_prepares(tmp_path: Path) -> None:
    place, done = lane(tmp_path)
    place.joined((member := FakeMember()).session)
    place.call(1, "prepare", (LAYOUT, None))
    place.answered(wire.Answer(id=member.last.ask.id, prepared=wire.Prepared(difference="it is larger")))
    assert [(one.ticket, one.value) for one in done] == [(1, "it is larger")] and not member.ended


def test_a_member_that_was_cut_while_it_was_prepared_is_asked_to_anew(tmp_path: Path) -> None:
    place, done = lane(tmp_path)
    place.joined((first := FakeMember()).session)
    place.call(1, "prepare", (LAYOUT, None))
    place.left(first.session)
    place.joined((again := FakeMember()).session)
    assert [said.ask.WhichOneof("what") for said in again.said] == ["prepare"]
    place.answered(wire.Answer(id=again.last.ask.id, prepared=wire.Prepared()))
    assert [(one.ticket, one.value) for one in done] == [(1, None)]


def test_a_member_has_its_deadline_from_when_it_is_asked(tmp_path: Path) -> None:
    """It may have been away since long before."""
    clock = [0.0]
    place, done = lane(tmp_path, now=lambda: clock[0], deadline_s=60.0)
    prepared(place, member := FakeMember())
    place.left(member.session)
    clock[0] = 7200.0
    place.call(2, "train", (job(), model(LAYOUT)))
    place.look()
    assert len(done) == 2
    clock[0] = 7261.0
    place.look()
    assert done[-1].away and done[-1].ticket == 2


def test_an_update_goes_on_from_where_the_hub_has_it(tmp_path: Path) -> None:
    place, done = lane(tmp_path)
    prepared(place, first := FakeMember())
    place.call(2, "train", (job(), model(LAYOUT)))
    place.call(3, "collect", ("world", 0))
    payload = payload_of(LAYOUT)
    place.answered(trained(first.last.ask, payload))
    place.receive(decode(next(payload.chunks(first.last.take.transfer, 0))))
    place.left(first.session)
    with pytest.raises(LinkError, match="no transfer that is open"):
        place.receive(decode(next(payload.chunks(first.last.take.transfer, 1 << 20))))
    place.joined((second := FakeMember()).session)
    take = second.last.take
    assert take.offset == 1 << 20 and take.transfer != first.last.take.transfer
    with pytest.raises(LinkError, match="no transfer that is open"):
        place.receive(decode(next(payload.chunks(first.last.take.transfer, 0))))
    for message in payload.chunks(take.transfer, take.offset):
        place.receive(decode(message))
    assert done[-1].ticket == 3 and done[-1].value.num_bytes == payload.shape.num_bytes


def test_an_update_other_than_announced_does_not_count(tmp_path: Path) -> None:
    """A member whose chunks are sound, under the digest of other bytes: what is written down of it would be untrue."""
    place, done = lane(tmp_path)
    prepared(place, member := FakeMember())
    place.call(2, "train", (job(), model(LAYOUT)))
    place.call(3, "collect", ("world", 0))
    payload, other = payload_of(LAYOUT), payload_of(LAYOUT, seed=2)
    place.answered(trained(member.last.ask, payload))
    transfer = member.last.take.transfer
    *chunks, last = forged(payload.digest, other, transfer)
    for chunk in chunks:
        place.receive(chunk)
    with pytest.raises(LinkError, match="not the one that was announced"):
        place.receive(last)
    assert [one.ticket for one in done] == [0, 1, 2]
    for message in payload.chunks(transfer, 0):
        place.receive(decode(message))
    assert done[-1].ticket == 3 and np.array_equal(done[-1].beside[0].floats, update(LAYOUT)[0])


def test_what_a_member_may_not_answer_is_refused(tmp_path: Path) -> None:
    place, done = lane(tmp_path)
    prepared(place, member := FakeMember())
    ask, payload = wire.Ask(), payload_of(LAYOUT)
    other = payload_of(layout(7))
    wrong = [
        (trained(ask, payload, weight=11), "weight"),
        (trained(ask, payload, weight=0), "weight"),
        (trained(ask, other), "the model has"),
        (wire.Answer(id=ask.id, described=wire.Described()), "described in answer to train"),
        (wire.Answer(id=ask.id, trained=wire.Trained(error="x" * 5000)), "at most 2000"),
    ]
    for ticket, (answer, said) in enumerate(wrong, 2):
        place.call(ticket, "train", (job(), model(LAYOUT)))
        answer.id = member.last.ask.id
        with pytest.raises(LinkError, match=said):
            place.answered(answer)
        assert done[-1].ticket == ticket and re.search(said, done[-1].value[0].error)
    done.clear()
    place.call(9, "train", (job(), model(LAYOUT)))
    ask = member.last.ask
    place.answered(wire.Answer(id=ask.id + 1, trained=wire.Trained(weight=1)))  # of something given up: not counted
    assert not done
    place.answered(trained(ask, payload))
    assert [one.ticket for one in done] == [9]


def test_figures_that_all_members_together_could_not_have_are_refused(tmp_path: Path) -> None:
    place, _ = lane(tmp_path)  # of two sites
    prepared(place, member := FakeMember())
    payload, most = payload_of(LAYOUT), 2 * MOST_SAMPLES
    moments = moments_out(Moments.of(np.ones((3, 2), np.float32)))

    def refused(answer: wire.Answer, said: str) -> None:
        answer.id = member.last.ask.id
        with pytest.raises(LinkError, match=said):
            place.answered(answer)
        place.reset()

    for described, said in (
        (wire.Described(num_train=2**53), "num_train"),
        (wire.Described(num_train=most + 1), "num_train"),
        (wire.Described(num_test=most + 1), "num_test"),
        (wire.Described(num_train=3, num_patients=4), "num_patients"),
        (wire.Described(num_train=4, moments=moments), "moments of 3 training samples, and 4 of them"),
        (wire.Described(num_train=3, statistics=wire.Statistics(num_rows=most + 1)), "num_rows"),
    ):
        place.call(2, "describe", (["world/us"],))
        refused(wire.Answer(described=described), said)
    for figures, said in (
        ({"duration_s": 1e308}, "duration_s"),
        ({"duration_s": float("nan")}, "duration_s"),
        ({"num_samples": most + 1}, "num_samples"),
    ):
        place.call(2, "train", (job(), model(LAYOUT)))
        answer = trained(member.last.ask, payload)
        answer.trained.MergeFrom(wire.Trained(**figures))
        refused(answer, said)
    place.call(2, "evaluate", ("world", ["world/us"], model(LAYOUT), 1))
    refused(wire.Answer(evaluated=wire.Evaluated(duration_s=1e308)), "duration_s")


@pytest.mark.parametrize(("loss", "told"), [(0.5, 0.5), (-3e38, -3e38), (1e80, None), (float("nan"), None)])
def test_a_training_loss_that_is_none_is_not_told(tmp_path: Path, loss: float, told: float | None) -> None:
    place, done = lane(tmp_path)
    prepared(place, member := FakeMember())
    place.call(2, "train", (job(), model(LAYOUT)))
    answer = trained(member.last.ask, payload_of(LAYOUT))
    answer.trained.loss = loss
    place.answered(answer)
    assert done[-1].value[0].loss == told


def test_an_error_of_the_members_is_the_sites(tmp_path: Path) -> None:
    place, done = lane(tmp_path)
    prepared(place, member := FakeMember())
    place.call(2, "train", (job(), model(LAYOUT)))
    place.call(3, "collect", ("world", 0))
    place.answered(wire.Answer(id=member.last.ask.id, trained=wire.Trained(error="no data today")))
    assert done[-2].value[0].error == "no data today" and done[-1].value is None


def test_a_member_is_given_up_after_its_deadline_and_may_come_back(tmp_path: Path) -> None:
    clock = [0.0]
    place, done = lane(tmp_path, now=lambda: clock[0], deadline_s=60.0)
    prepared(place, member := FakeMember())
    place.call(2, "train", (job(), model(LAYOUT)))
    place.call(9, "collect", ("world", 0))
    place.left(member.session)
    clock[0] = 59.0
    place.look()
    assert len(done) == 2
    clock[0] = 61.0
    place.look()
    assert done[-1].crashed == "not heard of for 60 s (link.deadline_s)" and done[-1].away
    assert [one.ticket for one in done] == [0, 1, 2], "what was asked behind it is asked anew by whoever did"
    place.reset()
    place.call(3, "prepare", (LAYOUT, None))
    place.look()
    place.joined((second := FakeMember("b")).session)
    place.answered(wire.Answer(id=second.last.ask.id, prepared=wire.Prepared()))
    assert done[-1].ticket == 3 and done[-1].value is None


def test_a_member_whose_update_is_coming_is_heard_of_and_what_has_come_goes_with_the_call(tmp_path: Path) -> None:
    clock = [0.0]
    place, done = lane(tmp_path, now=lambda: clock[0], deadline_s=60.0)
    prepared(place, member := FakeMember())
    place.call(2, "train", (job(), model(LAYOUT)))
    place.call(3, "collect", ("world", 0))
    payload = payload_of(LAYOUT)
    place.answered(trained(member.last.ask, payload))
    clock[0] = 50.0
    place.receive(decode(next(payload.chunks(member.last.take.transfer, 0))))
    clock[0] = 100.0
    place.look()
    assert len(done) == 3 and len(list(tmp_path.iterdir())) == 1
    place.reset()
    assert not list(tmp_path.glob("*.update*"))


def test_only_the_model_that_was_sent_for_can_be_fetched(tmp_path: Path) -> None:
    place, _ = lane(tmp_path)
    prepared(place, member := FakeMember())
    start = model(LAYOUT)
    place.call(2, "train", (job(), start))
    digest = member.last.ask.train.model.digest
    assert place.payload(digest).shape.num_floats == LAYOUT.num_floats
    with pytest.raises(LinkError, match="no model that was sent for"):
        place.payload(bytes(32))


def test_members_share_a_models_payload_and_let_go_of_it(tmp_path: Path) -> None:
    from hierfl.link.shelf import Shelf

    shelf, start = Shelf(), model(LAYOUT)
    one: Any = shelf.payload(start)
    assert shelf.payload(start) is one
    del one
    assert not list(shelf._payloads.items())


def test_two_members_may_send_the_same_bits_at_the_same_time(tmp_path: Path) -> None:
    lanes = [lane(tmp_path, path=path) for path in ("world/us", "world/them")]
    payload, waiting = payload_of(LAYOUT), []
    for place, _ in lanes:
        member = FakeMember()
        prepared(place, member)
        place.call(2, "train", (job(path=place.path), model(LAYOUT)))
        place.call(3, "collect", ("world", 0))
        place.answered(trained(member.last.ask, payload))
        waiting.append(payload.chunks(member.last.take.transfer, 0))
    for chunks in zip(*waiting, strict=True):
        for (place, _), chunk in zip(lanes, chunks, strict=True):
            place.receive(decode(chunk))
    for _, done in lanes:
        assert done[-1].ticket == 3 and np.array_equal(done[-1].beside[0].floats, update(LAYOUT)[0])


def test_an_update_that_could_not_be_named_comes_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    payload = payload_of(LAYOUT)
    incoming = Incoming(tmp_path / "update", payload.shape, payload.digest)
    *chunks, last = (decode(chunk) for chunk in payload.chunks(1, 0))
    for chunk in chunks:
        incoming.take(chunk)

    def no_room(*_: object) -> None:
        raise OSError("no room")

    with monkeypatch.context() as full:
        full.setattr(os, "replace", no_room)
        with pytest.raises(OSError, match="no room"):
            incoming.take(last)
    assert not incoming.is_whole and incoming.received == last.offset
    incoming.take(last)
    assert incoming.is_whole


def test_a_process_that_was_succeeded_may_not_come_back(tmp_path: Path) -> None:
    place, _ = lane(tmp_path)

    def comes(number: int, line: str) -> str:
        return place.succeeded(FakeMember("a", number, line).session)

    assert not comes(1, "x") and not comes(2, "x") and not comes(2, "x")
    assert comes(1, "x") == "number 2 serves world/us since, and this is number 1"
    assert not comes(1, "y"), "its folder was deleted, and with it the numbers"
    assert not comes(0, ""), "it counts no processes"


def test_of_processes_that_know_nothing_of_each_other_the_last_to_come_stays(tmp_path: Path) -> None:
    """Each counts in a line of its own, as with two `--state` folders: they do not take turns."""
    place, _ = lane(tmp_path)

    def comes(instance: str) -> str:
        return place.succeeded(FakeMember(instance, 1, f"the line of {instance}").session)

    assert not comes("a") and not comes("a") and not comes("b") and not comes("b")
    assert comes("a") == "another process, which came after this one, serves world/us"
    assert not comes("b") and not comes("c") and comes("b") and comes("a") and not comes("c")
