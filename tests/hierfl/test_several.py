"""`hierfl run A B`: all mistakes at once, lines with names, one stop for all; the runs are shell scripts here."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from shared_runs import write_run
from typer.testing import CliRunner

from hierfl.cli import app
from hierfl.errors import ConfigError
from hierfl.monitor.words import told_apart
from hierfl.several import load_all, run_all, worst

CONFIG = """
name: {name}
task: {{kind: heart_disease}}
federation: {{name: world, rounds: 1, members: [{{name: cleveland}}]}}
runtime: {{kind: {kind}, address: {address}}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, kind: str = "ray", address: str = "auto") -> Path:
    path = Path(f"{name}.yaml")
    path.write_text(CONFIG.format(name=name, kind=kind, address=address))
    return path


def script(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Put a shell script in Python's place; $4 is the configuration."""
    path = Path("fake").resolve()
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def call(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_all_mistakes_of_all_files_are_told_at_once(folder: Path) -> None:
    write("good")
    write("local", kind="local")
    result = call("run", "good.yaml", "local.yaml", "absent.yaml", "training.lrr=1")
    assert result.exit_code == 2
    assert result.stderr.count("training.lrr: unknown key") == 2
    assert "good.yaml: training.lrr" in result.stderr and "absent.yaml" in result.stderr
    result = call("run", "good.yaml", "local.yaml")
    assert result.exit_code == 2
    assert "local.yaml: runtime.kind: is local; several runs share a Ray, runtime.kind=ray" in result.stderr


def test_runs_on_several_rays_are_a_mistake(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"is auto in a.yaml, h:1 in b.yaml, null in c.yaml; several runs share one"):
        load_all([write("a"), write("b", address="h:1"), write("c", address="null")])
    assert len(load_all([write("a"), write("b")])) == 2
    assert len(load_all([write("a"), write("b", address="h:1")], ["runtime.address=auto"])) == 2


def test_two_runs_of_one_name_are_told_apart() -> None:
    assert told_apart(["trial", "heart", "trial", "trial"]) == ["trial", "heart", "trial 2", "trial 3"]


def test_the_worst_exit_code_counts() -> None:
    assert worst([0, 0]) == 0 and worst([0, 1, 130, 2]) == 130 and worst([0, -9]) == 137 and worst([]) == 0


def test_lines_carry_the_runs_name_and_the_worst_code_is_the_commands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write("a"), write("b")
    script(monkeypatch, 'echo "round 1/1"; echo; echo "$@" >&2; [ "$4" = b.yaml ] && exit 3; exit 0')
    paths = [Path("a.yaml"), Path("b.yaml"), Path("b.yaml")]
    assert run_all(paths, ["seed=1"], load_all(paths, ["seed=1"]), ["--report"]) == 3
    out, err = capfd.readouterr()
    assert sorted(out.splitlines()) == ["[a] round 1/1", "[b 2] round 1/1", "[b] round 1/1"]
    assert "[a] -m hierfl run a.yaml seed=1 --report --plain --note" in re.sub(r" /\S+", "", err).splitlines()


def test_with_json_each_run_is_a_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write("a"), write("b")
    script(
        monkeypatch,
        """printf '{\\n "status":\\n "finished"}\\n'; echo "chatter $6" >&2; [ $4 = b.yaml ] && kill -9 $$""",
    )
    paths = [Path("a.yaml"), Path("b.yaml")]
    assert run_all(paths, ["seed=1"], load_all(paths), as_json=True) == 137
    out, err = capfd.readouterr()
    assert [json.loads(line) for line in sorted(out.splitlines())] == [
        {"config": "a.yaml", "status": "finished"},
        {"config": "b.yaml", "status": "finished"},
    ]
    assert sorted(err.splitlines()) == ["[a] chatter --json", "[b] chatter --json"]


def test_what_the_runs_made_of_the_devices_together_comes_last(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The last word of a run's command is the file in which it notes its folder."""
    write("a"), write("b")
    write_run(folder / "run-a.yaml", "a", 1000.0), write_run(folder / "run-b.yaml", "b", 1005.0)
    script(monkeypatch, f'for last; do :; done; printf {folder}/run-$4 > "$last"; echo "{{}}"')
    paths = [Path("a.yaml"), Path("b.yaml")]
    assert run_all(paths, [], load_all(paths), ["--report"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[-4].startswith("together busy 59% (a 32%, b 32%), idle 41%")
    assert lines[-1] == f"report   {folder}/run-a.yaml/joint.html" and Path(lines[-1].split()[1]).is_file()
    assert run_all(paths, [], load_all(paths), as_json=True) == 0
    out, err = capfd.readouterr()
    assert json.loads(out.splitlines()[-1])["joint"]["idle_fraction"] == pytest.approx(9 / 22)
    assert "together busy" in err and f" report {folder}/run-a.yaml {folder}/run-b.yaml" in err


def test_runs_that_shared_nothing_end_with_a_note(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write("a"), write("b")
    write_run(folder / "run-a.yaml", "a", 1000.0), write_run(folder / "run-b.yaml", "b", 1005.0, cluster="")
    script(monkeypatch, f'for last; do :; done; printf {folder}/run-$4 > "$last"')
    paths = [Path("a.yaml"), Path("b.yaml")]
    assert run_all(paths, [], load_all(paths)) == 0
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("note: no joint figures: these runs shared no devices: ")


def test_with_json_a_run_that_was_killed_is_a_line_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write("a")
    script(monkeypatch, "printf '{'; kill -9 $$")
    assert run_all([Path("a.yaml")], [], load_all([Path("a.yaml")]), as_json=True) == 137
    answer = json.loads(capfd.readouterr().out)
    assert (answer["config"], answer["error"]["kind"]) == ("a.yaml", "Killed")


def test_a_stop_goes_to_every_run_once_and_waits_for_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write("a"), write("b")
    script(
        monkeypatch,
        'trap "sleep 0.2; echo kept; echo >> ended; exit 130" INT; touch begun-$4; while :; do sleep 0.05; done',
    )
    paths = [Path("a.yaml"), Path("b.yaml")]
    configs = load_all(paths)

    def interrupt() -> None:
        deadline = time.monotonic() + 30
        while len(list(folder.glob("begun-*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_all(paths, [], configs)
    assert Path("ended").read_text() == "\n\n"
    assert sorted(capfd.readouterr().out.splitlines()) == ["[a] kept", "[b] kept"]


def test_a_stop_that_comes_as_a_run_starts_ends_it_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("a"), write("b")
    script(monkeypatch, 'trap "echo >> ended; exit 130" INT; touch begun-$4; while :; do sleep 0.05; done')
    start, started = subprocess.Popen, list[Any]()

    def interrupted(*words: Any, **options: Any) -> Any:
        started.append(start(*words, **options))
        while len(list(folder.glob("begun-*"))) < len(started):
            time.sleep(0.01)
        if len(started) == 2:
            signal.raise_signal(signal.SIGINT)
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    paths = [Path("a.yaml"), Path("b.yaml")]
    with pytest.raises(KeyboardInterrupt):
        run_all(paths, [], load_all(paths))
    assert [process.returncode for process in started] == [130, 130]
    assert Path("ended").read_text() == "\n\n"
