"""A rule over all members' changes goes with a policy only if each round has members enough for what it promises."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from small_runs import hub

from hierfl.config import from_mapping
from hierfl.config.rehearse import fewest
from hierfl.errors import ConfigError, Problem
from hierfl.promises import promises
from scheduler.participation import Participation
from scheduler.participations.all import All
from scheduler.participations.buffered import Buffered
from scheduler.participations.deadline import Deadline
from scheduler.participations.sample import Sample
from tiers import Hub, HubRounds, Phase, Site
from tiers.messages import Arrived, Begin, Close, Command, Open, Share, TimeUp, TrainMember, Update

MEDIAN = {"kind": "median", "num_byzantine": 1}


def config(*members: Any, rounds: int = 4, **settings: Any) -> Any:
    root = hub("world", *members, rounds=rounds, **settings)
    return from_mapping({"task": {"kind": "synthetic"}, "federation": root, "runtime": {"kind": "local"}})


def problems(*members: Any, **settings: Any) -> list[Problem]:
    try:
        config(*members, **settings)
    except ConfigError as error:
        return list(error.problems)
    return []


def played(policy: Participation, seed: int, weight: int = 1) -> Iterator[Command]:
    """Play 40 rounds of six members that answer in a random order, also between rounds; deadlines pass at random."""
    random = Random(seed)
    names = [f"m{i}" for i in range(6)]
    speed = {name: random.choice([1, 5, 25]) for name in names}
    machine = HubRounds(Hub("w", tuple(map(Site, names)), participation=policy), dict.fromkeys(names, weight))
    at_work: dict[str, int] = {}
    for number in range(40):
        commands = machine.handle(Begin(number))
        while True:
            yield from commands
            at_work |= {one.member: one.round_number for one in commands if isinstance(one, TrainMember)}
            is_open = machine.phase is Phase.COLLECTING
            if not is_open and (not at_work or random.random() < 0.5):
                break
            if is_open and random.random() < 0.2:
                commands = machine.handle(TimeUp(number, 1.0))
                continue
            [name] = random.choices(list(at_work), [speed[name] for name in at_work])
            commands = machine.handle(Arrived(Update("w", at_work.pop(name), (Share(name, weight),))))


def closed(policy: Participation, seed: int) -> list[int]:
    """Count the members in each round, those that are in with a late update and a new one once."""
    return [len({*one.members, *one.carried}) for one in played(policy, seed) if isinstance(one, Close)]


@pytest.mark.parametrize(
    ("policy", "least"),
    [
        (All(), 6),
        (Sample(fraction=0.5), 3),
        (Sample(count=2, by="samples"), 2),
        (Sample(count=9), 6),
        (Buffered(goal=1), 1),
        (Buffered(goal=2), 1),
        (Buffered(goal=4, staleness=1), 2),
        (Buffered(goal=5), 3),
        (Buffered(goal=6), 6),
        (Buffered(goal=10), 6),
        (Deadline(after_s=1.0, quorum=0.8, weight=0.1), 5),
        (Deadline(after_s=1.0, quorum=0.5, weight=0.5, late="refuse"), 3),
        (Deadline(after_s=1.0, quorum=1.0, weight=0.1), 6),
    ],
    ids=str,
)
def test_no_round_has_fewer_members_than_is_said_and_some_have_as_few(policy: Participation, least: int) -> None:
    assert fewest(policy, "w", 0, [f"m{i}" for i in range(6)]) == least
    assert min(min(closed(policy, seed)) for seed in range(60)) == least


@pytest.mark.parametrize(
    ("policy", "num"),
    [
        ({"kind": "sample", "fraction": 0.5}, 2),
        ({"kind": "sample", "count": 1}, 1),
        ({"kind": "buffered", "goal": 2}, 1),
        ({"kind": "buffered", "goal": 3}, 2),
        ({"kind": "deadline", "after_s": 1.0, "quorum": 0.5}, 2),
        ({"kind": "deadline", "quorum": 0.75}, 3),
        ({"kind": "buffered", "goal": 4}, 4),
        ("all", 4),
    ],
)
@pytest.mark.parametrize("strategy", [MEDIAN, {"kind": "krum", "num_byzantine": 0}])
def test_a_rule_has_members_enough_in_each_round(policy: Any, num: int, strategy: dict[str, Any]) -> None:
    found = problems(*"abcd", strategy=strategy, participation=policy)
    if num >= 3:
        assert found == []
        return
    [problem] = found
    assert problem.path == "federation.strategy"
    assert f"participation {policy['kind']} may have as few as {num} of 4 members" in problem.message
    assert f"takes at least 3 members, there are {num}; " in problem.message
    assert problem.message.endswith("or rounds of more members (participation: all has each)")


def test_that_one_may_be_in_twice_is_said_of_a_buffer() -> None:
    [problem] = problems(*"abcd", strategy=MEDIAN, participation={"kind": "buffered", "goal": 3})
    assert "2 of 4 members, since one may be in with a late update and a new one: num_byz" in problem.message


def test_each_epoch_has_members_enough_in_each_round() -> None:
    half = {"kind": "sample", "fraction": 0.5}
    members = [*"abcde", {"name": "f", "leaves_at": 3}, {"name": "g", "leaves_at": 3}]
    assert problems(*"abcde", "f", strategy=MEDIAN, participation=half) == []
    members.pop(0)
    [problem] = problems(*members, strategy=MEDIAN, participation=half)
    assert problem.path == "federation.strategy"
    assert problem.message.startswith("from round 3 on, a round of participation sample may have as few as 2 of 4 mem")


@pytest.mark.parametrize("policy", ["all", "sample", "deadline", {"kind": "buffered", "goal": 1}])
def test_weights_have_room_for_late_updates_beside_new_ones(policy: Any) -> None:
    early = policy not in ("all", "sample")
    most = 4e9 if early else 8e9
    for total in (most, 1.01 * most):
        members = [{"name": name, "weight": total / 2} for name in "ab"]
        found = problems(*members, strategy={"kind": "fedavg", "weights": "given"}, participation=policy)
        assert [problem.path for problem in found] == ([] if total == most else ["federation.members"])
    assert f"have weights that add up to more than {most:,.0f}" in found[0].message
    assert ("a late update may be in the sum beside a new one" in found[0].message) is early


def test_a_member_is_in_the_total_of_a_round_at_most_twice() -> None:
    policies = [Buffered(goal=1, discount="none"), Deadline(after_s=1.0, quorum=0.2, weight=0.1, discount="none")]
    for policy in policies:
        opened = [one for seed in range(60) for one in played(policy, seed, weight=100) if isinstance(one, Open)]
        assert 900 < max(one.total_weight for one in opened) <= 1200


def test_what_a_rule_promises_is_of_the_fewest_that_a_round_may_have() -> None:
    said = promises(config(*"abcdef", strategy=MEDIAN, participation={"kind": "sample", "count": 4}))
    assert said["world"].endswith("any 1 of 4 members; a round may have no more than 4 of its 6")
    left = config(*"abcde", {"name": "f", "leaves_at": 3}, strategy=MEDIAN)
    assert promises(left)["world"].endswith("holds out against any 1 of 5 members")
    assert promises(config(*"abc", strategy=MEDIAN))["world"].endswith("holds out against any 1 of 3 members")


def test_hubs_below_fednova_have_one_round_each() -> None:
    inner = hub("in", "x", "y", rounds=3)
    [problem] = problems(hub("us", inner, "b"), "c", strategy="fednova")
    assert problem.path == "federation.members.us.members.in.rounds"
    assert "is 3, and fednova at 'world' steps along one round of the hubs below" in problem.message
    assert "leave it at 1 (more local_steps train more), or take another strategy than fednova" in problem.message
    assert problems(hub("us", "a", "b", rounds=3), strategy="scaffold") == []
    assert problems(hub("us", hub("in", "x", "y"), "b", strategy="fednova", rounds=3), "c", rounds=5) == []


def test_rounds_of_a_template_below_fednova_are_told_once() -> None:
    members = {"count": 3, "name": "h-{i}", "rounds": 2, "members": [{"name": "a"}]}
    [problem] = problems(members, strategy="fednova")
    assert problem.path == "federation.members[0].rounds"
