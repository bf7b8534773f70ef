"""Runs from Python: the bits of the command line, and a caller whose process is left as it was."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import random
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import ward_tasks
from omegaconf import OmegaConf
from small_runs import hub, site
from torch import nn
from typer.testing import CliRunner

import hierfl
from hierfl.cli import app
from hierfl.config import as_words, from_mapping, write
from hierfl.errors import OutputError
from hierfl.learning.strategies.fedavgm import FedAvgM
from hierfl.runtime.threads import WorkerThread

WARDS = "ward_tasks:Wards"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def wards(**top: Any) -> dict[str, Any]:
    return {
        "name": "trial",
        "task": {"kind": "ward_tasks:Wards"},
        "training": {"lr": 0.1, "batch_size": 4},
        "federation": hub("world", hub("us", "a", "b"), site("c"), rounds=3),
        "runtime": {"kind": "local", "num_workers": 1},
        "output": {"tensorboard": False},
        **top,
    }


def stop_after(rounds: int, error: BaseException) -> Callable[[int, Mapping[str, Any]], None]:
    def stop(rounds_done: int, metrics: Mapping[str, Any]) -> None:
        assert metrics["world"]["num_test"] > 0
        if rounds_done == rounds:
            raise error

    return stop


def test_a_dict_a_dictconfig_a_file_and_the_command_line_give_the_same_bits(tmp_path: Path) -> None:
    (tmp_path / "wards.yaml").write_text(write(wards()))
    ran = CliRunner().invoke(app, ["run", "wards.yaml", "seed=5"])
    assert ran.exit_code == 0, ran.output
    [folder] = (tmp_path / "runs").iterdir()
    wanted = hierfl.open_run(folder)
    with_class = wards(task={"kind": ward_tasks.Wards})
    given = [wards(), OmegaConf.create(wards()), with_class, "wards.yaml", tmp_path / "wards.yaml"]
    assert {hierfl.run(config, ["seed=5"]).digest for config in given} == {wanted.digest}
    assert with_class["task"] == {"kind": ward_tasks.Wards}  # the caller's own is left alone


def test_overrides_by_key_say_what_words_do() -> None:
    words = [
        "seed=5",
        "federation.members.us.rounds=2",
        "name='${task.kind} ü'",
        "training={lr: 1e-05, batch_size: null}",
    ]
    given = {"seed": 5, "federation.members.us.rounds": 2, "name": "${task.kind} ü"}
    given |= {"training": {"lr": 1e-05, "batch_size": None}}
    assert from_mapping(wards(), as_words(given)) == from_mapping(wards(), as_words(words))
    ran = hierfl.run(wards(), {"federation.strategy": FedAvgM(momentum=0.5), "federation.rounds": 1})
    assert ran.config["federation"]["strategy"]["momentum"] == 0.5 and ran.summary["rounds"] == 1
    again = hierfl.resume(ran, {"federation.rounds": 2})
    assert again.summary["rounds"] == 2 and ran.evaluate({"evaluation.auc": "none"})["world"]["num_test"] > 0


def test_no_override_has_a_line_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "wards.yaml").write_text(write(wards()))
    for overrides in ({"training.lr": "slow"}, ["training.lr"]):
        with pytest.raises(hierfl.ConfigError) as caught:
            hierfl.validate("wards.yaml", overrides)
        assert [(problem.path, problem.line) for problem in caught.value.problems] == [("training.lr", None)]


def test_classes_and_instances_stand_for_what_a_yaml_would_say() -> None:
    said = {"kind": "fedavgm", "momentum": 0.5}
    given = [said, {"kind": FedAvgM, "momentum": 0.5}, FedAvgM(momentum=0.5)]
    read = [from_mapping(wards(task=task)).resolved for task in (ward_tasks.Wards, ward_tasks.Wards(), {"kind": WARDS})]
    assert read[0] == read[1] == read[2]
    trees = [from_mapping(wards(federation=hub("world", "a", "b", strategy=one))).resolved for one in given]
    assert trees[0] == trees[1] == trees[2]
    assert trees[0]["federation"]["strategy"]["kind"] == "fedavgm"

    @dataclass(frozen=True)
    class Inner(ward_tasks.Wards):
        pass

    with pytest.raises(hierfl.ConfigError, match="made within a function cannot be found again"):
        hierfl.run(wards(task=Inner()))


def test_a_result_is_the_run_s_folder_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = hierfl.run(wards())
    monkeypatch.chdir("/")  # the folder does not depend on where the caller is now
    assert result.run_dir.parent == tmp_path / "runs"
    assert result.summary["status"] == "finished"
    assert result.config["training"]["lr"] == 0.1
    assert "3 of 3 rounds" in repr(result)
    table = result.metrics(lr=0.1, seed=0)
    assert table.column_names[:4] == ["lr", "seed", "round", "node"]
    assert table.num_rows == 3 * 5
    assert table["lr"].unique().to_pylist() == [0.1]
    last = table.filter((table["node"].to_numpy() == "world") & (table["round"].to_numpy() == 3)).to_pylist()
    assert last[0]["loss"] == result.summary["nodes"]["world"]["loss"]
    module = result.model()
    assert not module.training
    assert {name: tensor.tolist() for name, tensor in module.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in result.state_dict().items()
    }
    assert result.evaluate()["world"]["loss"] == last[0]["loss"]
    with pytest.raises(ValueError, match="loss: the run's own metrics"):
        result.metrics(loss=1)
    with pytest.raises(OutputError, match=r"has no best\.safetensors; a run keeps it under `stopping"):
        result.state_dict(best=True)


def test_the_digest_is_of_the_newest_model_where_a_later_process_left_no_summary(tmp_path: Path) -> None:
    result = hierfl.run(wards(), ["federation.rounds=1"])
    first, summary = result.digest, result.run_dir / "summary.json"
    left = summary.read_text()
    hierfl.resume(result, ["federation.rounds=2"])
    summary.write_text(left)
    assert hierfl.open_run(result.run_dir).digest != first
    shutil.rmtree(result.run_dir / "checkpoints")
    assert hierfl.open_run(result.run_dir).digest == first


def test_metrics_that_come_late_or_are_not_measured_have_empty_places() -> None:
    late = hierfl.run(wards(evaluation={"every": 2})).metrics()
    assert sorted(late["round"].unique().to_pylist()) == [2, 3]
    none = hierfl.run(wards(evaluation={"every": 0})).metrics(lr=1.0)
    assert (none.num_rows, none.column_names) == (0, ["lr", "round", "node"])


def test_metrics_of_a_large_run_are_put_into_a_table_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a dictionary a row takes eight times as much: those of 2,000 sites and 1,000 rounds took 4 GB at once."""
    ran = hierfl.run(wards())
    rows = [json.loads(line) for line in (ran.run_dir / "metrics.jsonl").read_text().splitlines()]
    whole = ran.metrics(lr=1.0)
    monkeypatch.setattr("hierfl.result._TOGETHER", 2)
    parts = ran.metrics(lr=1.0)
    assert parts.column("round").num_chunks == -(-len(rows) // 2) > 1
    assert parts.schema == whole.schema and parts.to_pylist() == whole.to_pylist()
    assert parts.to_pylist() == [{"lr": 1.0} | dict.fromkeys(whole.column_names[1:]) | row for row in rows]


def test_mistakes_are_told_all_at_once_and_nothing_starts(tmp_path: Path) -> None:
    assert hierfl.validate(wards())["sites"] == 3
    for call in (hierfl.validate, hierfl.run):
        with pytest.raises(hierfl.ConfigError) as caught:
            call(wards(trainig={}), ["federation.rounds=many"])
        assert [problem.path for problem in caught.value.problems] == ["trainig", "federation.rounds"]
    with pytest.raises(hierfl.ConfigError, match="not list"):
        hierfl.run([wards()])  # type: ignore[arg-type]
    with pytest.raises(hierfl.ConfigError, match="overrides are a list of words"):
        hierfl.run(wards(), "seed=1")
    with pytest.raises(hierfl.ConfigError, match=r"or one dict, .*; in the list stands \{'seed': 1\}"):
        hierfl.run(wards(), [{"seed": 1}])  # type: ignore[list-item]
    with pytest.raises(hierfl.ConfigError, match=r"^training\.lr: is PosixPath\('a'\), which YAML has no words"):
        hierfl.run(wards(), {"training.lr": Path("a")})
    with pytest.raises(OutputError, match="not the folder of a run"):
        hierfl.open_run(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("pruned")])
