"""A hub's side of masked sums: either the sum of the whole cohort, once, or nothing, whoever dies and comes back."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from link_invented import varied
from masked_members import MEMBERS, SMALL, Cohort

from hierfl.errors import LinkError
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.codec import payload_out
from hierfl.link.payload import Outgoing


def is_sum(play: Cohort) -> bool:
    [done] = play.handed
    part, (floats, ints) = done.beside[0], play.total
    shares = [(share.member, share.weight) for share in done.value.shares]
    assert shares == [("a", 10), ("b", 10), ("c", 10)] and part.weight == 30
    return bool(np.array_equal(part.floats, floats) and np.array_equal(part.ints, ints))


def test_one_lane_hands_up_the_sum_and_the_others_nothing(tmp_path: Path) -> None:
    play = Cohort(tmp_path)
    play.order()
    play.play()
    assert is_sum(play)
    assert [done.ticket for done in play.done].count(2) == 3
    assert not list((tmp_path / "spool").glob("*.masked*"))
    play.order(1, "second")
    play.play()
    assert len(play.handed) == 2, "the next round has a sum of its own"


def test_what_a_hub_is_sent_tells_nothing_of_one_member(tmp_path: Path) -> None:
    """The same update in two rounds: all that is sent of it differs, by numbers all over the ring."""
    play = Cohort(tmp_path)
    for number in range(2):
        play.order(number, str(number))
        play.play()
    for path, member in play.members.items():
        first, second = (np.frombuffer(sent, np.int32)[: SMALL.num_floats] for sent in member.sent)
        plain = member.update[0]
        for seen in (first, second, first - second, first - plain, second - plain):
            assert np.count_nonzero(seen) > 290 and np.abs(seen.astype(np.int64)).mean() > 2**29, path
    said = b"".join(one.SerializeToString() for one in play.members[MEMBERS[0]].fake.said)
    plain_digest = Outgoing(*play.members[MEMBERS[0]].update).digest
    assert plain_digest not in said


@pytest.mark.parametrize("at", ["train", "key", "mask", "take"])
@pytest.mark.parametrize("path", [MEMBERS[0], MEMBERS[2]])
def test_a_member_whose_process_dies_takes_part_with_a_new_key(tmp_path: Path, at: str, path: str) -> None:
    """Whatever it was asked when it died; the others' masked updates of before are of no use, and never sent again."""
    play = Cohort(tmp_path)
    play.order()
    play.play(at, without=())
    keys = [said.ask.mask.keys for one in play.members.values() for said in one.fake.said if said.ask.mask.keys]
    play.restart(path)
    play.play()
    assert is_sum(play)
    after = [said.ask.mask for said in play.members[path].fake.said if said.ask.mask.keys]
    for seen in keys:
        assert not {one.public for one in seen} & {one.public for one in after[-1].keys}
    sent = [chunk for one in play.members.values() for chunk in one.sent]
    assert len(set(sent)) == len(sent)
    assert not list((tmp_path / "spool").glob("*.masked*"))


def test_a_member_that_is_cut_goes_on_with_its_key(tmp_path: Path) -> None:
    play = Cohort(tmp_path)
    play.order()
    play.play("take")
    member = play.members[MEMBERS[1]]
    play.lanes[MEMBERS[1]].left(member.fake.session)
    before = member.masker.offered(member.fake.said[-1].take.digest)
    again = play._member(member.path, member.kit, member.update)  # the same process
    again.masker, again.store = member.masker, member.store
    play.members[MEMBERS[1]] = again
    play.lanes[MEMBERS[1]].joined(again.fake.session)
    play.play()
    assert is_sum(play) and before is not None and again.sent == [b"".join(again.sent)]
    assert [said.WhichOneof("what") for said in again.fake.said if said.HasField("ask")] == []


def test_a_member_that_stays_away_is_waited_for_with_all_that_had_come(tmp_path: Path) -> None:
    play = Cohort(tmp_path)
    play.order()
    play.play("take", without=())
    play.play(without=(MEMBERS[2],))
    assert not play.handed
    play.lanes[MEMBERS[2]].left(play.members[MEMBERS[2]].fake.session)
    play.clock = 61.0
    for path in MEMBERS[:2]:
        play.lanes[path].heard()
    play.lanes[MEMBERS[2]].look()
    assert play.done[-1].crashed is not None and play.done[-1].away
    play.lanes[MEMBERS[2]].reset()
    play.play(without=(MEMBERS[2],))
    assert not play.handed and not list((tmp_path / "spool").glob("*.masked*"))
    play.restart(MEMBERS[2])
    play.lanes[MEMBERS[2]].call(3, "prepare", (SMALL, None))
    play.order(paths=MEMBERS[2:])
    play.play()
    assert is_sum(play)


