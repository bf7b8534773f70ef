"""Replicas of aggregators in whole local runs: equal bits, and whoever lies is named and replaced in the same round."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from lying import LIES, tell
from small_runs import Ran, config_of, events, go, hub

from hierfl.errors import ConfigError, RoundFailed, RuntimeUnavailable
from hierfl.monitor.records import Notice, ReplicaReplaced, RoundClosed, SiteTrained
from hierfl.tree import served_by, survey

VOTE = {"replicas": 3, "mode": "vote"}


def tree(folder: Path | None = None, **root: Any) -> dict[str, Any]:
    """A hub of two rounds, one that hands up its sum, and a site; the root may be told to lie."""
    strategy = {"kind": "lying:Lying", "folder": str(folder)} if folder is not None else {"kind": "fedadam"}
    members = (hub("us", "a", "b", rounds=2, strategy="fedavgm"), hub("eu", "c", "d"), "e")
    return {**hub("world", *members, strategy=strategy), **root}


def trained(ran: Ran) -> int:
    return len(ran.monitor.of(SiteTrained))


@pytest.mark.parametrize("redundancy", [{"replicas": 2}, VOTE, {"replicas": 5, "mode": "vote"}], ids=str)
def test_replicas_move_no_bit(tmp_path: Path, redundancy: Mapping[str, Any]) -> None:
    alone = go(tmp_path, tree())
    several = go(tmp_path, tree(), redundancy=redundancy)
    assert several.digest == alone.digest
    assert trained(several) == trained(alone)
    assert "replaced" not in several.summary and several.monitor.of(ReplicaReplaced) == []
    said = [one.message for one in several.monitor.of(Notice) if "replicas" in one.message]
    assert said == ["replicas of world and 2 other hubs share this process: its end takes them all"]


def test_a_hub_may_say_otherwise_for_itself_and_those_below(tmp_path: Path) -> None:
    alone = go(tmp_path, tree())
    members = tree()["members"]
    members[0]["redundancy"] = VOTE
    assert go(tmp_path, {**tree(), "members": members}).digest == alone.digest


@pytest.mark.parametrize("lie", LIES)
def test_one_lying_replica_of_three_is_outvoted_named_and_replaced_in_the_same_round(tmp_path: Path, lie: str) -> None:
    honest = go(tmp_path / "runs", tree(tmp_path), redundancy=VOTE)
    tell(tmp_path, lie)
    ran = go(tmp_path / "runs", tree(tmp_path), redundancy=VOTE)
    assert (tmp_path / f"lied-{lie}").exists()
    assert ran.digest == honest.digest and trained(ran) == trained(honest)
    [record] = ran.monitor.of(ReplicaReplaced)
    assert (record.node, record.replica, record.cause, record.round_number) == ("world", 1, "outvoted", 1)
    heard = ran.monitor.heard
    closed = next(one for one in heard if isinstance(one, RoundClosed) and one.node == "world")
    assert heard.index(record) < heard.index(closed), "it is named before its round closes"
    assert ran.summary["replaced"]["hubs"] == {"world": {"outvoted": 1}}
    assert ran.summary["replaced"]["newest"][0]["replica"] == 1
    said = next(one.message for one in ran.monitor.of(Notice) if "replica" in one.message and "trusted" in one.message)
    assert said.startswith("replica 1 of 3 of its aggregator is not to be trusted (its answer to message ")
    assert [event["cause"] for event in events(ran.folder) if event["event"] == "replica_replaced"] == ["outvoted"]


def worn(*replicas: int, times: int = 6) -> list[dict[str, Any]]:
    """The root's replicas die so often in its second round, whenever they are told of it."""
    where = {"node": "world", "step": "open", "round": 2, "times": times}
    return [{"kind": "kill", **where, "replica": replica} for replica in replicas]


@pytest.mark.parametrize("redundancy", [{"replicas": 2}, VOTE], ids=str)
def test_one_that_dies_again_and_again_sits_out_the_round_by_name(tmp_path: Path, redundancy: Any) -> None:
    whole = go(tmp_path, tree(rounds=3))
    ran = go(tmp_path, tree(rounds=3), redundancy=redundancy, faults=worn(2))
    assert ran.digest == whole.digest and trained(ran) == trained(whole)
    found = ran.monitor.of(ReplicaReplaced)
    assert [(one.replica, one.cause, one.round_number) for one in found] == [(2, "died", 2)] * 6
    assert found[-1].reason == "it was lost on purpose, the 6th time in one round"
    said = [
        one.message for one in ran.monitor.of(Notice) if "sits out the rest of the round; the others" in one.message
    ]
    assert len(said) == 1 and said[0].startswith(f"replica 2 of {redundancy['replicas']} of its aggregator died")
    again = [*worn(2), *({**one, "round": 3} for one in worn(1, 2, times=5))]
    assert go(tmp_path, tree(rounds=3), redundancy=redundancy, faults=again).digest == whole.digest, "it is back"


