"""The command line as a person meets it: the starter federation in a process of its own, on the local runtime."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

HIERFL = [sys.executable, "-m", "hierfl"]
PATIENCE_S = 120


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with the starter in it."""
    assert call(tmp_path, "init", "fed").returncode == 0
    return tmp_path / "fed"


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*HIERFL, *words], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)


def start(folder: Path, words: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*HIERFL, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def test_the_starter_runs_as_it_is_and_the_run_can_be_measured_and_reported(home: Path) -> None:
    ran = call(home, "run", "federation.yaml", "federation.rounds=2", "--json")
    assert ran.returncode == 0, ran.stderr
    summary = json.loads(ran.stdout)
    assert summary["status"] == "finished"
    run_dir = summary["run_dir"]
    assert f"hierfl report {run_dir}" in ran.stderr

    measured = call(home, "evaluate", run_dir, "--json")
    assert measured.returncode == 0, measured.stderr
    nodes = json.loads(measured.stdout)
    assert nodes["world"]["auc"] == summary["nodes"]["world"]["auc"]
    assert list(nodes)[:3] == ["world", "world/north", "world/north/aalborg"]

    reported = call(home, "report", run_dir)
    assert reported.returncode == 0, reported.stderr
    assert (home / reported.stdout.strip()).is_file()


def test_ctrl_c_keeps_the_last_commit_and_the_command_that_it_names_goes_on(home: Path) -> None:
    process = start(home, ["run", "federation.yaml", "federation.rounds=100000", "--plain"])
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("round") and " 2/100000" in line:
            break
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, told
    assert "world: stopping: what is being trained is left off" in out
    run_dir = next((home / "runs").iterdir())
    assert told.rstrip().endswith(f"hierfl resume {run_dir.relative_to(home)}")

    num_done = int(json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])["round"])
    resumed = call(home, "resume", str(run_dir), f"federation.rounds={num_done + 2}", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["rounds"] == num_done + 2


def test_a_second_ctrl_c_does_not_wait_for_what_trains(home: Path) -> None:
    task = home / "my_task.py"
    task.write_text(
        "import time\n"
        + task.read_text().replace("        x, y = batch\n", "        x, y = batch\n        wait(y)\n", 1)
        + "\ndef wait(y):\n    import pathlib\n    pathlib.Path('trains').touch()\n    time.sleep(600)\n"
    )
    process = start(home, ["run", "federation.yaml", "--plain"])
    while not (home / "trains").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert any("stopping" in line for line in process.stdout)
    time.sleep(1.1)  # within a second it would be the same stop
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, told
    [run_dir] = (home / "runs").iterdir()
    assert json.loads((run_dir / "summary.json").read_text())["status"] == "interrupted"


def test_a_stop_before_the_first_commit_is_one_json_document_with_the_runs_folder(home: Path) -> None:
    task = home / "my_task.py"
    (home / "hold").touch()
    waits = (
        "        import pathlib, time\n        while pathlib.Path('hold').exists(): time.sleep(0.05)\n        cut = "
    )
    task.write_text(task.read_text().replace("        cut = ", waits))
    process = start(home, ["run", "federation.yaml", "--json"])
    while not list(home.glob("runs/*/events.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    (home / "hold").unlink()
    out, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, told
    [run_dir] = (home / "runs").iterdir()
    error = json.loads(out)["error"]
    assert (error["kind"], error["run_dir"]) == ("Interrupted", str(run_dir.relative_to(home)))
    assert str(run_dir.relative_to(home)) in told
    assert json.loads((run_dir / "summary.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize(("becomes", "rounds"), [("pass", 1), ("raise ImportError('half loaded')", 0)])
def test_a_stop_that_is_lost_on_its_way_ends_the_run_before_its_next_round(
    home: Path, becomes: str, rounds: int
) -> None:
    """As where it meets a module that Cython has made while it is loaded, or one that is half loaded."""
    (home / "deaf.py").write_text(
        f"""
import signal
from dataclasses import dataclass
from typing import ClassVar
from hierfl.learning.strategies.fedavg import FedAvg

@dataclass(frozen=True)
class Deaf(FedAvg):
    linear: ClassVar[bool] = True

    def step(self, *given):
        try:
            signal.raise_signal(signal.SIGINT)
        except:
            {becomes}
        return super().step(*given)
"""
    )
    ran = call(home, "run", "federation.yaml", "federation.strategy.kind=deaf:Deaf", "federation.rounds=5", "--json")
    assert ran.returncode == 130, ran.stderr
    error = json.loads(ran.stdout)["error"]
    summary = json.loads((home / error["run_dir"] / "summary.json").read_text())
    assert (error["kind"], summary["status"], summary["rounds"]) == ("Interrupted", "interrupted", rounds)


@pytest.mark.slow
def test_a_run_goes_on_from_any_folder_and_after_its_own_was_moved(home: Path, tmp_path: Path) -> None:
    """The task lies beside the YAML and nowhere else, and reads a file by a relative path."""
    task = home / "my_task.py"
    (home / "cut.txt").write_text("0")
    task.write_text(task.read_text().replace("        cut = ", "        open('cut.txt').close()\n        cut = "))
    digests = {}
    for rounds in (2, 3):
        ran = call(home, "run", "federation.yaml", f"federation.rounds={rounds}", "--json")
        assert ran.returncode == 0, ran.stderr
        digests[rounds] = json.loads(ran.stdout)
    run_dir = home / digests[2]["run_dir"]

    measured = call(Path("/"), "evaluate", str(run_dir), "--json")
    assert measured.returncode == 0, measured.stderr
    assert json.loads(measured.stdout)["world"]["auc"] == digests[2]["nodes"]["world"]["auc"]

    home.rename(tmp_path / "moved")
    run_dir = tmp_path / "moved" / digests[2]["run_dir"]
    lost = call(Path("/"), "evaluate", str(run_dir))
    assert lost.returncode == 2
    assert f"the run was started in {home}, which is no longer there; if it was moved" in lost.stderr

    words = ["federation.rounds=3", "--code-dir", str(tmp_path / "moved"), "--json"]
    resumed = call(Path("/"), "resume", str(run_dir), *words)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["model_digest"] == digests[3]["model_digest"]
    assert call(Path("/"), "evaluate", str(run_dir)).returncode == 0, "where it lies now was written down"


def test_an_error_in_the_users_code_names_the_site_and_shows_the_users_line(home: Path) -> None:
    task = home / "my_task.py"
    task.write_text(
        task.read_text().replace(
            "        cut = ", "        assert site != 'bergen', 'no file for bergen'\n        cut = "
        )
    )
    ran = call(home, "run", "federation.yaml", "--plain")
    assert ran.returncode == 1
    assert "bergen" in ran.stderr
    assert "no file for bergen" in ran.stderr
    assert "my_task.py" in ran.stderr
    assert "hierfl/cli.py" not in ran.stderr
    assert "bergen" not in ran.stdout, "told once, on standard error"
    [run_dir] = (home / "runs").iterdir()
    assert str(run_dir.relative_to(home)) in ran.stdout
