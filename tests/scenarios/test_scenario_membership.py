"""Sites that join and leave between rounds, in whole runs: trees of epochs, what is remembered, resuming, refusals."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from least_squares import EAST, NORTH, SIZES, SOUTH, START, WEST, close, local, mean, trained
from small_runs import Copied, Listener, Ran, config_of, events, go, hub, site
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hierfl import checkpoint
from hierfl.config.membership import epoch_of, epochs
from hierfl.errors import ConfigError, OutputError
from hierfl.kinds import names
from hierfl.lifecycle import evaluate, resume, run
from hierfl.monitor.records import Evaluated, MembershipChanged, Notice, RoundClosed, RoundCommitted
from hierfl.monitor.run_record import read_run
from hierfl.tree import draw, survey

ROOT = hub("world", "a", {"name": "b", "leaves_at": 5}, hub("c", "x", {"name": "y", "joins_at": 4}, joins_at=3))


def test_a_round_is_the_mean_of_those_who_are_there(tmp_path: Path) -> None:
    """Against a reader's loop: north leaves after two rounds, a hub with east and west comes with the second."""
    there = [{"north", "south"}, {"north", "south", "east"}, {"south", "east", "west"}]
    w = START
    for present in there:
        w = mean({name: local(w, name, steps=2) for name in sorted(present)}, SIZES)
    up = hub("up", EAST, {**WEST, "joins_at": 3}, joins_at=2)
    root = hub("world", {**NORTH, "leaves_at": 3}, SOUTH, up, rounds=3)
    assert close(trained(tmp_path, root, steps=2), w)


def test_a_tree_that_never_changes_is_one_epoch(tmp_path: Path) -> None:
    plain = config_of(tmp_path, hub("world", "a", "b"))
    (only,) = epochs(plain)
    assert only.config is plain and only.number == 0 and "epochs" not in go(tmp_path, hub("world", "a")).summary
    late = config_of(tmp_path, hub("world", "a", {"name": "b", "leaves_at": 9}))
    assert len(epochs(late)) == 1


def test_each_change_is_an_epoch_with_its_tree(tmp_path: Path) -> None:
    found = epochs(config_of(tmp_path, {**ROOT, "rounds": 6}))
    assert [(epoch.number, epoch.first, epoch.joined, epoch.left) for epoch in found] == [
        (0, 1, (), ()),
        (1, 3, ("world/c/x",), ()),
        (2, 4, ("world/c/y",), ()),
        (3, 5, (), ("world/b",)),
    ]
    assert [list(epoch.config.federation.hubs) for epoch in found] == [["world"], *[["world", "world/c"]] * 3]
    assert [epoch.config.federation.epoch for epoch in found] == [0, 1, 2, 3]
    assert [epoch_of(found, number).number for number in (1, 2, 3, 4, 5, 99)] == [0, 0, 1, 2, 3, 3]


def test_what_changes_is_told_and_written_down(tmp_path: Path) -> None:
    ran = go(tmp_path, {**ROOT, "rounds": 6}, output={"dir": str(tmp_path), "tensorboard": True, "keep": 9})
    changes = ran.monitor.of(MembershipChanged)
    assert [(one.epoch, one.round_number, one.joined, one.left) for one in changes] == [
        (1, 3, ("world/c/x",), ()),
        (2, 4, ("world/c/y",), ()),
        (3, 5, (), ("world/b",)),
    ]
    assert changes[0].num_samples == {"world": 36, "world/a": 12, "world/b": 12, "world/c": 12, "world/c/x": 12}
    said = [notice.message for notice in ran.monitor.of(Notice)]
    assert "from round 5 on, epoch 3 of the tree: world/b left; 3 sites" in said
    assert [one["epoch"] for one in ran.summary["epochs"]] == [0, 1, 2, 3]
    assert [one["left"] for one in ran.summary["epochs"]][-1] == ["world/b"]
    assert [one["epoch"] for one in events(ran.folder) if one["event"] == "membership_changed"] == [1, 2, 3]
    written = [checkpoint.load(folder).epoch for folder in sorted((ran.folder / "checkpoints").glob("round-*"))]
    assert written == [0, 0, 1, 2, 3, 3]
    closed = {one.round_number: set(one.members) for one in ran.monitor.of(RoundClosed) if one.node == "world"}
    assert closed == {
        1: {"a", "b"},
        2: {"a", "b"},
        **{n: {"a", "b", "c"} for n in (3, 4)},
        5: {"a", "c"},
        6: {"a", "c"},
    }
    measured = {one.round_number: set(one.metrics) for one in ran.monitor.of(Evaluated)}
    assert "world/c/x" not in measured[2] and "world/b" not in measured[5]
    assert ran.summary["nodes"]["world/b"] == {"num_samples": 0}
    assert set(evaluate(ran.folder)) == set(measured[6])
    report = read_run(ran.folder)
    assert report.started["num_samples"]["world/c/y"] == 12 and "epoch 3 of the tree" in str(report.notices)
    log = EventAccumulator(str(ran.folder / "tensorboard")).Reload()
    assert [(one.step, one.value) for one in log.Scalars("membership/sites")] == [(3, 3.0), (4, 4.0), (5, 3.0)]
    assert [one.value for one in log.Scalars("membership/epoch")] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    "strategy",
    ["fedavg", "scaffold", "ditto", {"kind": "median", "num_byzantine": 0}],
    ids=str,
)
@pytest.mark.parametrize("cut", [2, 3])
def test_a_run_cut_anywhere_goes_on_to_the_same_bits(strategy: Any, cut: int, tmp_path: Path) -> None:
    root = {**ROOT, "rounds": 6, "strategy": strategy}
    output = {"dir": str(tmp_path), "tensorboard": False, "keep": 9}
    whole = go(tmp_path, root, output=output, runtime={"kind": "local", "num_workers": 2})
    for folder in (whole.folder / "checkpoints").glob("round-*"):
        if int(folder.name[-6:]) > cut:
            shutil.rmtree(folder)
    monitor = Listener()
    summary = resume(whole.folder, ["runtime.num_workers=1"], [monitor])
    assert summary["model_digest"] == whole.digest
    assert [one.epoch for one in monitor.of(MembershipChanged)] == list(range(max(1, cut - 1), 4))
    assert summary["epochs"] == whole.summary["epochs"]


