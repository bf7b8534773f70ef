"""A member's side of masked sums: whom it believes, and that no two masked updates have masks in common."""

from __future__ import annotations

import copy
import json
import queue
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from link_invented import varied
from link_members import Pki
from masked_members import MEMBERS, Cohort

from hierfl.errors import LinkError
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.codec import payload_out
from hierfl.link.identity import MEMBER
from hierfl.link.masker import Masker
from hierfl.link.masks import new_secret, public_of


def last(play: Cohort, path: str, kind: str) -> Any:
    """The last question of a kind to a member."""
    found = [said.ask for said in play.members[path].fake.said if said.ask.WhichOneof("what") == kind]
    return copy.deepcopy(getattr(found[-1], kind))


@pytest.fixture
def play(tmp_path: Path) -> Cohort:
    """All have given their keys, and are asked for their masked updates."""
    found = Cohort(tmp_path)
    found.order()
    found.play("mask")
    return found


def changed(asked: wire.AskMasked, change: Callable[[wire.AskMasked], None]) -> wire.AskMasked:
    found = wire.AskMasked()
    found.CopyFrom(asked)
    change(found)
    return found


def between(asked: wire.AskMasked) -> None:
    """The hub puts a key of its own in the place of another member's."""
    asked.keys[1].public = public_of(new_secret())


def heavier(asked: wire.AskMasked) -> None:
    asked.keys[1].weight = 11


def fewer(asked: wire.AskMasked) -> None:
    del asked.keys[2]


def another_order(asked: wire.AskMasked) -> None:
    first, second = wire.MemberKey(), asked.keys[1]
    first.CopyFrom(second)
    asked.keys[1].CopyFrom(asked.keys[2])
    asked.keys[2].CopyFrom(first)


def twice(asked: wire.AskMasked) -> None:
    asked.keys[2].CopyFrom(asked.keys[1])
    asked.keys[2].node = "world/c"


def own(asked: wire.AskMasked) -> None:
    asked.keys[0].public = public_of(new_secret())


def short(asked: wire.AskMasked) -> None:
    asked.keys[1].public = b"short"