def test_a_stop_keeps_the_last_commit_and_says_how_to_go_on(error: BaseException) -> None:
    whole = hierfl.run(wards())
    with pytest.raises(type(error)) as caught:
        hierfl.run(wards(), progress=stop_after(2, error))
    [note] = caught.value.__notes__
    folder = note.partition("go on with: hierfl.resume('")[2].removesuffix("')")
    left = hierfl.open_run(folder)
    assert left.summary["status"] == ("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
    with pytest.raises(OutputError, match=r"a run writes it at its end: hierfl\.resume"):
        left.state_dict()
    before = left.digest
    assert hierfl.resume(left).digest == whole.digest != before
    with pytest.raises(OutputError, match="has done its 3 rounds") as refused:
        hierfl.resume(folder)
    assert refused.value.run_dir == Path(folder)
    assert not hasattr(refused.value, "__notes__")  # what was refused is not advised


def test_what_a_progress_function_does_to_its_metrics_is_done_to_no_record() -> None:
    def take(rounds: int, metrics: Any) -> None:
        metrics["world"].pop("loss")
        metrics["world"]["reliability"].clear()
        metrics.pop("world/us")

    plain, taken = hierfl.run(wards()), hierfl.run(wards(), progress=take)
    assert taken.summary["nodes"] == plain.summary["nodes"] and "loss" in plain.summary["nodes"]["world"]


@pytest.mark.parametrize("wrong", [4, None, b"runs/trial"])
def test_what_names_no_run_is_told(wrong: Any) -> None:
    for call in (hierfl.resume, hierfl.open_run):
        with pytest.raises(OutputError, match=rf"^a run is named by its folder, as a path, .* not by {wrong!r}$"):
            call(wrong)


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_round_that_was_told_is_kept_also_where_no_checkpoint_was_due(rounds: int) -> None:
    output = {"tensorboard": False, "checkpoint_every": 3}
    with pytest.raises(KeyboardInterrupt) as caught:
        hierfl.run(wards(output=output), progress=stop_after(rounds, KeyboardInterrupt()))
    [note] = caught.value.__notes__
    assert f"round-{rounds:06d}; go on with" in note
    left = hierfl.open_run(note.partition("hierfl.resume('")[2].removesuffix("')"))
    assert (
        left.summary["rounds"] == rounds and left.digest == hierfl.run(wards(), [f"federation.rounds={rounds}"]).digest
    )


def test_the_caller_s_process_stays_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        drawn = []
        for run in (lambda: None, lambda: hierfl.run(wards())):
            random.seed(7), np.random.seed(7), torch.manual_seed(7)  # type: ignore[no-untyped-call]
            run()
            drawn.append((random.random(), float(np.random.rand()), float(torch.rand(1))))
        assert drawn[0] == drawn[1]
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert capfd.readouterr() == ("", "")


def test_a_second_stop_while_the_first_is_obeyed_leaves_the_process_to_the_next_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped_again(thread: WorkerThread, timeout_s: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(WorkerThread, "join", stopped_again)
        with pytest.raises(KeyboardInterrupt):
            hierfl.run(wards(), progress=stop_after(1, KeyboardInterrupt()))
    assert hierfl.run(wards(), ["federation.rounds=1"]).summary["status"] == "finished"


def test_what_is_shown_is_asked_for_and_warnings_go_to_the_log(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    config = wards(federation=hub("world", "a", site("b", role="evaluation"), rounds=1))
    with caplog.at_level(logging.INFO, "hierfl"):
        hierfl.run(config)
    assert "world/b: is measured beside the others" in caplog.text
    assert capfd.readouterr() == ("", "")
    caplog.clear()
    hierfl.run(config, progress=True)
    assert "round 1/1" in capfd.readouterr().out
    assert caplog.text == ""


def test_an_event_loop_and_another_thread_run_it_too() -> None:
    async def inside() -> str | None:
        return hierfl.run(wards()).digest

    async def beside() -> str | None:
        return (await asyncio.to_thread(hierfl.run, wards())).digest

    assert asyncio.run(inside()) == asyncio.run(beside())


OWN_TASK = "from ward_tasks import Wards as Mine\n\n\nclass Own(Mine):\n    pass\n"
OWN_STRATEGY = OWN_TASK.replace("ward_tasks import Wards", "hierfl.learning.strategies.fedavg import FedAvg")


@pytest.mark.parametrize("seam", ["task", "strategy"])
def test_a_script_s_own_module_is_found_again_from_elsewhere(
    seam: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / f"script_{seam}.py").write_text({"task": OWN_TASK, "strategy": OWN_STRATEGY}[seam])
    monkeypatch.syspath_prepend(str(folder))
    own = {"kind": f"script_{seam}:Own"}
    root = {"name": "world", "rounds": 3, "members": [{"name": "a"}, {"name": "b"}]}
    more: dict[str, Any] = {"task": "synthetic", "federation": {**root, "strategy": own}}
    try:
        result = hierfl.run(wards(**(more if seam == "strategy" else {"task": own})))
    finally:
        sys.modules.pop(f"script_{seam}", None)
    sys.path.remove(str(folder))
    assert hierfl.resume(result, ["federation.rounds=4"]).summary["rounds"] == 4
    sys.modules.pop(f"script_{seam}", None)


def test_a_module_that_is_a_link_is_found_by_the_link_and_one_of_a_made_up_name_is_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("scripts", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "elsewhere" / "version_2.py").write_text(OWN_TASK)
    (tmp_path / "scripts" / "linked_task.py").symlink_to(tmp_path / "elsewhere" / "version_2.py")
    monkeypatch.syspath_prepend(str(tmp_path / "scripts"))
    module = importlib.import_module("linked_task")
    monkeypatch.delitem(sys.modules, "linked_task")
    for name, home in (("linked_task", tmp_path / "scripts"), (".".join("abcdefghijklmnop"), None)):
        monkeypatch.setitem(sys.modules, name, module)
        assert from_mapping(wards(task={"kind": f"{name}:Own"})).folder == home


@dataclass(frozen=True)
class OfTheScript(ward_tasks.Wards):
    """Stands in the script itself."""

    def model(self) -> nn.Module:
        return super().model()


def test_a_task_of_the_script_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    own = type("Own", (OfTheScript,), {"__module__": "__main__"})
    own = dataclass(frozen=True)(own)
    monkeypatch.setattr(sys.modules["__main__"], "Own", own, raising=False)
    result = hierfl.run(wards(task={"kind": own}))
    assert result.config["task"]["kind"] == "__main__:Own"
    assert result.digest == hierfl.run(wards()).digest
    monkeypatch.delattr(sys.modules["__main__"], "Own")
    ran = CliRunner().invoke(app, ["resume", str(result.run_dir), "federation.rounds=4"])
    assert ran.exit_code == 2
    assert "was a class of a script or a notebook" in ran.output
    assert "my_task:Own" in ran.output


@pytest.mark.parametrize("other", ["study_task", "study_help"])
def test_a_yaml_is_not_run_by_another_folders_module_of_the_name(
    other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("study_task", "study_help"):
        monkeypatch.setitem(sys.modules, name, sys)  # so that it is taken out again
        del sys.modules[name]
    for folder in ("one", "same", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "study_task.py").write_text("import study_help\nfrom ward_tasks import Wards as Study\n")
        (tmp_path / folder / "study_help.py").write_text("")
        (tmp_path / folder / "study.yaml").write_text(write(wards(task={"kind": "study_task:Study"})))
    (tmp_path / f"{other}.py").write_text("raise ImportError('beside the YAML comes first')\n")
    with (tmp_path / "two" / f"{other}.py").open("a") as file:
        file.write("FOLDS = 3\n")

    assert hierfl.run("one/study.yaml").digest == hierfl.run("same/study.yaml").digest
    with pytest.raises(hierfl.ConfigError, match=rf"two.{other}\.py is not the {other} of this process, .*one.{other}"):
        hierfl.run("two/study.yaml")
