from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_fakes import FakeRun, install, small
from typer.testing import CliRunner

import hierfl
import hierfl.config
from hierfl.cli import app, main
from hierfl.errors import ConfigError, Problem, RoundFailed
from tiers.federation import Site

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """A run that is not one, writing to an existing run's folder."""
    folder = tmp_path / "runs" / "trial 1"
    (folder / "tensorboard").mkdir(parents=True)
    (folder / "config.yaml").write_text("name: trial\n")
    fake = FakeRun(folder)
    install(monkeypatch, fake, small())
    monkeypatch.chdir(tmp_path)
    return fake


def call(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_version_is_the_packages() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert call("--version").stdout == f"hierfl {declared}\n"
    assert hierfl.__version__ == declared


def test_a_mistyped_option_is_told_of_those_that_are_shown_alone() -> None:
    for said in ("--jion", "--joni", "--not", "--nots"):
        answer = call("run", said, "trial.yaml")
        assert answer.exit_code == 2 and f"No such option: {said}" in answer.stderr
        assert "--join" not in answer.stderr and "--note" not in answer.stderr
    assert "--json" in call("run", "--joni", "trial.yaml").stderr
    for command in ("run", "resume"):
        said = call(command, "trial.yaml", "--lr", "0.1").stderr
        assert "No such option: --lr; a key of the configuration has no dashes, KEY=VALUE: training.lr=0.1" in said
    assert "KEY=VALUE" not in call("report", "--lr").stderr.partition("Error")[2]


def test_run_ends_with_where_everything_is(run: FakeRun) -> None:
    result = call("run", "trial.yaml", "--plain")
    assert result.exit_code == 0, result.output
    weights, curves, report = result.stdout.splitlines()[-3:]
    assert weights == f"weights  {run.run_dir}/model.safetensors"
    assert curves.endswith(f"tensorboard --logdir '{run.run_dir}/tensorboard'")
    assert report.endswith(f"hierfl report '{run.run_dir}'")


def test_run_with_json_keeps_standard_output_for_the_summary(run: FakeRun) -> None:
    result = call("run", "trial.yaml", "--json")
    assert json.loads(result.stdout) == {"run_dir": str(run.run_dir), "status": "finished", "model_digest": "c0ffee"}
    assert run.chatter in result.stderr
    assert "tensorboard --logdir" in result.stderr


def test_overrides_are_the_words_with_an_equals_sign(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(hierfl.config, "load", lambda path, overrides: seen.append((path, overrides)) or small())
    assert call("validate", "trial.yaml", "training.lr=0.1", "federation.members.us.rounds=2").exit_code == 0
    assert seen == [(Path("trial.yaml"), ["training.lr=0.1", "federation.members.us.rounds=2"])]


def test_a_configuration_may_have_an_equals_sign_in_its_name(run: FakeRun, tmp_path: Path) -> None:
    (tmp_path / "lr=1.yaml").touch()
    assert call("validate", "lr=1.yaml", "seed=1").exit_code == 0


@pytest.mark.parametrize("words", [("validate", "a.yaml", "b.yaml"), ("run", "seed=1")])
def test_not_exactly_one_configuration_is_a_mistake(run: FakeRun, words: tuple[str, ...]) -> None:
    result = call(*words)
    assert result.exit_code == 2
    assert "one CONFIG is needed" in result.stderr
    assert run.calls == []


def wrong(*args: object) -> Any:
    raise ConfigError([Problem("training.lr", "must be above 0, is -1"), Problem("task.kind", "unknown 'hart'")])


@pytest.mark.parametrize("command", ["run", "validate", "tree"])
def test_every_mistake_is_listed(run: FakeRun, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(hierfl.config, "load", wrong)
    result = call(command, "trial.yaml")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "2 mistakes in the configuration:",
        "  training.lr: must be above 0, is -1",
        "  task.kind: unknown 'hart'",
    ]


def test_mistakes_are_there_for_machines_too(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hierfl.config, "load", wrong)
    error = json.loads(call("validate", "trial.yaml", "--json").stdout)["error"]
    assert error["kind"] == "ConfigError"
    assert [problem["path"] for problem in error["problems"]] == ["training.lr", "task.kind"]
    assert error["problems"][0]["message"] == "must be above 0, is -1"


def test_a_failed_run_says_why_and_how_to_go_on(run: FakeRun) -> None:
    run.end = RoundFailed("world: 1 of 4 members reported")
    result = call("run", "trial.yaml", "--plain")
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first == "error: world: 1 of 4 members reported"
    assert re.search(rf"the last commit is .*checkpoint-2; go on with: .*hierfl resume '{run.run_dir}'", second)


def test_debug_adds_the_traceback(run: FakeRun) -> None:
    run.end = RoundFailed("world: 1 of 4 members reported")
    assert "Traceback" in call("run", "trial.yaml", "--debug").stderr
    assert "Traceback" not in call("run", "trial.yaml").stderr


def test_an_error_of_ours_is_not_dressed_up(run: FakeRun) -> None:
    run.end = ZeroDivisionError("ours")
    assert isinstance(call("run", "trial.yaml").exception, ZeroDivisionError)


def test_ctrl_c_says_how_to_resume(run: FakeRun) -> None:
    run.end = KeyboardInterrupt()
    result = call("run", "trial.yaml")
    assert result.exit_code == 130
    assert f"hierfl resume '{run.run_dir}'" in result.stderr


def test_a_root_that_was_stopped_is_served_again(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hierfl.link.commands._serving", lambda *given: SimpleNamespace(config=small()))
    monkeypatch.setattr("hierfl.link.commands._watched", lambda serving: contextlib.nullcontext())
    monkeypatch.setattr("hierfl.link.serving.serve", lambda serving, monitors, resumed: run.run(serving, monitors))
    run.end = KeyboardInterrupt()
    result = call("serve", "trial.yaml", "seed=1", "--kit", "pki/kits/world", "--listen", "0.0.0.0:8443")
    assert result.exit_code == 130
    served = "hierfl serve trial.yaml seed=1 --kit pki/kits/world --listen 0.0.0.0:8443"
    assert f"{served} --resume '{run.run_dir}'" in result.stderr


def test_ctrl_c_before_the_first_commit_says_how_to_go_on(run: FakeRun) -> None:
    run.end, run.committed = KeyboardInterrupt(), 0
    result = call("run", "trial.yaml")
    assert result.exit_code == 130
    assert f"no round was committed yet; what happened is in {run.run_dir}; go on with: " in result.stderr
    assert f"hierfl resume '{run.run_dir}'" in result.stderr


@pytest.mark.parametrize("command", ["run", "resume"])
def test_a_stop_before_the_run_began_names_its_folder(run: FakeRun, command: str) -> None:
    run.early = KeyboardInterrupt()
    words = ["trial.yaml"] if command == "run" else [str(run.run_dir), "training.lr=0.5"]
    result = call(command, *words)
    assert result.exit_code == 130
    assert str(run.run_dir) in result.stderr
    assert ("training.lr=0.5" in result.stderr) == (command == "resume"), (
        "what the run has not written down is repeated"
    )


@pytest.mark.parametrize("words", [("run", "trial.yaml"), ("resume", "runs/trial 1")])
@pytest.mark.parametrize("committed", [0, 2])
def test_a_stop_is_one_json_document(run: FakeRun, words: tuple[str, ...], committed: int) -> None:
    run.end, run.committed = KeyboardInterrupt(), committed
    result = call(*words, "--json")
    assert result.exit_code == 130
    error = json.loads(result.stdout)["error"]
    assert (error["kind"], error["message"], error["run_dir"]) == (
        "Interrupted",
        "stopped by Ctrl-C",
        str(run.run_dir),
    )
    assert error["resume"].endswith(f"hierfl resume '{run.run_dir}'")


@pytest.mark.parametrize("words", [("validate", "t.yaml"), ("tree", "t.yaml"), ("plan", "t.yaml")])
@pytest.mark.parametrize("end", [KeyboardInterrupt(), ZeroDivisionError("ours")])
def test_every_command_with_json_answers_however_it_ends(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], end: BaseException
) -> None:
    def ends(*args: object) -> Any:
        raise end

    monkeypatch.setattr(hierfl.config, "load", ends)
    error = json.loads(call(*words, "--json").stdout)["error"]
    assert error["kind"] == ("Interrupted" if isinstance(end, KeyboardInterrupt) else "ZeroDivisionError")


def test_a_failure_for_machines_says_where_the_run_is(run: FakeRun) -> None:
    run.end = RoundFailed("world: 1 of 4 members reported")
    error = json.loads(call("run", "trial.yaml", "--json").stdout)["error"]
    assert (error["kind"], error["run_dir"]) == ("RoundFailed", str(run.run_dir))
    assert error["resume"].endswith(f"hierfl resume '{run.run_dir}'")


def test_a_refused_resume_is_not_advised_again(run: FakeRun) -> None:
    run.early = RoundFailed("another model")
    assert "go on with" not in call("resume", run.run_dir, "task.hidden=6").stderr


def test_a_command_line_that_is_not_understood_is_one_json_document() -> None:
    ran = subprocess.run([sys.executable, "-m", "hierfl", "resume", "--json"], capture_output=True, text=True)
    assert ran.returncode == 2
    assert "RUN_DIR" in json.loads(ran.stdout)["error"]["message"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_where_standard_output_takes_nothing_a_run_goes_on_and_the_command_says_so(
    tmp_path: Path, unbuffered: str
) -> None:
    """A full disk under the log, found as a line is printed or as all is written out at the end."""
    file = tmp_path / "run.yaml"
    file.write_text(
        "task: {kind: synthetic}\nfederation: {name: world, rounds: 2, members: [{name: a}]}\n"
        f"runtime: {{kind: local}}\noutput: {{dir: {tmp_path / 'runs'}, tensorboard: false}}\n"
    )
    said = "error: standard output cannot be written: No space left on device"
    for command in ("run", "tree"):
        with open("/dev/full", "w", encoding="utf-8") as full:
            words = [sys.executable, "-m", "hierfl", command, str(file)]
            env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
            ran = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, env=env)
        assert (ran.returncode, ran.stderr.strip()) == (1, said), command
    [folder] = (tmp_path / "runs").iterdir()
    assert json.loads((folder / "summary.json").read_text())["status"] == "finished"


def test_resume_hands_on_the_overrides(run: FakeRun) -> None:
    result = call("resume", run.run_dir, "federation.rounds=30", "--plain")
    assert result.exit_code == 0, result.output
    assert run.calls == [("resume", run.run_dir, ["federation.rounds=30"])]
    assert f"weights  {run.run_dir}" in result.stdout


@pytest.mark.parametrize("command", ["resume", "evaluate", "report"])
def test_a_folder_that_is_no_run_is_named(run: FakeRun, tmp_path: Path, command: str) -> None:
    result = call(command, tmp_path / "nowhere")
    assert (result.exit_code, run.calls) == (2, [])
    assert f"{tmp_path / 'nowhere'} does not exist" in result.stderr
    assert "has no config.yaml" in call(command, tmp_path).stderr


def test_evaluate_measures_on_other_data_but_not_every_model(run: FakeRun) -> None:
    assert call("evaluate", run.run_dir, "federation.members.us.data.n=3").exit_code == 0
    assert run.calls == [("evaluate", run.run_dir, "federation.members.us.data.n=3")]
    refused = call("evaluate", run.run_dir, "federation.members.us.data.n=3", "--cross-site")
    assert refused.exit_code == 2 and "--cross-site takes no overrides" in refused.stderr


def test_evaluate_shows_what_is_undefined(run: FakeRun) -> None:
    lines = call("evaluate", run.run_dir).stdout.splitlines()
    assert lines[1].split() == ["world", "16", "0.9100"]
    assert lines[2].split() == ["world/us", "3", "undefined"]
    assert json.loads(call("evaluate", run.run_dir, "--json").stdout)["world/us"]["auc"] is None


def test_tree_tells_samples_and_why_some_are_unknown(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hierfl.config, "load", lambda *args: small(Site("dark")))
    assert call("tree", "trial.yaml").stdout.splitlines() == [
        "world  star, fedavg, 15 rounds  4 sites",
        "├─ us  star, fedavg, 2 rounds per round of world  3 sites",
        "│  ├─ cleveland  train 50, test 15",
        "│  ├─ long_beach  train 10, test 3",
        "│  └─ dark  samples unknown: site 'dark': there is no file dark.parquet",
        "└─ budapest  data of bp  train 10, test 3",
    ]


def test_an_encoding_without_the_letters_of_a_name_is_no_error(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    monkeypatch.setattr(sys, "argv", ["hierfl", "tree", "trial.yaml"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    assert b"?? cleveland" in written.getvalue()


def test_tree_for_machines(run: FakeRun) -> None:
    nodes = json.loads(call("tree", "trial.yaml", "--json").stdout)["nodes"]
    assert list(nodes) == ["world", "world/us", "world/us/cleveland", "world/us/long_beach", "world/budapest"]
    assert nodes["world"]["num_train"] == 70
    assert nodes["world/budapest"] == {"is_hub": False, "num_sites": 1, "num_train": 10, "num_test": 3, "key": "bp"}


def test_validate_for_machines(run: FakeRun) -> None:
    answer = json.loads(call("validate", "trial.yaml", "--json").stdout)
    assert answer == {
        "valid": True,
        "name": "trial",
        "task": "counting",
        "hubs": 2,
        "sites": 3,
        "tiers": 3,
        "promises": {},
        "strategies": {},
        "runtime": {},
        "doubles": {},
        "compression": {},
        "shared": {},
        "statistics": {},
        "privacy": {},
        "secure_aggregation": {},
        "redundancy": {},
        "journal": {},
        "faults": {},
    }


def cpu_of(*command: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    before = os.times()
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, ran


def test_help_answers_at_once() -> None:
    used, ran = min((cpu_of(sys.executable, "-m", "hierfl", "--help") for _ in range(3)), key=lambda pair: pair[0])
    assert ran.returncode == 0
    assert "submit" in ran.stdout
    assert used < 0.5


def test_help_cuts_no_commands_line_short() -> None:
    ran = CliRunner().invoke(app, ["--help"], terminal_width=80)
    assert "submit" in ran.stdout
    assert "..." not in ran.stdout.partition("Commands:")[2]


@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_a_reader_that_leaves_early_is_no_error(reader: str) -> None:
    script = f"'{sys.executable}' -m hierfl tree configs/scale.yaml --json | {reader}"
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert ran.stderr == ""


@pytest.mark.parametrize("words", [("training.lr", "0.1"), ("training.lr", "=", "0.1")])
@pytest.mark.parametrize("command", ["run", "tree", "validate"])
def test_an_override_with_spaces_is_told_how_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").touch()
    result = call(command, "mine.yaml", *words)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[1:] == [
        "  'training.lr', '0.1': no file, and no override, which is one word without spaces: training.lr=0.1"
    ]


@pytest.mark.parametrize("place", ["runs", "runs/...", "."])
def test_who_names_no_run_hears_which_is_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("runs/newest", "runs/older")):
        Path(name).mkdir(parents=True)
        Path(name, "config.yaml").touch()
        os.utime(Path(name, "config.yaml"), (1e9 - age, 1e9 - age))
    said = call("report", place).stderr
    assert "not the folder of a run" in said and said.endswith("; the newest here is runs/newest\n")


def test_the_folder_of_a_run_is_no_configuration(tmp_path: Path) -> None:
    for name in ("config.yaml", "events.jsonl"):
        (tmp_path / name).touch()
    said = call("run", tmp_path).stderr
    assert f"`hierfl resume {tmp_path}` goes on with it" in said