def test_a_stop_in_the_first_round_of_other_members_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """What it leaves is a checkpoint of the round before, of the members of then."""
    root = hub("world", "a", "b", {"name": "c", "joins_at": 3}, rounds=4)
    output = {"dir": str(tmp_path), "tensorboard": False, "checkpoint_every": 3}
    whole = go(tmp_path, root, output=output)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, root, output=output, until=(MembershipChanged, 3))
    [stopped] = [folder for folder in tmp_path.iterdir() if folder != whole.folder]
    summary = resume(stopped, [], [Listener()])
    assert summary["model_digest"] == whole.digest and summary["epochs"] == whole.summary["epochs"]


@pytest.mark.parametrize("topology", names("topology"))
def test_members_change_under_every_topology(topology: str, tmp_path: Path) -> None:
    output = {"dir": str(tmp_path), "tensorboard": False, "keep": 9}
    whole = go(tmp_path, {**ROOT, "rounds": 5, "topology": topology}, output=output)
    shutil.rmtree(whole.folder / "checkpoints" / "round-000005")
    shutil.rmtree(whole.folder / "checkpoints" / "round-000004")
    (whole.folder / "model.safetensors").unlink()
    assert resume(whole.folder)["model_digest"] == whole.digest
    assert [one["epoch"] for one in whole.summary["epochs"]] == [0, 1, 2, 3]


def test_what_a_site_keeps_goes_with_it(tmp_path: Path) -> None:
    output = {"dir": str(tmp_path), "tensorboard": False, "keep": 9}
    ran = go(tmp_path, {**ROOT, "rounds": 6, "strategy": "scaffold"}, output=output)
    kept = [set(checkpoint.load(folder).sites) for folder in sorted((ran.folder / "checkpoints").glob("round-*"))]
    assert kept[1] == {"world/a", "world/b"} and kept[5] == {"world/a", "world/c/x", "world/c/y"}
    control = checkpoint.load(ran.folder / "checkpoints" / "round-000006").states["world"]["control"]
    assert np.abs(control).max() > 0


def test_with_a_sample_of_members_and_lost_ones_membership_changes_too(tmp_path: Path) -> None:
    broken = site("z", fault="raise")
    root = hub("world", "a", "b", {**broken, "leaves_at": 3}, {"name": "d", "joins_at": 3}, on_failure="continue")
    ran = go(tmp_path, {**root, "rounds": 4, "participation": {"kind": "sample", "fraction": 0.7}})
    names = [set(one.members) for one in ran.monitor.of(RoundClosed)]
    assert not any("d" in one for one in names[:2]) and any("d" in one for one in names[2:])


