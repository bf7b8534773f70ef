"""A run that is taken up again: what is refused leaves its folder alone, what changes is written down."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import ward_tasks
import yaml
from small_runs import Copied, Listener, events, go, hub, tensors

from hierfl import checkpoint
from hierfl.errors import ConfigError, DataError, HierflError, OutputError
from hierfl.lifecycle import cross_site, evaluate, export, resume
from hierfl.monitor.records import Notice, RoundCommitted, RunEnded, SiteTrained
from hierfl.reopen import reopened
from hierfl.rounds import STOPPING
from hierfl.voice import Voice

TREE = hub("world", hub("up", "north", "south"), "east")
DEEP = "ward_tasks:Deep"


def content(folder: Path) -> dict[str, bytes]:
    """All of a run but who has taken it up, which its journal numbers before anything is read."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(("epoch-", "lease-")))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def summary_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def broken(folder: Path, until: tuple[type, int], *args: Any, **top: Any) -> Path:
    """Run until a stop; return the run's folder."""
    with pytest.raises(KeyboardInterrupt):
        go(folder, *args, until=until, output={"dir": str(folder), "tensorboard": False}, **top)
    [found] = folder.iterdir()
    return found


@pytest.mark.parametrize(
    ("overrides", "error", "says"),
    [
        ((), OutputError, "has done its 2 rounds"),
        (("seed=4", "federation.rounds=3"), ConfigError, "seed: is 4, of the run 0"),
        (("federation.rounds=3", "task.hidden=6"), OutputError, "of another model than the task builds now"),
        (("federation.rounds=3", "federation.members.east.data.fault='no file'"), DataError, "east.csv is missing"),
        (("federation.rounds=x",), ConfigError, "federation.rounds"),
    ],
    ids=["finished", "seed", "model", "data", "mistake"],
)
def test_a_refused_resume_leaves_the_folder_as_it_was(
    overrides: tuple[str, ...], error: type[HierflError], says: str, tmp_path: Path
) -> None:
    ran = go(tmp_path, TREE, DEEP if error is OutputError else "ward_tasks:Wards")
    before = content(ran.folder)
    with pytest.raises(error, match=says):
        resume(ran.folder, overrides)
    assert content(ran.folder) == before


def test_a_resume_that_is_stopped_before_its_first_round_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    folder = broken(tmp_path, (RoundCommitted, 1), TREE)
    before = content(folder)

    class Stops(Listener):
        def on(self, record: Any) -> None:
            super().on(record)
            if not isinstance(record, RunEnded):
                raise KeyboardInterrupt

    monitor = Stops()
    with pytest.raises(KeyboardInterrupt):
        resume(folder, monitors=[monitor])
    assert content(folder) == before
    assert monitor.of(RunEnded)[0].summary["run_dir"] == str(folder) and monitor.closed == 1


def test_an_interrupted_run_tells_all_that_is_known(tmp_path: Path) -> None:
    folder = broken(tmp_path, (SiteTrained, 3), {**hub("world", "north", "east"), "rounds": 4}, seed=5)
    summary = summary_of(folder)
    assert (summary["name"], summary["seed"], summary["status"]) == ("trial", 5, "interrupted")
    assert (summary["rounds"], summary["rounds_planned"]) == (2, 4)
    newest = checkpoint.latest(folder)
    assert newest is not None
    saved = checkpoint.load(newest)
    assert summary["model_digest"] == saved.model.digest(saved.layout)
    assert summary["nodes"]["world"]["num_samples"] == 24 and "accuracy" in summary["nodes"]["world"]
    assert {"wall_s", "wall_s_total", "startup_s", "run_dir", "versions", "runtime", "workers"} <= set(summary)
    assert events(folder)[-1]["summary"] == summary


def test_a_run_that_fails_before_its_first_round_has_a_summary(tmp_path: Path) -> None:
    from small_runs import site

    with pytest.raises(DataError):
        go(tmp_path, hub("world", "north", site("south", fault="no file")))
    [folder] = tmp_path.iterdir()
    summary = summary_of(folder)
    assert (summary["status"], summary["rounds"], summary["model_digest"]) == ("failed", 0, None)
    assert "south.csv is missing" in summary["error"] and summary["run_dir"] == str(folder)


def test_a_second_leg_that_breaks_keeps_what_the_first_one_knew(tmp_path: Path) -> None:
    root = {**TREE, "rounds": 4}
    folder = broken(tmp_path, (RoundCommitted, 2), root, evaluation={"every": 2})
    first = summary_of(folder)
    with pytest.raises(KeyboardInterrupt):
        resume(folder, monitors=[Listener(until=(SiteTrained, 3))])
    second = summary_of(folder)
    assert (second["status"], second["rounds"]) == ("interrupted", 2)
    assert second["model_digest"] == first["model_digest"]
    assert second["nodes"] == first["nodes"], "nothing was measured in the second leg"


