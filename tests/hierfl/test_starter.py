from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hierfl
from hierfl.cli import app
from hierfl.errors import DataError, OutputError
from hierfl.learning.task import Task
from hierfl.starter import FILES, write


def test_init_writes_the_starter_and_says_how_to_run_it(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "my federation"
    result = CliRunner().invoke(app, ["init", str(folder)])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert result.stdout.splitlines()[-1].startswith(f"now: cd '{folder}' && ")


def test_the_starter_on_tables_runs_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its statistics show what its README speaks of, and it learns; without its rules each column is refused."""
    result = CliRunner().invoke(app, ["init", str(tmp_path / "mine"), "--tables"])
    assert result.exit_code == 0, result.output
    monkeypatch.chdir(tmp_path / "mine")
    assert all(Path(line.removeprefix("wrote ")).is_file() for line in result.stdout.splitlines()[:6])
    ran = hierfl.run("federation.yaml", ["output.tensorboard=false"])
    creatinine = {
        row["node"]: (row["count"], row["missing"])
        for row in ran.statistics().to_pylist()
        if row["column"] == "creatinine"
    }
    assert creatinine["world/seville"] == (0, 90) and creatinine["world/porto"] == (120, 0)
    assert ran.summary["nodes"]["world"]["auc"] > 0.6 and ran.summary["rounds"] == 15
    lines = [json.loads(line) for line in (ran.run_dir / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    warnings = {line["node"]: line["message"] for line in lines if line.get("level") == "warning"}
    assert warnings.keys() == {"world/seville"}
    assert warnings["world/seville"].startswith("creatinine is missing in all 68 records, and others have it: if it")
    said = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8").replace("runs/...", str(ran.run_dir))
    for command in re.findall(r"^    hierfl ((?:export|predict) [^#\n]*)", said, re.MULTILINE):
        done = CliRunner().invoke(app, command.split())
        assert done.exit_code == 0, done.output
    assert (tmp_path / "mine" / "scored.csv").is_file()
    with pytest.raises(DataError, match=r"\.csv: column 'crp' has \d+ nulls in \d+ rows; fill them"):
        hierfl.run("federation.yaml", ["task.fill={creatinine: 0.9}"])
    with pytest.raises(
        DataError, match=r"seville\.csv: column 'creatinine' has gaps and no value in the training rows"
    ):
        hierfl.run("federation.yaml", ["task.fill.creatinine=median"])
    with pytest.raises(
        DataError, match=r"(?s)column 'ward' has \d+ values that are no category of it.*'oncology' is the first"
    ):
        hierfl.run("federation.yaml", ["task.categories.ward=[cardiology, internal, surgery]"])


def test_who_starts_it_from_another_folder_hears_where_its_tables_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "my tab", tables=True)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["run", "my tab/federation.yaml", "--plain"])
    said = next(line for line in result.stderr.splitlines() if "data/porto.csv" in line)
    assert result.exit_code == 1 and "(data/porto.csv counts from the folder in which the run was started)" in said
    assert said.endswith("; my tab/data/porto.csv does exist here: start the run in my tab (cd 'my tab')")
    (tmp_path / "my tab" / "data" / "porto.csv").unlink()
    result = CliRunner().invoke(app, ["run", "my tab/federation.yaml", "--plain"])
    said = next(line for line in result.stderr.splitlines() if "data/porto.csv" in line)
    assert said.endswith("in which the run was started)")
    monkeypatch.chdir(tmp_path / "my tab" / "data")
    result = CliRunner().invoke(app, ["run", "../federation.yaml", "--plain"])
    assert "../data/aalborg.csv does exist here: start the run in .. (cd ..)" in result.stderr


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    result = CliRunner().invoke(app, ["init", str(tmp_path)])
    assert result.exit_code == 2, "the command names another folder than it may"
    assert f"{tmp_path} is not empty (it holds thesis.tex)" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/below cannot be written: Not a directory"):
        write(tmp_path / "file" / "below")


def test_the_starter_is_small_and_says_what_to_do() -> None:
    task = Path(sys.modules["hierfl.starter"].__file__ or "").with_name("my_task.py")
    assert len(task.read_text().splitlines()) <= 50


def test_the_starters_task_learns() -> None:
    import torch

    from hierfl.starter.my_task import Readmission

    task = Readmission()
    assert isinstance(task, Task)
    torch.manual_seed(0)
    model, data = task.model(), task.data("bergen", patients=120)
    assert (len(data.train), len(data.test)) == (90, 30)  # type: ignore[arg-type]
    assert task.num_samples("bergen", patients=120) == (90, 30), "counted as loaded"
    assert torch.equal(data.train[:][0], task.data("bergen", patients=120).train[:][0])
    assert not torch.equal(data.train[:][0], task.data("turku", patients=120).train[:][0])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = task.loss(model, data.train[:])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    prediction = task.predict(model, data.test[:])
    assert prediction.scores.shape == prediction.labels.shape == (30,)
    assert 0 <= prediction.scores.min() <= prediction.scores.max() <= 1