def test_a_resumed_run_takes_members_in_and_lets_others_go(tmp_path: Path) -> None:
    first = go(tmp_path, hub("world", {"count": 2, "name": "s{i}"}, rounds=2))
    words = [
        "federation.rounds=5",
        "federation.members.+={name: new, joins_at: 4}",
        "federation.members.s0.leaves_at=5",
    ]
    monitor = Listener()
    summary = resume(first.folder, words, [monitor])
    assert [(one.epoch, one.joined, one.left) for one in monitor.of(MembershipChanged)] == [
        (1, ("world/new",), ()),
        (2, (), ("world/s0",)),
    ]
    declared = hub("world", {"name": "s0", "leaves_at": 5}, "s1", {"name": "new", "joins_at": 4}, rounds=5)
    assert summary["model_digest"] == go(tmp_path, declared).digest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["federation.members.+={name: new}"], "the run has no node 'world/new', let it join: joins_at: 3 or later"),
        (["federation.members.+={name: new, joins_at: 2}"], "let it join: joins_at: 3 or later"),
        (
            ["federation.members=[{name: a}, {name: c}]"],
            "node 'world/b', let it leave: leaves_at: 3 or later",
        ),
        (["federation.members.a.leaves_at=2"], "is 2, so far null: rounds before 3 are over"),
        (["federation.members.b.leaves_at=5"], "is 5, so far 2: rounds before 3 are over"),
        (["federation.members.d.leaves_at=3"], "there is no 'd' here"),
        (
            ["federation.members.a.leaves_at=3", "federation.members.c.leaves_at=3"],
            "no site that trains from round 3 on",
        ),
    ],
)
def test_what_is_over_stays_as_it_was(words: list[str], said: str, tmp_path: Path) -> None:
    ran = go(tmp_path, hub("world", "a", {"name": "b", "leaves_at": 2}, "c", rounds=2))
    with pytest.raises(ConfigError, match=re.escape(said)):
        resume(ran.folder, ["federation.rounds=9", *words])


def test_a_run_that_has_done_more_rounds_than_it_is_asked_for_is_told_so(tmp_path: Path) -> None:
    ran = go(tmp_path, hub("world", "a", {"name": "b", "leaves_at": 2}, rounds=2))
    with pytest.raises(OutputError, match="has done its 2 rounds; to go on, ask for more"):
        resume(ran.folder, ["federation.rounds=1"])


@pytest.mark.parametrize(
    ("root", "place", "said"),
    [
        (hub("world", "a", joins_at=2), "federation.joins_at", "the root is the federation itself"),
        (hub("world", "a", {"name": "b", "joins_at": 3, "leaves_at": 3}), "federation.members.b.leaves_at", "never be"),
        (hub("world", "a", {"name": "b", "joins_at": 9}), "federation.members.b.joins_at", "the run has 4 rounds"),
        (hub("world", "a", hub("c", {"name": "b", "leaves_at": 3})), "federation.members.c.members", "from round 3 on"),
        (hub("world", {"name": "a", "joins_at": 2}), "federation", "no site that trains from round 1 on"),
        (
            hub("world", *"abcd", {"name": "e", "leaves_at": 3}, strategy={"kind": "krum", "num_byzantine": 1}),
            "federation.strategy",
            "from round 3 on, num_byzantine 1 takes at least 5 members, there are 4",
        ),
    ],
)
def test_each_epoch_is_checked_before_anything_starts(root: Any, place: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as told:
        config_of(tmp_path, {"rounds": 4, **root})
    assert [problem.path for problem in told.value.problems] == [place]
    assert said in told.value.problems[0].message


def test_the_tree_says_who_comes_and_goes(tmp_path: Path) -> None:
    drawing = draw(survey(config_of(tmp_path, {**ROOT, "rounds": 6}))).plain
    assert "b  leaves at round 5" in drawing and "x  joins at round 3" in drawing and "y  joins at round 4" in drawing


def test_a_pool_has_no_members_that_change(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"leave out joins_at and leaves_at, on the command line by .*leaves_at=null"):
        config_of(tmp_path, {**ROOT, "rounds": 6}, baseline="pooled")
    undone = [f"federation.members.{key}=null" for key in ("b.leaves_at", "c.joins_at", "c.members.y.joins_at")]
    assert config_of(tmp_path, {**ROOT, "rounds": 6}, baseline="pooled", overrides=undone).baseline == "pooled"


def test_a_simulation_takes_no_notice_of_links(tmp_path: Path) -> None:
    root = hub("world", "a", {"name": "l", "joins_at": 2, "link": {"address": "l.example:7000"}})
    plain = hub("world", "a", {"name": "l", "joins_at": 2})
    assert go(tmp_path / "linked", root).digest == go(tmp_path / "plain", plain).digest


def test_the_baseline_local_follows_the_members(tmp_path: Path) -> None:
    ran: Ran = go(tmp_path, {**ROOT, "rounds": 6}, baseline="local")
    assert set(ran.summary["on_all_data"]["sites"]) == {"world/a", "world/c/x", "world/c/y"}


def test_a_run_that_was_killed_as_it_stopped_early_is_measured_by_the_members_of_its_last_round(tmp_path: Path) -> None:
    """And not by those of the round that would have come."""
    root = hub("world", "a", {**site("b"), "leaves_at": 3}, {**site("c"), "joins_at": 3}, rounds=5)
    top = {"evaluation": {"every": 2}, "stopping": {"metric": "loss", "target": 100.0}}
    killed = Copied(tmp_path / "runs", lambda record: isinstance(record, RoundCommitted) and record.round_number == 2)
    whole = run(config_of(tmp_path / "runs", root, **top), [killed])
    again = resume(killed.copy)
    assert whole["status"] == again["status"] == "stopped early" and again["nodes"] == whole["nodes"]
    assert again["nodes"]["world/b"]["loss"] is not None and "loss" not in again["nodes"]["world/c"]
