"""What runs made of shared devices, from their folders: one clock for all, figures as by hand, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shared_runs import write_run
from typer.testing import CliRunner

from hierfl.cli import app
from hierfl.errors import OutputError
from hierfl.monitor.joint import joint_lines, read_joint


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Two runs of one name; the second began 5 s later, so it wants the devices from 6 s to 12 s, the first from 1."""
    for number in (0, 1):
        write_run(tmp_path / f"run-{number}", "heart", 1000.0 + 5.0 * number)
    return [tmp_path / "run-0", tmp_path / "run-1"]


def test_figures_of_two_runs_by_hand(pair: list[Path]) -> None:
    record = read_joint(pair)
    assert list(record.run_dirs) == ["heart", "heart 2"] and record.joint.wanted["x"] == [(1001.0, 1012.0)]
    found = record.record()
    assert found["wanted_s"] == pytest.approx(11.0)
    assert found["devices"]["x"]["busy_fraction"] == pytest.approx(9 / 11), "both train 4 s, measure 1 s; 1 s is shared"
    assert found["devices"]["y"]["runs"] == {"heart": pytest.approx(2 / 11), "heart 2": pytest.approx(2 / 11)}
    assert found["idle_fraction"] == pytest.approx(9 / 22)
    assert found["efficiency"] == pytest.approx(9.5 / 11), "5 s until the second comes, its 4 s, its measuring on two"
    assert [run["share"] for run in found["runs"].values()] == [0.5, 0.5]


def test_one_run_has_the_figures_that_it_gives_itself(tmp_path: Path) -> None:
    own = write_run(tmp_path / "run", "heart", 1000.0).total()
    assert read_joint([tmp_path / "run"]).joint.idle == own


def test_lines_name_runs_and_devices(pair: list[Path]) -> None:
    first, *devices = joint_lines(read_joint(pair))
    assert first.startswith("together busy 59% (heart 32%, heart 2 32%), idle 41% (floor of any schedule ")
    assert devices[0].split() == ["y", "busy", "36%", "(heart", "18%,", "heart", "2", "18%)"] and len(devices) == 2


def test_the_report_is_one_page_with_both_runs(pair: list[Path]) -> None:
    result = CliRunner().invoke(app, ["report", *map(str, pair)])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == str(pair[0] / "joint.html") and "together busy 59%" in result.stdout
    page = (pair[0] / "joint.html").read_text()
    assert "<h2>Which run had which device when</h2>" in page and "above 100% where jobs share a device" in page
    assert "<th>heart 2</th>" in page and "data:image/png;base64," in page and str(pair[1]) in page
    assert (pair[0] / "joint.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("clusters", "said"),
    [
        (("a:1", "b:1"), r"run-0 on a:1, .*run-1 on b:1"),
        (("", ""), "run-0 on devices of its own"),
        (("a:1", ""), "own"),
    ],
)
def test_runs_that_shared_nothing_have_no_joint_figures(tmp_path: Path, clusters: tuple[str, str], said: str) -> None:
    paths = [tmp_path / f"run-{number}" for number in (0, 1)]
    for path, cluster in zip(paths, clusters, strict=True):
        write_run(path, "heart", 1000.0, cluster)
    with pytest.raises(OutputError, match=f"shared no devices: .*{said}"):
        read_joint(paths)


def test_what_cannot_be_added_up_is_said(pair: list[Path], tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="one folder is named twice"):
        read_joint([pair[0], pair[0]])
    events = pair[1] / "events.jsonl"
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    events.write_text(json.dumps(lines[0]) + "\n")
    with pytest.raises(OutputError, match="run-1 finished no round: there is nothing to add up"):
        read_joint(pair)
    del lines[0]["epoch_s"]
    events.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(OutputError, match=r"run-1/events\.jsonl was written by an earlier version of hierfl"):
        read_joint(pair)
    with pytest.raises(OutputError, match=r"empty has no events\.jsonl"):
        read_joint([pair[0], tmp_path / "empty"])


def test_a_resumed_run_goes_on_by_its_new_clock(tmp_path: Path) -> None:
    """Its second process began 100 s after the first; between them nobody wanted anything."""
    write_run(tmp_path / "run", "heart", 1000.0)
    write_run(tmp_path / "more", "heart", 1100.0)
    with (tmp_path / "run" / "events.jsonl").open("a") as events:
        events.write((tmp_path / "more" / "events.jsonl").read_text())
    joint = read_joint([tmp_path / "run"]).joint
    assert joint.wanted["x"] == [(1001.0, 1007.0), (1101.0, 1107.0)] and joint.busy_s["x"] == {"heart": 10.0}