def nonsense(asked: wire.AskMasked) -> None:
    asked.keys[1].certificate = b"nonsense"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (between, "world/b has not signed this"),
        (heavier, "world/b has not signed this"),
        (fewer, "keys of 2 members, which are not the 3 of the sum"),
        (another_order, "which are not the 3 of the sum"),
        (twice, r"in the name of world/c has the certificate of hierfl://trial/member/world/b"),
        (own, "another key of world/a than its own"),
        (short, "of 5 bytes"),
        (nonsense, "in the name of world/b has no certificate of this federation's"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_member_believes_what_the_others_have_signed_and_nobody_else(
    play: Cohort, change: Callable[[wire.AskMasked], None], said: str
) -> None:
    asked, masker = last(play, MEMBERS[0], "mask"), play.members[MEMBERS[0]].masker
    with pytest.raises(LinkError, match=said):
        masker.mask(changed(asked, change))
    assert masker.mask(asked).is_lost, "the secret is gone with the first use"


def test_a_hub_with_an_authority_of_its_own_is_not_between(play: Cohort, tmp_path: Path) -> None:
    """It has made a certificate in another's name: what is signed counts by the authority in the member's own kit."""
    strange = Pki(tmp_path / "strange", play.config.name, dict.fromkeys(MEMBERS, (MEMBER,)))
    masker = Masker(play.config, strange.kit(MEMBERS[1]), play.members[MEMBERS[1]].store)
    asked = last(play, MEMBERS[0], "mask")
    false = masker.key("run-1", wire.Ask(key=last(play, MEMBERS[1], "key"))).key

    def put(said: wire.AskMasked) -> None:
        said.keys[1].CopyFrom(false)

    with pytest.raises(LinkError, match="has no certificate of this federation's"):
        play.members[MEMBERS[0]].masker.mask(changed(asked, put))


@pytest.mark.parametrize(("days", "said"), [(2, "does not hold now"), (-2, "does not hold now")])
def test_a_certificate_that_has_run_out_signs_nothing(play: Cohort, days: int, said: str) -> None:
    masker = play.members[MEMBERS[0]].masker
    masker._now = lambda: datetime.now(UTC) + timedelta(days=days)
    with pytest.raises(LinkError, match=said):
        masker.mask(last(play, MEMBERS[0], "mask"))


def test_a_secret_masks_one_update_once(play: Cohort) -> None:
    """Asked again, whether in the same words or for a key of the same attempt: other masks, or none."""
    member, asked = play.members[MEMBERS[0]], last(play, MEMBERS[0], "mask")
    first = member.masker.mask(asked)
    assert not first.is_lost and member.masker.offered(first.update.digest) is not None
    assert member.masker.mask(asked).is_lost
    assert member.masker.offered(first.update.digest) is None
    again = member.masker.key("run-1", wire.Ask(key=last(play, MEMBERS[0], "key")))
    assert again.key.public != asked.keys[0].public
    with pytest.raises(LinkError, match="another key of world/a than its own"):
        member.masker.mask(asked)
    member.masker.key("run-1", wire.Ask(key=last(play, MEMBERS[0], "key")))
    asked.attempt = bytes(16)
    assert member.masker.mask(asked).is_lost


def test_members_that_started_from_other_models_have_no_sum(tmp_path: Path) -> None:
    """A hub that hands out models by which it could tell updates apart learns nothing from the masked ones."""
    play = Cohort(tmp_path)
    play.order(seeds=(0, 0, 1))
    with pytest.raises(LinkError, match="world/c has not signed this: it is of another round, model, list of members"):
        play.play()


def test_a_key_is_for_what_was_trained_and_for_nothing_else(play: Cohort) -> None:
    asked, masker = last(play, MEMBERS[2], "key"), play.members[MEMBERS[2]].masker
    asked.train.model.digest = bytes(32)
    assert masker.key("run-1", wire.Ask(key=asked)).is_lost, "nothing was trained from that model"
    asked = last(play, MEMBERS[2], "key")
    assert masker.key("run-2", wire.Ask(key=asked)).is_lost, "nor in that run"
    asked.attempt = b""
    with pytest.raises(LinkError, match="a key for a sum that is not of world"):
        masker.key("run-1", wire.Ask(key=asked))


def test_of_a_round_one_update_is_masked_whoever_asks_again(play: Cohort) -> None:
    """A hub with two sums that differ in one member's update alone would have their difference."""
    member = play.members[MEMBERS[0]]
    play.play()
    [noted] = member.store.folder.glob("masked/run-1/rounds.json")
    assert set(json.loads(noted.read_text())) == {"0"}
    play.order(order="again")
    play.play()
    assert len(play.handed) == 2, "the same update once more tells nothing"
    payload = member.store.put(member.update[0] + 1, member.update[1])
    train = next(said.ask for said in member.fake.said if said.ask.WhichOneof("what") == "train")
    trained = wire.Trained(weight=10, update=payload_out(payload.shape, payload.digest))
    member.store.keep(wire.Answer(id=train.id, trained=trained))
    play.order(order="third")
    with pytest.raises(
        LinkError, match=r"round 1 of run run-1 .* another update .* delete .*masked/run-1/rounds.json to let it"
    ):
        play.play()


def test_a_member_trains_for_its_own_weight_alone(play: Cohort) -> None:
    """Another one at the same round would give two sums that differ by a part of its update."""
    masker = play.members[MEMBERS[0]].masker
    masker.check_weight(10, 10)
    with pytest.raises(LinkError, match="world/a is to train for a weight of 5, and its own is 10"):
        masker.check_weight(5, 10)


def test_a_masker_takes_or_refuses_whatever_a_hub_says(play: Cohort) -> None:
    chance, member = random.Random(0), play.members[MEMBERS[0]]
    key, mask, refused = last(play, MEMBERS[0], "key"), last(play, MEMBERS[0], "mask"), 0
    for _ in range(150):
        for act, asked in (
            (lambda said: member.masker.key("run-1", wire.Ask(key=said)), key),
            (member.masker.mask, mask),
        ):
            try:
                act(varied(asked, chance))
            except LinkError:
                refused += 1
    assert refused > 50


def test_a_hub_with_a_plain_update_in_mind_is_given_none(play: Cohort) -> None:
    """By its digest, which it could only guess."""
    from hierfl.link.desk import Desk
    from hierfl.link.payload import Outgoing

    member = play.members[MEMBERS[0]]
    plain = Outgoing(*member.update)
    assert member.store.outgoing(plain.digest) is not None
    branch: Any = type("Branch", (), {"enter": lambda self, number: None, "heed": lambda self: None})()
    heard: queue.SimpleQueue[wire.Answer] = queue.SimpleQueue()
    desk = Desk(lambda: branch, member.store, heard.put, *[lambda *_: None] * 4, masker=member.masker)  # type: ignore[arg-type]
    try:
        assert desk.offered(plain.digest) is None
        train = next(said.ask for said in member.fake.said if said.ask.WhichOneof("what") == "train")
        desk.asked("run-1", train)
        answer = heard.get(timeout=60).trained
        assert answer.weight == 10 and not answer.HasField("update")
    finally:
        desk.close(5.0)
