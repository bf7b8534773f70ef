"""A run that is changed while it is under way: taken in between two rounds, to the bits of the same change declared."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from small_runs import Listener, config_of, events, go, hub
from typer.testing import CliRunner

from hierfl.amend import amend
from hierfl.cli import app
from hierfl.errors import ConfigError, OutputError
from hierfl.lifecycle import resume, run
from hierfl.monitor.records import MembershipChanged, Notice, Record, RoundCommitted, RunStarted
from hierfl.rundir import SPOOL, RunDir

ROOT = hub("world", {"count": 2, "name": "s{i}"}, rounds=6)
JOIN, LEAVE = "federation.members.+={name: new, joins_at: 4}", "federation.members.s0.leaves_at=5"


@dataclass
class Hand(Listener):
    """A monitor in whose round somebody does something to the run."""

    at: int = 0
    does: Callable[[Path], Any] = lambda folder: None
    folder: Path = field(default_factory=Path)

    def on(self, record: Record) -> None:
        super().on(record)
        if isinstance(record, RunStarted):
            self.folder = Path(record.run_dir)
        if isinstance(record, RoundCommitted) and record.round_number == self.at:
            self.does(self.folder)


def amended(folder: Path, at: int, *words: str, root: Any = ROOT, **top: Any) -> tuple[Any, Hand]:
    hand = Hand(at=at, does=lambda found: amend(found, words))
    return run(config_of(folder, root, **top), [hand]), hand


def test_members_join_and_leave_while_the_run_goes_on(tmp_path: Path) -> None:
    summary, hand = amended(tmp_path, 2, JOIN, LEAVE)
    assert summary["status"] == "finished" and summary["rounds"] == 6
    changes = hand.of(MembershipChanged)
    assert [(one.round_number, one.joined, one.left) for one in changes] == [
        (4, ("world/new",), ()),
        (5, (), ("world/s0",)),
    ]
    declared = hub("world", {"name": "s0", "leaves_at": 5}, "s1", {"name": "new", "joins_at": 4}, rounds=6)
    assert summary["model_digest"] == go(tmp_path, declared).digest
    assert [one.round_number for one in hand.of(RoundCommitted)] == [1, 2, 3, 4, 5, 6]
    assert [one.first_round for one in hand.of(RunStarted)] == [1, 3] and hand.closed == 1
    folder = Path(summary["run_dir"])
    assert not (folder / "amend.json").exists() and (folder / "config-1.yaml").exists()
    said = [event["message"] for event in events(folder) if event["event"] == "notice"]
    assert f"from round 3 on: {JOIN} {LEAVE}; config-1.yaml held before" in said


def test_any_key_that_resume_takes_may_change(tmp_path: Path) -> None:
    output = {"dir": str(tmp_path), "tensorboard": False, "checkpoint_every": 5}
    summary, _ = amended(tmp_path, 3, "training.lr=0.5", root=hub("world", "a", "b", rounds=5), output=output)
    first = go(tmp_path, hub("world", "a", "b", rounds=3))
    assert resume(first.folder, ["training.lr=0.5", "federation.rounds=5"])["model_digest"] == summary["model_digest"]


def test_more_rounds_come_in_time_even_in_the_last_one(tmp_path: Path) -> None:
    summary, _ = amended(tmp_path, 2, "federation.rounds=4", root=hub("world", "a", "b", rounds=2))
    assert summary["rounds"] == 4 and summary["model_digest"] == go(tmp_path, hub("world", "a", "b", rounds=4)).digest


def test_what_comes_too_late_is_refused_by_name_and_the_run_goes_on(tmp_path: Path) -> None:
    def late(folder: Path) -> None:
        (folder / "amend.json").write_text(json.dumps({"overrides": ["federation.members.s0.leaves_at=2"]}))

    hand = Hand(at=3, does=late)
    summary = run(config_of(tmp_path, ROOT), [hand])
    assert summary["model_digest"] == go(tmp_path, ROOT).digest
    [said] = [notice for notice in hand.of(Notice) if "refused to take in" in notice.message]
    assert said.level == "warning" and "rounds before 4 are over" in said.message
    folder = Path(summary["run_dir"])
    assert json.loads((folder / "amend-refused.json").read_text()) == {
        "overrides": ["federation.members.s0.leaves_at=2"]
    }
    assert not (folder / "amend.json").exists()


def test_a_run_that_stands_still_takes_it_in_when_it_is_resumed(tmp_path: Path) -> None:
    hand = Hand(until=(RoundCommitted, 2))
    with pytest.raises(KeyboardInterrupt):
        run(config_of(tmp_path, ROOT), [hand])
    assert amend(hand.folder, [JOIN]) == (2, [JOIN])
    said = CliRunner().invoke(app, ["amend", str(hand.folder), LEAVE])
    assert said.stdout.endswith(
        f"which has done 2 rounds: {JOIN} {LEAVE}\nno process leads that run now: only `hierfl resume {hand.folder}`"
        " takes it up, with what is left for it\n"
    )
    declared = hub("world", {"name": "s0", "leaves_at": 5}, "s1", {"name": "new", "joins_at": 4}, rounds=6)
    assert resume(hand.folder)["model_digest"] == go(tmp_path, declared).digest
    assert not (hand.folder / "amend.json").exists()


@pytest.mark.parametrize("num_writes", range(6))
def test_a_kill_between_two_writes_takes_an_amendment_in_once(
    num_writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the configuration before, the mark, the origin, the new configuration and what is left, some are written."""
    hand = Hand(until=(RoundCommitted, 2))
    with pytest.raises(KeyboardInterrupt):
        run(config_of(tmp_path, ROOT), [hand])
    amend(hand.folder, [JOIN, LEAVE])
    left, replace, unlink = num_writes, os.replace, Path.unlink

    def killed(act: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return act(*arguments, **named)

        return write

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr("hierfl.journal.LocalStore.put_lease", lambda *_: None)  # it is written whenever it is time
        patch.setattr(os, "replace", killed(replace))
        patch.setattr(Path, "unlink", killed(unlink))
        resume(hand.folder)
    declared = hub("world", {"name": "s0", "leaves_at": 5}, "s1", {"name": "new", "joins_at": 4}, rounds=6)
    assert left == -1 or num_writes == 5, "the number of writes is another now"
    assert resume(hand.folder)["model_digest"] == go(tmp_path, declared).digest
    assert (hand.folder / "config.yaml").read_text().count("name: new") == 1
    assert not (hand.folder / "amend.json").exists()


def test_what_is_left_behind_what_is_taken_in_stays(tmp_path: Path) -> None:
    """A word comes while others are taken in, and the process ends before it has told that they are."""
    hand = Hand(until=(RoundCommitted, 2))
    with pytest.raises(KeyboardInterrupt):
        run(config_of(tmp_path, ROOT), [hand])
    folder = RunDir.open(hand.folder)
    config = hand.folder / "config.yaml"
    amend(hand.folder, ["training.lr=0.5"])
    found = json.loads((hand.folder / "amend.json").read_text())
    digest = hashlib.sha256(config.read_bytes()).hexdigest()
    (hand.folder / "amend.json").write_text(json.dumps({**found, "taken": {"count": 1, "config": digest}}))
    assert folder.amendments() == [], "that configuration holds"
    assert folder.amend(["training.lr=0.7"]) == ["training.lr=0.7"]
    assert json.loads((hand.folder / "amend.json").read_text()) == {"overrides": ["training.lr=0.7"]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["federation.members.+={name: new}"], "let it join: joins_at: 7 or later"),
        (
            ["federation.rounds=9", "training.lr_schedule={kind: PolynomialLR, total_iters: 6}"],
            "s0: training.lr_schedule: PolynomialLR gives a learning rate of 0 in round 7 of 9",
        ),
        (["seed=3"], "is 3, of the run 0"),
        (["federation.members.s9.leaves_at=9"], "there is no 's9' here"),
        ([], "amend needs what is to change"),
    ],
)
def test_a_refusal_leaves_nothing(words: list[str], said: str, tmp_path: Path) -> None:
    ran = go(tmp_path, ROOT)
    with pytest.raises(ConfigError, match=re.escape(said)):
        amend(ran.folder, words)
    with pytest.raises(OutputError, match="has done its 6 rounds"):
        amend(ran.folder, ["training.lr=0.5"])
    assert not (ran.folder / "amend.json").exists()