def test_our_own_mistake_leaves_a_summary_too(tmp_path: Path) -> None:
    monitor = Listener(until=(SiteTrained, 1), stop=ZeroDivisionError("ours"))
    from small_runs import config_of

    from hierfl.lifecycle import run

    with pytest.raises(ZeroDivisionError):
        run(config_of(tmp_path, TREE), [monitor])
    [folder] = tmp_path.iterdir()
    assert summary_of(folder)["status"] == "failed" and "ZeroDivisionError" in summary_of(folder)["error"]


def test_overrides_are_written_down_and_hold_from_then_on(tmp_path: Path) -> None:
    folder = broken(tmp_path, (RoundCommitted, 1), {**TREE, "rounds": 4})
    before = (folder / "config.yaml").read_text()
    monitor = Listener(until=(RoundCommitted, 2))
    with pytest.raises(KeyboardInterrupt):
        resume(folder, ["training.lr=0.5", "federation.rounds=5"], [monitor])
    now = yaml.safe_load((folder / "config.yaml").read_text())
    assert (now["training"]["lr"], now["federation"]["rounds"]) == (0.5, 5)
    assert (folder / "config-1.yaml").read_text() == before
    notices = [event["message"] for event in events(folder) if event["event"] == "notice" and event["level"] == "info"]
    [told] = [message for message in notices if message != STOPPING]
    assert told == "from round 2 on: training.lr=0.5 federation.rounds=5; config-1.yaml held before"
    assert [notice.message for notice in monitor.of(Notice)] == [told, STOPPING]

    assert resume(folder)["rounds"] == 5, "the advice names no overrides, and needs none"
    assert not (folder / "config-2.yaml").exists()


def test_the_time_of_all_legs_is_added_up(tmp_path: Path) -> None:
    folder = broken(tmp_path, (SiteTrained, 2), {**hub("world", "north", "east"), "rounds": 3})
    (folder / "summary.json").unlink()  # as after a kill: what the checkpoint says is left
    newest = checkpoint.latest(folder)
    assert newest is not None
    said = json.loads((newest / "checkpoint.json").read_text())
    assert said["wall_s"] > 0
    (newest / "checkpoint.json").write_text(json.dumps({**said, "wall_s": 1000.0}))
    summary = resume(folder)
    assert summary["wall_s"] < 1000.0 < summary["wall_s_total"]
    assert summary["wall_s_total"] == pytest.approx(1000.0 + summary["wall_s"], abs=0.01)


def test_a_clock_that_is_set_back_takes_nothing_from_the_time_of_a_run(tmp_path: Path) -> None:
    """After an hour back a run had taken less than nothing, and so had all that its later processes added to."""
    folder = broken(tmp_path, (SiteTrained, 2), {**hub("world", "north", "east"), "rounds": 3})
    with reopened(folder) as left:
        voice = Voice(left.folder, left.config, [], before_s=7.0)
    voice.started_s += 3600.0
    summary = voice.summary("finished")
    assert 0.0 <= summary["wall_s"] < 60.0 and summary["wall_s_total"] >= 7.0


def test_another_stopping_metric_begins_its_count_anew(tmp_path: Path) -> None:
    root = {**hub("world", "north", "east"), "rounds": 3}
    folder = broken(
        tmp_path, (RoundCommitted, 2), root, stopping={"metric": "loss", "patience": 2, "min_delta": 1000.0}
    )
    assert resume(folder, ["stopping.metric=accuracy", "stopping.min_delta=0"])["rounds"] == 3


@pytest.mark.parametrize(
    ("overrides", "rounds"),
    [((), 2), (("training.lr=0.3",), 2), (("stopping.patience=9",), 5), (("federation.rounds=4",), 3)],
)
def test_a_run_that_stopped_early_and_was_killed_before_its_model_was_written_writes_it(
    overrides: tuple[str, ...], rounds: int, tmp_path: Path
) -> None:
    """It trains no more, unless it is asked to."""
    root = {**TREE, "rounds": 5}
    stopping = {"metric": "loss", "patience": 1, "min_delta": 1000.0}
    whole = go(tmp_path / "whole", root, DEEP, stopping=stopping)
    folder = broken(tmp_path / "killed", (RoundCommitted, 2), root, DEEP, stopping=stopping)
    assert whole.summary["rounds"] == 2 and not (folder / "model.safetensors").exists()
    monitor = Listener()
    summary = resume(folder, overrides, [monitor])
    assert summary["rounds"] == rounds and (folder / "model.safetensors").exists()
    assert summary["status"] == ("finished" if rounds == 5 else "stopped early")
    if rounds == 2:
        assert summary["model_digest"] == whole.digest and not monitor.of(SiteTrained)
        assert summary["nodes"]["world"]["loss"] == whole.summary["nodes"]["world"]["loss"]


