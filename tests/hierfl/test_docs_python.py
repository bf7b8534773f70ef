"""The examples of docs/python.md, as they stand there, one after the other in one session."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import hierfl
from hierfl.starter import write

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_examples_run_in_the_starter_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [file] = [path for path in write(tmp_path / "my_federation") if path.suffix == ".yaml"]
    file.write_text(f"{file.read_text()}  tensorboard: false\n".replace("output: { dir: runs }", "output:"))  # is dear
    monkeypatch.chdir(tmp_path / "my_federation")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "my_federation"), *sys.path])
    monkeypatch.delitem(sys.modules, "my_task", raising=False)
    session = ModuleType("__main__").__dict__
    try:
        for block in BLOCKS:
            exec(block, session)
    finally:
        sys.modules.pop("my_task", None)
    said = capsys.readouterr().out
    assert "trainig: unknown key (did you mean 'training'?" in said
    assert "auc_stddev" in said
    assert "go on with: hierfl.resume(" in said
    assert session["result"].summary["rounds"] == 3
    assert session["all_runs"]["lr"].unique().to_pylist() == [0.003, 0.03]
    assert session["scores"].shape == (1, 1)
    assert Path("auc.png").stat().st_size > 0


def test_a_tracker_is_fed_after_each_round(tmp_path: Path) -> None:
    [block] = [one for one in BLOCKS if "def track" in one]
    members = [{"name": name} for name in ("aalborg", "bergen")]
    config = {
        "task": {"kind": "ward_tasks:Wards"},
        "federation": {"name": "world", "rounds": 2, "members": members},
        "runtime": {"kind": "local", "num_workers": 1},
        "output": {"dir": str(tmp_path), "tensorboard": False},
    }
    session = {"hierfl": hierfl, "config": config}
    exec(block, session)
    logged = session["logged"]
    assert [step for name, _, step in logged if name == "world/loss"] == [1, 2]
    assert {"world/aalborg/loss", "world/bergen/auc"} <= {name for name, *_ in logged}


def test_every_name_of_the_api_is_described() -> None:
    calls = [name for name in hierfl.__all__ if name.islower() and not name.startswith("_")]
    assert all(f"`hierfl.{name}(" in PAGE for name in calls)
    own = [name for name in vars(hierfl.Result) if not name.startswith("_")]
    assert [name for name in own if not re.search(rf"^\| .*`{name}[`(]", PAGE, flags=re.MULTILINE)] == []
