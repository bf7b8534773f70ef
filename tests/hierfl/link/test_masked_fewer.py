"""Masked sums of fewer members than the cohort: who is out is not in them, no hub has two that overlap, and one that
has begun since keeps to the sum in which members have masked.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from masked_members import Cohort

from hierfl.errors import LinkError
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.masker import Masker
from hierfl.runtime.jobs import LeftOut

NAMES = ("a", "b", "c", "d")
A, B, C, D = (f"world/{name}" for name in NAMES)


@pytest.fixture
def play(tmp_path: Path) -> Cohort:
    """Four members, of whom three are enough."""
    return Cohort(tmp_path, names=NAMES, on_failure="continue")


def is_sum(play: Cohort, *paths: str) -> bool:
    [done] = play.handed_sums
    part, (floats, ints) = done.beside[0], play.total_of(*paths)
    assert [f"world/{share.member}" for share in done.value.shares] == list(paths) and part.weight == 10 * len(paths)
    return bool(np.array_equal(part.floats, floats) and np.array_equal(part.ints, ints))


def left_out(play: Cohort) -> dict[str, str]:
    found = [one.value.sites for one in play.done if isinstance(one.value, LeftOut)]
    return {path: why for sites in found for path, why in sites.items()}


def last(play: Cohort, path: str, kind: str) -> Any:
    found = [said.ask for said in play.members[path].fake.said if said.ask.WhichOneof("what") == kind]
    return copy.deepcopy(getattr(found[-1], kind))


def test_a_member_whose_training_fails_is_not_in_the_sum(play: Cohort) -> None:
    play.order()
    play.play(without=(C,))
    assert not any(said.ask.HasField("key") for said in play.members[A].fake.said), "it may have one yet"
    play.fail(C)
    play.play()
    assert is_sum(play, A, B, D) and not left_out(play)
    assert list(last(play, A, "key").members) == [A, B, D]
    play.order(1, "second")
    play.play()
    assert [len(done.value.shares) for done in play.handed_sums] == [3, 4], "the next round has all of them again"


def test_of_fewer_than_three_there_is_no_sum_by_name(play: Cohort) -> None:
    play.order()
    play.play(without=(C, D))
    play.fail(C)
    play.fail(D)
    play.play()
    said = "2 of world's 4 members have an update, and a masked sum takes 3"
    assert left_out(play) == {A: said, B: said} and not play.handed_sums
    assert not any(said.ask.HasField("key") for member in play.members.values() for said in member.fake.said)


def test_a_sum_takes_the_quorum(tmp_path: Path) -> None:
    play = Cohort(tmp_path, names=(*NAMES, "e"), on_failure="continue", quorum=0.8)
    play.order(seeds=(0,) * 5)
    play.play(without=(C, D))
    play.fail(C)
    play.fail(D)
    play.play()
    assert set(left_out(play)) == {A, B, "world/e"} and "takes 4" in left_out(play)[A]


def test_an_order_to_fewer_than_a_sum_takes_trains_nobody(play: Cohort) -> None:
    play.order(among=(A, B))
    [error, _] = [one.value[0].error for one in play.done if one.ticket == 1]
    assert "asked without world/c, world/d: a masked sum is of 3 of 4 members at least" in error
    assert not any(said.ask.HasField("train") for said in play.members[A].fake.said)


def test_before_anybody_masks_a_lost_member_is_left_out(play: Cohort) -> None:
    play.order()
    play.play("key")
    play.play("mask", without=(D,))
    play.lanes[D].left(play.members[D].fake.session)
    play.lanes[D].reset()
    play.play("mask", without=(D,))
    assert not play.handed_sums, "it is waited for, as long as the supervisor does"
    play.leave_out(D)
    play.play(without=(D,))
    assert is_sum(play, A, B, C)


def test_who_was_asked_to_mask_may_have_whatever_it_says(play: Cohort) -> None:
    """What the hub has asked does not come, and the members say that they have masked in no sum."""
    play.order()
    play.play("mask")
    for member in play.members.values():
        member.num_done = len(member.fake.said)
    play.lanes[D].left(play.members[D].fake.session)
    play.lanes[D].reset()
    play.leave_out(D)
    play.play(without=(D,))
    assert not play.handed_sums and set(left_out(play)) == {A, B, C}


def test_once_members_may_have_masked_there_is_no_other_sum(play: Cohort) -> None:
    play.order()
    play.play("take")
    play.lanes[D].left(play.members[D].fake.session)
    play.lanes[D].reset()
    play.play(without=(D,))
    play.leave_out(D)
    play.play(without=(D,))
    assert not play.handed_sums and set(left_out(play)) == {A, B, C}
    assert (
        "in the sum of world/a, world/b, world/c, world/d, and do so in no other; without world/d" in left_out(play)[A]
    )


def test_a_member_that_dies_after_it_has_masked_is_waited_for(play: Cohort) -> None:
    play.order()
    play.play("take")
    play.restart(D)
    play.play()
    assert is_sum(play, *play.paths)


@pytest.mark.parametrize("at", ["mask", "take"])
def test_a_new_hub_keeps_to_the_sum_in_which_members_have_masked(play: Cohort, at: str) -> None:
    """It finds one more ready than there was: that one's update would be the difference of the two sums."""
    play.order()
    play.play(at, without=(D,))
    play.fail(D)
    play.play(at)
    if at == "mask":
        play.members[B].masker.mask(last(play, B, "mask"))  # one has, and nobody has heard of it
    play.new_hub()
    play.order(order="anew")
    play.play()
    assert is_sum(play, A, B, C)
    assert left_out(play) == {D: "the others have masked this round before, in the sum of world/a, world/b, world/c"}