def test_a_run_that_stopped_early_goes_on_where_it_is_asked_to_up_to_its_next_measurement(tmp_path: Path) -> None:
    stopping = {"metric": "loss", "patience": 1, "min_delta": 1000.0}
    ran = go(tmp_path, {**TREE, "rounds": 9}, stopping=stopping, evaluation={"every": 2})
    before = content(ran.folder)
    said = r"stopped early after round 4: loss has not improved .*; to go on, ask for it: stopping=null, or another"
    for overrides in ((), ("training.lr=0.3",)):
        with pytest.raises(OutputError, match=said):
            resume(ran.folder, overrides)
    assert content(ran.folder) == before
    assert (ran.summary["rounds"], resume(ran.folder, ["federation.rounds=10"])["rounds"]) == (4, 6)
    assert resume(ran.folder, ["stopping=null"])["status"] == "finished"


def test_what_was_asked_for_holds_also_where_the_process_that_heard_it_was_killed(tmp_path: Path) -> None:
    """Before its first commit: the newest is of the run that had stopped early, as are the model and the summary."""
    stopping = {"metric": "loss", "patience": 1, "min_delta": 1000.0}
    ran = go(tmp_path / "runs", {**TREE, "rounds": 5}, stopping=stopping)
    monitor = Copied(tmp_path / "runs", lambda record: isinstance(record, SiteTrained))
    monitor.then = lambda: setattr(monitor, "when", lambda record: False)
    whole = resume(ran.folder, ["stopping.patience=9"], [monitor])
    assert (ran.summary["rounds"], whole["rounds"]) == (2, 5)
    assert resume(monitor.copy)["model_digest"] == whole["model_digest"]


@pytest.mark.parametrize("more", [["federation.rounds=4"], ["stopping.patience=2"]])
def test_a_run_that_had_ended_before_and_was_killed_before_its_new_model_was_written_writes_it(
    more: list[str], tmp_path: Path
) -> None:
    """The model and the summary in its folder are those of the first time."""
    stopping = {"metric": "loss", "patience": 1, "min_delta": 1000.0} if "stopping" in more[0] else {}
    ran = go(tmp_path / "runs", {**TREE, "rounds": 9 if stopping else 2}, stopping=stopping)
    last = 3 if stopping else 4
    monitor = Copied(
        tmp_path / "runs", lambda record: isinstance(record, RoundCommitted) and record.round_number == last
    )
    whole = resume(ran.folder, more, [monitor])
    assert (ran.summary["rounds"], whole["rounds"]) == (2, last)
    again = resume(monitor.copy)
    assert (again["status"], again["model_digest"]) == (whole["status"], whole["model_digest"])
    assert content(monitor.copy)["model.safetensors"] == content(ran.folder)["model.safetensors"]
    with pytest.raises(OutputError, match=r"stopped early|has done its 4 rounds"):
        resume(monitor.copy)


def test_a_run_is_taken_up_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's folder is given, and recorded, as it was typed: relative to where one stands."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    whole = go(Path("whole"), {**TREE, "rounds": 3}, DEEP)
    folder = broken(Path("runs"), (RoundCommitted, 1), {**TREE, "rounds": 3}, DEEP)
    monkeypatch.chdir(tmp_path)
    assert resume(home / folder)["model_digest"] == whole.digest
    assert set(evaluate(Path("home") / folder)) == set(whole.summary["nodes"])
    assert os.getcwd() == str(tmp_path)
    assert tensors(home / folder).keys() == tensors(home / whole.folder).keys()


def test_a_run_says_which_code_its_task_was_and_each_process_that_takes_it_up_says_so_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_lines.py").write_text("from ward_tasks import Wards\n\n\nclass Lines(Wards):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    ran = go(tmp_path / "runs", TREE, "own_lines:Lines")
    [first] = [event for event in events(ran.folder) if event["event"] == "run_started"]
    assert (first["task_code"], first["versions"]) == (ran.summary["task_code"], ran.summary["versions"])
    (tmp_path / "own_lines.py").write_text((tmp_path / "own_lines.py").read_text() + "# another word\n")
    again = resume(ran.folder, ["federation.rounds=4"])
    told = [event["task_code"] for event in events(ran.folder) if event["event"] == "run_started"]
    assert told == [first["task_code"], again["task_code"]] and told[0] != told[1]
    [said] = [event["message"] for event in events(ran.folder) if "is not what this run began with" in str(event)]
    assert f"SHA-256 {told[1][:12]}..., then {told[0][:12]}..." in said
    resume(go(tmp_path / "same", TREE, "own_lines:Lines").folder, ["federation.rounds=4"])
    assert "not what this run began with" not in next((tmp_path / "same").glob("*/events.jsonl")).read_text()


def test_a_model_that_the_task_builds_no_more_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = go(tmp_path, TREE, "ward_tasks:Wards")
    monkeypatch.setattr(ward_tasks.Wards, "model", lambda task: torch.nn.Linear(5, 1))
    said = r"is of another model than the task builds now: .*'weight'.*; put the task back as it was, or start"
    with pytest.raises(OutputError, match=said):
        resume(ran.folder, ["federation.rounds=4"])
    for command in (evaluate, cross_site, lambda folder: export(folder, tmp_path / "x.safetensors")):
        with pytest.raises(OutputError, match=said):
            command(ran.folder)