def test_a_simulated_run_of_a_yaml_with_links_may_be_amended_and_a_served_one_not(tmp_path: Path) -> None:
    linked = hub("world", "s0", {"name": "s1", "link": {"address": "s1.example:7000"}}, rounds=6)
    summary, _ = amended(tmp_path, 2, JOIN, LEAVE, root=linked)
    declared = hub("world", {"name": "s0", "leaves_at": 5}, "s1", {"name": "new", "joins_at": 4}, rounds=6)
    assert summary["model_digest"] == go(tmp_path, declared).digest
    (Path(summary["run_dir"]) / SPOOL).mkdir()
    with pytest.raises(ConfigError, match="all keep to the YAML on which they agreed"):
        amend(Path(summary["run_dir"]), ["federation.rounds=9"])


def test_the_command_says_what_it_left(tmp_path: Path) -> None:
    ran = go(tmp_path, ROOT)
    words = ["amend", str(ran.folder), "federation.rounds=9", "--json"]
    answer = json.loads(CliRunner().invoke(app, words).stdout)
    assert answer == {"run_dir": str(ran.folder), "rounds_done": 6, "overrides": ["federation.rounds=9"]}
    assert resume(ran.folder)["rounds"] == 9


def test_what_a_task_of_hierfls_own_splits_by_stays_and_of_another_it_is_warned_of(tmp_path: Path) -> None:
    members = hub("world", "site-0", "site-1", rounds=1)
    digits = go(tmp_path / "digits", members, {"kind": "digits", "num_sites": 2}).folder
    with pytest.raises(ConfigError, match=r"task\.test_fraction: is 0\.6, of the run 0\.25; a run keeps it to its end"):
        resume(digits, ["federation.rounds=2", "task.test_fraction=0.6"])
    ran, heard = go(tmp_path / "deep", hub("world", "a", "b"), "ward_tasks:Deep"), Listener()
    resume(ran.folder, ["federation.rounds=3", "task.dropout=0.5"], [heard])
    [said] = [note for note in heard.of(Notice) if "task.dropout is 0.5, of the run 0.2" in note.message]
    assert said.level == "warning"
