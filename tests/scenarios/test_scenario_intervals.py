"""Intervals over patients in whole runs: at every node, over links as here, and what is told and refused of it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from link_inside import Inside, several_runs  # noqa: F401
from rich.console import Console
from small_runs import config_of, go, hub, site
from ward_tasks import Wards

from hierfl.errors import ConfigError, HierflError
from hierfl.learning.metrics import Tally
from hierfl.link import desk
from hierfl.link.approval import plan_of
from hierfl.link.tallies import tally_out
from hierfl.monitor.plain import closing_lines
from hierfl.monitor.records import Notice
from hierfl.monitor.report import write_report
from hierfl.monitor.table import tabulate

TASK = {"kind": "parquet", "features": ["x", "z"], "label": "sick", "patient": "pid", "split": "use"}
ASKED = {"evaluation": {"intervals": 0.95, "operating_point": {"specificity": 0.8}}}
PATIENTS = {"a": 20, "b": 31, "c": 12}
"""In the test."""


def sites(folder: Path, most: int = 10) -> list[dict[str, Any]]:
    """Three hospitals whose patients have one to `most` rows each, all sick or well, and much alike."""
    made = []
    for number, (name, tested) in enumerate(PATIENTS.items()):
        random = np.random.RandomState(number)
        patients = 2 * tested
        owners = np.repeat(np.arange(patients), random.randint(1, most + 1, patients))
        x, z = random.randn(2, patients)[:, owners] + 0.3 * random.randn(2, len(owners))
        sick = (x + random.randn(patients)[owners] > 0).astype(int)
        rows = {"x": x, "z": z, "sick": sick, "pid": owners, "use": np.where(owners % 2, "test", "train")}
        path = folder / f"{name}{most}.parquet"
        pa.parquet.write_table(pa.table(rows), path)
        made.append(site(name, path=str(path)))
    return made


def wide(interval: list[float]) -> float:
    return interval[1] - interval[0]


def nodes_of(folder: Path, root: Mapping[str, Any], task: Any = TASK, **top: Any) -> Any:
    return go(folder, root, task, **{**ASKED, **top}).summary["nodes"]


def test_every_node_has_its_own_over_any_tree_and_over_links(tmp_path: Path, several_runs: None) -> None:  # noqa: F811
    a, b, c = sites(tmp_path)
    ran = go(tmp_path / "tree", hub("world", hub("west", a, b), c), TASK, **ASKED)
    nodes = ran.summary["nodes"]
    counts = {"world/west/a": 20, "world/west/b": 31, "world/c": 12, "world/west": 51, "world": 63}
    assert {path: node["num_test_patients"] for path, node in nodes.items()} == counts
    by_row = nodes_of(tmp_path / "rows", hub("world", hub("west", a, b), c), {**TASK, "patient": None})
    for path, node in nodes.items():
        assert node["num_test"] == by_row[path]["num_test"] and "num_test_patients" not in by_row[path]
        for name, (low, high) in node["intervals"].items():
            assert 0 <= low <= node[name] <= high <= 1, (path, name)
            assert wide([low, high]) > 1.2 * wide(by_row[path]["intervals"][name]), (path, name)
    flat = nodes_of(tmp_path / "flat", hub("world", a, b, c))
    assert flat["world"]["intervals"] == nodes["world"]["intervals"]
    linked = [{**one, "link": {"address": "h.example.org:8443"}} for one in (hub("west", a, b), c)]
    inside = Inside(config_of(tmp_path / "linked", hub("world", *linked), TASK, **ASKED), tmp_path / "inside")
    found = inside.go()["nodes"]
    for path in ("world", "world/west", "world/c"):
        assert found[path]["intervals"] == nodes[path]["intervals"]
        assert found[path]["num_test_patients"] == counts[path]
    last = [json.loads(line) for line in (ran.folder / "metrics.jsonl").read_text().splitlines()][-1]
    assert "num_test_patients" in last


def test_with_one_row_each_they_are_those_of_rows(tmp_path: Path) -> None:
    members = sites(tmp_path, most=1)
    by_patient = nodes_of(tmp_path / "a", hub("world", *members))
    by_row = nodes_of(tmp_path / "b", hub("world", *members), {**TASK, "patient": None})
    for path, node in by_patient.items():
        assert node.pop("num_test_patients") == node["num_test"] and node == by_row[path]


def test_tables_the_report_and_the_last_lines_say_of_how_many(tmp_path: Path) -> None:
    ran = go(tmp_path / "a", hub("world", *sites(tmp_path)), TASK, evaluation={"intervals": 0.9})
    [line] = [line for line in closing_lines("finished", ran.summary, "") if line.startswith("all ")]
    assert line.endswith("; intervals over 63 patients")
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(tabulate(ran.summary["nodes"], 300))
    assert "num_test_patients" in console.export_text()
    page = write_report(ran.folder).read_text(encoding="utf-8")
    assert "<th>test patients</th>" in page and "Intervals, in brackets, are over test patients" in page
    plain = go(tmp_path / "b", hub("world", *sites(tmp_path)), TASK)
    assert "num_test_patients" not in plain.summary["nodes"]["world"] and plain.digest == ran.digest


def test_a_member_is_told_what_leaves_it_for_that(tmp_path: Path) -> None:
    members = [{**one, "link": {"address": "h.example.org:8443"}} for one in sites(tmp_path)]

    def said(task: Any, **top: Any) -> list[str]:
        plan = plan_of(config_of(tmp_path, hub("world", *members), task, **top), "world/a")
        return [one for one in plan.leaves if "how many patients have test samples" in one]

    assert len(said(TASK, **ASKED)) == 1
    assert not said(TASK) and not said({**TASK, "patient": None}, **ASKED)
    assert not said(TASK, evaluation={"intervals": 0.95, "every": 0})


def test_nothing_of_patients_crosses_where_it_is_not_asked_for(
    tmp_path: Path,
    several_runs: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    members = [{**one, "link": {"address": "h.example.org:8443"}} for one in sites(tmp_path)]
    asked = {"": {}, "plain": {"intervals": 0.95}, "tuned": {"intervals": 0.95, "fine_tune": {"steps": 2}}}
    for name, evaluation in asked.items():
        config = config_of(tmp_path / name, hub("world", *members, rounds=1), TASK, evaluation=evaluation)
        told: list[Tally] = []
        monkeypatch.setattr(desk, "tally_out", lambda tally, told=told: (told.append(tally), tally_out(tally))[1])
        Inside(config, tmp_path / f"inside-{name}").go()
        assert len(told) == (6 if name == "tuned" else 3)
        assert sum(one.clusters is not None for one in told) == (3 if name else 0)


class Silent(Wards):
    """Wards that know whose training samples are, and give as many for the test."""

    def patients(self, data: Any) -> list[int]:
        return list(range(12))


class Visits(Wards):
    """Wards of patients with three visits each, by words."""

    def patients(self, data: Any) -> list[str]:
        return [f"patient {visit // 3}" for visit in range(len(data))]


class Flattened(Visits):
    """Visits of whose batches predictions come in another number than there are samples."""

    def predict(self, model: Any, batch: Any) -> Any:
        from hierfl.learning.task import Prediction

        found = super().predict(model, batch)
        assert found.scores is not None and found.labels is not None
        return Prediction(found.scores.repeat(2), found.labels.repeat(2))


def test_a_task_of_one_s_own_says_whose_test_samples_are(tmp_path: Path) -> None:
    nodes = nodes_of(tmp_path / "a", hub("world", "n", "m"), f"{__name__}:Visits")
    assert nodes["world"]["num_test"] == 12 and nodes["world"]["num_test_patients"] == 4
    with pytest.raises(HierflError, match=r"could|patients\(\) gave list of int64, shape \(12,\); needed: .* 6 test"):
        go(tmp_path / "b", hub("world", "n", "m"), f"{__name__}:Silent", **ASKED)
    go(tmp_path / "c", hub("world", "n", "m"), f"{__name__}:Silent")
    ran = go(tmp_path / "d", hub("world", "n", "m"), f"{__name__}:Flattened", **ASKED)
    assert "num_test_patients" not in ran.summary["nodes"]["world"] and ran.summary["nodes"]["world"]["intervals"]
    [said] = {one.message for one in ran.monitor.of(Notice) if "intervals" in one.message}
    assert "each prediction counts as another patient's" in said


def test_parts_that_would_share_patients_are_refused(tmp_path: Path) -> None:
    first, *others = sites(tmp_path)
    root = hub("world", {**first, "split": 2}, *others)
    with pytest.raises(
        ConfigError, match=r"federation\.members\.a\.split: cuts patients in parts, and evaluation\.intervals"
    ):
        config_of(tmp_path, root, TASK, **ASKED)
    config_of(tmp_path, root, TASK)
    config_of(tmp_path, root, {**TASK, "patient": None}, **ASKED)