def test_a_new_hub_has_no_sum_of_fewer_than_have_masked(play: Cohort) -> None:
    play.order()
    play.play("take")
    play.new_hub()
    play.order(order="anew")
    play.play(without=(D,))
    play.leave_out(D, order="anew")
    play.play(without=(D,))
    assert not play.handed_sums and "without world/d there is none" in left_out(play)[A]
    play.new_hub()
    play.order(order="once more")
    play.play()
    assert is_sum(play, *play.paths), "once it is there again"


def lying(members: list[str]) -> Callable[[wire.AskKey], None]:
    def change(asked: wire.AskKey) -> None:
        del asked.members[:]
        asked.members.extend(members)

    return change


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([B, C, D], "a masked sum without world/a"),
        ([A, B], "a masked sum of 2 members, and one of world takes 3 of its 4"),
        ([], "a masked sum without world/a"),
        ([A, B, "world/x"], "a masked sum with 'world/x', whose updates are not masked for world"),
        ([A, B, B, C], "names a member of world twice"),
        ([B, A, C], "or not in the order of the YAML"),
    ],
)
def test_a_member_gives_no_key_for_a_sum_that_may_not_be(play: Cohort, members: list[str], said: str) -> None:
    play.order()
    play.play("key")
    asked, masker = last(play, A, "key"), play.members[A].masker
    lying(members)(asked)
    with pytest.raises(LinkError, match=said):
        masker.key("run-1", wire.Ask(key=asked))


def test_where_the_yaml_says_stop_a_sum_is_of_all(tmp_path: Path) -> None:
    play = Cohort(tmp_path, names=NAMES)
    play.order()
    play.play("key")
    asked = last(play, A, "key")
    lying([A, B, C])(asked)
    with pytest.raises(LinkError, match="of 3 members, and one of world takes 4 of its 4"):
        play.members[A].masker.key("run-1", wire.Ask(key=asked))


def test_who_is_in_the_sum_is_signed(play: Cohort) -> None:
    """A hub that tells one member of other members than another has no key that both believe."""
    play.order()
    play.play("key")
    said = {}
    for path, members in ((A, [A, B, C]), (B, [A, B, C]), (C, [A, B, C, D])):
        asked = last(play, path, "key")
        lying(members)(asked)
        said[path] = play.members[path].masker.key("run-1", wire.Ask(key=asked)).key
    asked = wire.AskMasked(attempt=last(play, A, "key").attempt, keys=[said[A], said[B], said[C]])
    with pytest.raises(LinkError, match="world/c has not signed this"):
        play.members[A].masker.mask(asked)


def test_a_hub_that_asks_for_the_sum_without_one_more_is_given_no_key(play: Cohort) -> None:
    play.order()
    play.play()
    member, asked = play.members[A], last(play, A, "key")
    lying([A, B, C])(asked)
    keyed = member.masker.key("run-1", wire.Ask(key=asked))
    assert not keyed.HasField("key") and list(keyed.noted) == [A, B, C, D]
    noted = json.loads((member.store.folder / "masked/run-1/rounds.json").read_text())
    assert noted["0"]["members"] == [A, B, C, D] and len(noted["0"]["update"]) == 64