def test_a_member_that_has_lost_its_update_trains_again(tmp_path: Path) -> None:
    play = Cohort(tmp_path)
    play.order()
    play.play("key")
    for file in (tmp_path / "world__b" / "updates").iterdir():
        file.unlink()
    play.play()
    assert not play.handed and play.done[-1].crashed == "its update is not there any more"
    play.lanes[MEMBERS[1]].reset()
    play.order(paths=MEMBERS[1:2])
    play.play()
    assert is_sum(play)


def test_what_is_not_wanted_any_more_ends_without_a_sum(tmp_path: Path) -> None:
    play = Cohort(tmp_path)
    play.order()
    play.play(without=(MEMBERS[1],))
    play.lanes[MEMBERS[0]].call(2, "collect", ("world", 0))
    play.play(without=(MEMBERS[1],))
    assert [(one.actor, one.value) for one in play.done if one.ticket == 2] == [
        *((MEMBERS[0], None), (MEMBERS[0], None), (MEMBERS[2], None))
    ]


def test_a_round_without_a_member_is_refused_by_name(tmp_path: Path) -> None:
    from masked_members import TrainJob, model

    from hierfl.learning.local import Objective
    from tiers.messages import Opening

    play = Cohort(tmp_path)
    opening = Opening("world", 0, 32, 8.0, 30, "float32")
    job = TrainJob("world", 0, ((MEMBERS[0], 10),), opening, Objective(), "first", MEMBERS[:2])
    play.lanes[MEMBERS[0]].call(1, "train", (job, model(SMALL)))
    assert "its round is asked without world/c: a masked sum is of all 3 members" in str(play.done[-1].error)


def test_a_member_that_sends_what_no_update_may_hold_ends_the_run(tmp_path: Path) -> None:
    """Of one masked update nothing can be checked; their sum is held against the round's limit."""
    play = Cohort(tmp_path)
    play.members[MEMBERS[1]].update = (np.full(SMALL.num_floats, 2**30, np.int32), np.zeros(1, np.int64))
    play.order()
    play.play()
    [error] = [one.error for one in play.done if one.error is not None]
    assert isinstance(error, LinkError) and "world/a, world/b, world/c add up to more than their round allows" in str(
        error
    )


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("train", "an update as it is, where members mask theirs"),
        ("key", "a key that is not of world/a"),
        ("key", "masked in answer to"),
        ("mask", "a masked update has"),
    ],
)
def test_an_update_as_it_is_and_keys_of_others_are_refused(tmp_path: Path, at: str, said: str) -> None:
    play = Cohort(tmp_path)
    play.order()
    play.play(at)
    member, other = play.members[MEMBERS[0]], play.members[MEMBERS[1]]
    payload, answer = Outgoing(*member.update), wire.Answer(id=member.fake.last.ask.id)
    if at == "train":
        plain = wire.Trained(weight=10, update=payload_out(payload.shape, payload.digest))
        answer.trained.CopyFrom(plain)
    elif said.startswith("masked"):
        answer.masked.SetInParent()
    elif at == "key":
        answer.keyed.CopyFrom(other.masker.key("run-1", other.fake.last.ask))
    else:
        answer.masked.update.num_floats = 3
    with pytest.raises(LinkError, match=said):
        play.lanes[MEMBERS[0]].answered(answer)
    assert not play.handed


@pytest.mark.parametrize("at", ["key", "mask"])
def test_whatever_a_member_answers_is_taken_or_refused_by_name(tmp_path: Path, at: str) -> None:
    play, chance = Cohort(tmp_path), random.Random(0)
    play.order()
    play.play(at)
    lane, member = play.lanes[MEMBERS[0]], play.members[MEMBERS[0]]
    ask, refused, collect, call = member.fake.last.ask, 0, lane._masked, lane._calls[0]
    assert collect is not None
    sound = wire.Answer(id=ask.id)
    if at == "key":
        sound.keyed.CopyFrom(member.masker.key("run-1", ask))
        sound.keyed.ClearField("is_lost")
    else:
        sound.masked.CopyFrom(member.masker.mask(ask.mask))
    for _ in range(200):
        answer = varied(sound, chance)
        answer.id = ask.id
        said = answer.keyed if at == "key" else answer.masked
        said.error, said.is_lost = "", False  # what ends the run, or begins anew
        if at == "mask":
            answer.masked.update.digest = sound.masked.update.digest  # any other of that size may be
        if answer == sound:
            continue
        try:
            collect.answered(call, answer)
        except LinkError:
            refused += 1
    assert refused > (50 if at == "key" else 5)
    lane.answered(sound)
    play.play()
