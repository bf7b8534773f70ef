"""The command line as a person meets it: the starter federation in a process of its own, on the local runtime."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
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
    _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, told
    run_dir = next((home / "runs").iterdir())
    assert told.rstrip().endswith(f"hierfl resume {run_dir.relative_to(home)}")

    num_done = int(json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])["round"])
    resumed = call(home, "resume", str(run_dir), f"federation.rounds={num_done + 2}", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["rounds"] == num_done + 2


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