def test_what_is_noted_counts_at_the_last_moment_too(play: Cohort) -> None:
    """A key was given before another process of the member masked in another sum."""
    play.order()
    play.play("mask", without=())
    member = play.members[A]
    keys = {path: last(play, path, "key") for path in (A, B, C)}
    other = Masker(play.config, member.kit, member.store)
    said = {}
    for path, asked in keys.items():
        lying([A, B, C])(asked)
        masker = other if path == A else play.members[path].masker
        said[path] = masker.key("run-1", wire.Ask(key=asked)).key
    assert not member.masker.mask(last(play, A, "mask")).is_lost
    asked = wire.AskMasked(attempt=keys[A].attempt, keys=[said[A], said[B], said[C]])
    with pytest.raises(
        LinkError, match=r"has masked round 1 of run run-1 in the sum of .*world/d, and in that of .*delete"
    ):
        other.mask(asked)


@pytest.mark.parametrize("run", ["run-1", "run-2"])
def test_a_run_begun_anew_from_the_same_model_has_no_other_sums(play: Cohort, run: str) -> None:
    """Training repeats itself by the seed, so what one run sums with a member another one may not sum without it."""
    play.order()
    play.play()
    member, asked = play.members[A], last(play, A, "key")
    train = next(said.ask for said in member.fake.said if said.ask.HasField("train"))
    kept = member.store.answer(train.id)
    assert kept is not None
    kept.id = member.masker.train_id(run, wire.Ask(key=asked))
    member.store.keep(kept)
    (member.store.folder / "masked/run-1/rounds.json").unlink()
    lying([A, B, C])(asked)
    assert list(member.masker.key(run, wire.Ask(key=asked)).noted) == [A, B, C, D]
    (member.store.folder / "masked_sets.json").unlink()
    assert member.masker.key(run, wire.Ask(key=asked)).HasField("key"), "the way out"


def test_notes_of_an_earlier_version_are_of_the_whole_cohort(play: Cohort) -> None:
    play.order()
    play.play()
    member, asked = play.members[A], last(play, A, "key")
    file = member.store.folder / "masked/run-1/rounds.json"
    file.write_text(json.dumps({"0": json.loads(file.read_text())["0"]["update"]}))
    (member.store.folder / "masked_sets.json").unlink()
    assert member.masker.key("run-1", wire.Ask(key=asked)).HasField("key")
    lying([A, B, C])(asked)
    assert list(member.masker.key("run-1", wire.Ask(key=asked)).noted) == [A, B, C, D]


def test_a_set_that_no_sum_may_have_any_more_is_told_with_the_way_out(play: Cohort) -> None:
    play.order()
    play.play()
    member, asked = play.members[A], last(play, A, "key")
    file = member.store.folder / "masked_sets.json"
    (member.store.folder / "masked/run-1/rounds.json").unlink()
    file.write_text(json.dumps({start: [A, B, "world/gone"] for start in json.loads(file.read_text())}))
    with pytest.raises(
        LinkError, match=r"in the sum of world/a, world/b, world/gone, and .*another seed.* delete .*sets"
    ):
        member.masker.key("run-1", wire.Ask(key=asked))


@pytest.mark.parametrize(
    ("keyed", "said"),
    [
        (wire.Keyed(noted=[B, C, D]), "without world/a"),
        (wire.Keyed(noted=[A, B]), "of 2 members"),
        (wire.Keyed(noted=[A, B, "x"]), "with 'x'"),
        (wire.Keyed(noted=[A, B, C, D]), "keeps to the sum of those that it was asked"),
        (wire.Keyed(noted=[A, B, C], key=wire.MemberKey(node=A)), "a key, and word of another sum, at once"),
    ],
)
def test_a_hub_believes_no_set_that_cannot_be(play: Cohort, keyed: wire.Keyed, said: str) -> None:
    play.order()
    play.play("key")
    with pytest.raises(LinkError, match=said):
        play.lanes[A].answered(wire.Answer(id=play.members[A].fake.last.ask.id, keyed=keyed))


def test_members_that_have_masked_in_two_sums_end_the_run_by_name(play: Cohort) -> None:
    play.order()
    play.play("key")
    for path, noted in ((A, [A, B, C]), (B, [A, B, D])):
        ask = play.members[path].fake.last.ask
        play.lanes[path].answered(wire.Answer(id=ask.id, keyed=wire.Keyed(noted=noted)))
        play.members[path].num_done = len(play.members[path].fake.said)
        for lane in play.lanes.values():
            lane.look()
    [error] = [one.error for one in play.done if one.error is not None]
    assert "world/b has masked round 1 in the sum of world/a, world/b, world/d" in str(error)
    assert "can delete" in str(error)