def test_the_run_ends_once_too_few_are_left(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="the aggregator of world died 6 times in one round"):
        go(tmp_path, tree(), redundancy={"replicas": 2}, faults=worn(1, 2))
    assert go(tmp_path, tree(), redundancy={"replicas": 3}, faults=worn(1, 3)).digest == go(tmp_path, tree()).digest
    with pytest.raises(RuntimeUnavailable, match="the aggregator of world died 6 times in one round"):
        go(tmp_path, tree(), redundancy=VOTE, faults=worn(1, 3))


def test_too_many_liars_fail_the_round(tmp_path: Path) -> None:
    tell(tmp_path, "stale")
    (tmp_path / "then-flip").touch()
    with pytest.raises(
        RoundFailed, match=r"world: .*no 2 of 3 replicas give the same answer: 1 says \w+; 2 says \w+; 3 says \w+"
    ):
        go(tmp_path / "runs", tree(tmp_path), redundancy=VOTE)


def test_who_differs_in_crash_mode_is_named_though_nobody_can_say_who_is_right(tmp_path: Path) -> None:
    tell(tmp_path, "fail")
    alone = go(tmp_path / "runs", tree(tmp_path / "nobody"))
    ran = go(tmp_path / "runs", tree(tmp_path), redundancy={"replicas": 2})
    assert ran.digest == alone.digest, "that one machine could not do it does not count"
    assert [(one.replica, one.cause) for one in ran.monitor.of(ReplicaReplaced)] == [(1, "differs")]


def test_the_journal_has_who_was_replaced_and_a_resumed_run_does_not_mind(tmp_path: Path) -> None:
    from hierfl.journal import open_store
    from hierfl.lifecycle import resume
    from tiers.journal import Replaced, join

    honest = go(tmp_path / "runs", tree(tmp_path), redundancy=VOTE)
    tell(tmp_path, "flip")
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "cut", tree(tmp_path, rounds=2), redundancy=VOTE, until=(ReplicaReplaced, 1))
    [run_dir] = (tmp_path / "cut").iterdir()
    found = join(open_store(str(run_dir / "journal")).read(0))
    records = [entry.record for entry in found.entries if isinstance(entry.record, Replaced)]
    assert [(one.hub, one.replica, one.cause) for one in records] == [("world", 0, "outvoted")]
    assert resume(run_dir)["model_digest"] == honest.digest


def test_the_tree_and_validate_say_who_is_served_how(tmp_path: Path) -> None:
    members = tree()["members"]
    members[0]["redundancy"] = {"replicas": 1}
    members[1]["redundancy"] = VOTE
    config = config_of(tmp_path, {**tree(), "members": members}, redundancy={"replicas": 2, "lease_s": 5})
    assert {path: node.redundancy for path, node in survey(config).items() if node.is_hub} == {
        "world": "2 replicas",
        "world/us": None,
        "world/eu": "3 replicas that vote",
    }
    assert served_by(config) == {
        "world": "redundancy: 2 replicas, lease 5 s: any 1 may die or hang",
        "world/us": "redundancy: 1 replica, lease 5 s: it is replaced when it dies or hangs",
        "world/eu": "redundancy: 3 replicas that vote, lease 5 s: any 1 may die, hang or lie",
    }


@pytest.mark.parametrize(
    ("top", "own", "runtime", "path", "said"),
    [
        ({"replicas": 0}, None, {}, "redundancy.replicas", "from 1 to 15"),
        ({"replicas": 2, "mode": "vote"}, None, {}, "redundancy.replicas", "an odd number from 3 on for mode: vote"),
        ({"mode": "vote"}, None, {}, "redundancy.replicas", "not 1"),
        ({"mode": "votes"}, None, {}, "redundancy.mode", "crash, vote"),
        ({"lease_s": 0}, None, {}, "redundancy.lease_s", "above 0"),
        (VOTE, {"replicas": 2}, {}, "federation.members.us.redundancy.replicas", "not 2"),
        ({}, {"journal": "x"}, {}, "federation.members.us.redundancy.journal", "at the top"),
        ({}, {"replica": 2}, {}, "federation.members.us.redundancy.replica", "did you mean 'replicas'"),
        ({}, {"replicas": 3}, {"kind": "ray", "num_aggregators": 2}, "runtime.num_aggregators", "must be at least 3"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    tmp_path: Path, top: Mapping[str, Any], own: Any, runtime: Mapping[str, Any], path: str, said: str
) -> None:
    members = tree()["members"]
    if own is not None:
        members[0]["redundancy"] = own
    with pytest.raises(ConfigError) as caught:
        go(tmp_path, {**tree(), "members": members}, redundancy=top, **({"runtime": runtime} if runtime else {}))
    assert [problem.path for problem in caught.value.problems] == [path]
    assert said in str(caught.value)
