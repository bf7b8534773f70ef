"""Whole runs that tell what sites have, before they train or in place of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_runs import config_of, go, hub, site
from typer.testing import CliRunner

import hierfl
from hierfl.cli import app
from hierfl.errors import DataError, OutputError
from hierfl.learning.standardise import feature_matrix
from hierfl.monitor.records import Notice
from hierfl.monitor.report import write_report
from hierfl.monitor.statistics import read_statistics
from hierfl.tasks.heart_disease import HeartDisease
from hierfl.tasks.parquet import Parquet

ODD = {("long_beach", "trestbps"), ("long_beach", "oldpeak")}
"""Columns of which a few values are no multiples of 2, or of a half, as all others are: they are told rounded."""

HEART = hub("world", hub("us", "cleveland", "long_beach"), hub("switzerland", "zurich_basel"))


def told(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "statistics.json").read_text(encoding="utf-8"))["nodes"]
    return found


def test_hospitals_tell_what_they_have_and_nothing_is_trained(tmp_path: Path) -> None:
    asked = {"only": True, "min_count": 7, "ranges": {"age": [0, 100]}, "bins": 50}
    ran = go(tmp_path, HEART, "heart_disease", statistics=asked)
    found = told(ran.folder)
    assert list(found) == [
        *("world", "world/us", "world/us/cleveland", "world/us/long_beach"),
        *("world/switzerland", "world/switzerland/zurich_basel"),
    ]
    assert found["world"]["num_rows"] == 303 + 200 + 123
    ages, withheld = {}, []
    for path in ("world/us/cleveland", "world/us/long_beach", "world/switzerland/zurich_basel"):
        table = HeartDisease().table(path.rpartition("/")[2])
        for name in table.column_names:
            values, said = table[name].drop_null().to_numpy(), found[path]["columns"][name]
            assert (said["count"], said["missing"]) == (len(values), table.num_rows - len(values))
            if "mean" in said:
                near = 0.02 if (path.rpartition("/")[2], name) in ODD else 1e-6
                assert said["mean"] == pytest.approx(values.mean(), abs=near)
                assert said["std"] == pytest.approx(values.std(), abs=near)
            else:  # 6 women of 200 in Long Beach, say
                assert min(np.unique(values, return_counts=True)[1]) < 7
                withheld.append((path.rpartition("/")[2], name))
        ages[path] = table["age"].to_numpy()
    assert withheld == [
        *(("cleveland", "restecg"), ("long_beach", "sex")),
        *(("zurich_basel", name) for name in ("cp", "fbs", "num")),
    ]
    every = np.concatenate(list(ages.values()))
    said = found["world"]["columns"]["age"]
    assert said["mean"] == pytest.approx(every.mean()) and said["std"] == pytest.approx(every.std())
    assert np.abs(np.array(said["quartiles"]) - np.quantile(every, [0.25, 0.5, 0.75])).max() < 3
    assert found["world"]["columns"]["sex"]["values"].keys() == {"0", "1"}
    assert ran.summary["statistics"] == {"file": "statistics.json", "num_rows": 626, "num_columns": 11}
    assert (ran.summary["rounds"], ran.summary["rounds_planned"], ran.digest) == (0, 0, "None")
    assert not list(ran.folder.glob("**/*.safetensors"))


def test_the_table_in_the_documentation_is_what_is_told(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text(encoding="utf-8").replace("**", "")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:2] == "| "]
    sites = hub("world", "cleveland", "long_beach", "budapest", "zurich_basel")
    read = read_statistics(go(tmp_path, sites, "heart_disease", statistics={"only": True}).folder)
    assert read is not None
    cells = {name: list(row.values()) for name, row in read.cells().items()}
    assert lines[0] == ["", *(path.rpartition("/")[2] for path in read.nodes)]
    for name, *row in lines[2:6]:
        assert row == cells[name]


@pytest.mark.parametrize("standardise", ["federated", "none"])
@pytest.mark.parametrize("only", [True, False])
def test_who_has_another_unit_is_warned_of_once_whatever_tells_it(tmp_path: Path, only: bool, standardise: str) -> None:
    """By the statistics where no moments are told, for nothing is trained or scaled by them."""
    for name, factor in (("a", 1.0), ("b", 88.4), ("c", 1.0)):
        random = np.random.default_rng(ord(name))
        table = {"creatinine": random.normal(1.0, 0.25, 100) * factor, "y": np.arange(100) % 2}
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
    sites = hub("world", *(site(name, path=str(tmp_path / f"{name}.parquet")) for name in "abc"))
    task = {"kind": "parquet", "features": ["creatinine"], "label": "y", "standardise": standardise}
    ran = go(tmp_path / "runs", sites, task, statistics={"only": only})
    [(path, said)] = [(one.node, one.message) for one in ran.monitor.of(Notice) if one.level == "warning"]
    assert path == "world/b" and re.match(
        r"creatinine is [89]\d\.\d+ ± 2.*, typically 1\.\d+ ± 0\.2.* in the same unit", said
    )


def test_a_run_that_trains_tells_them_too_and_has_the_same_bits(tmp_path: Path) -> None:
    plain, asked = go(tmp_path / "a", HEART, "heart_disease"), go(tmp_path / "b", HEART, "heart_disease", statistics={})
    assert not (plain.folder / "statistics.json").exists() and "statistics" not in plain.summary
    assert asked.digest == plain.digest and asked.summary["rounds"] == 2
    alone = go(tmp_path / "c", HEART, "heart_disease", statistics={"only": True})
    assert told(asked.folder) == told(alone.folder)
    split = hub("world", {"name": "cleveland", "split": 3}, "long_beach", "zurich_basel")
    cut = told(go(tmp_path / "d", split, "heart_disease", statistics={"only": True, "min_count": 1}).folder)
    whole = told(go(tmp_path / "e", HEART, "heart_disease", statistics={"only": True, "min_count": 1}).folder)
    assert cut["world"] == whole["world"]
    assert [cut[path]["num_rows"] for path in cut if path.startswith("world/cleveland/")] == [101] * 3


@pytest.mark.parametrize("only", [True, False])
def test_moments_that_differ_from_those_of_training_by_few_records_are_kept_back(tmp_path: Path, only: bool) -> None:
    sites = hub("world", site("a", test=2), site("b", test=5), site("c", test=0))
    for standardise, with_mean in (("federated", ["b", "c"]), ("none", ["a", "b", "c"])):
        task = {"kind": "ward_tasks:Wards", "standardise": standardise}
        found = told(go(tmp_path / standardise, sites, task, statistics={"only": only}).folder)
        assert [name for name in "abc" if "mean" in found[f"world/{name}"]["columns"]["feature_0"]] == with_mean
        kept = {"kind": "number", "count": 0, "missing": 0, "num_withheld": 1}
        assert (found["world/a"]["columns"]["feature_0"] == kept) is (standardise == "federated")


@pytest.mark.parametrize("of_test", [2, 30])
def test_nobody_can_subtract_what_is_trained_on_where_gaps_hide_how_few_are_left(tmp_path: Path, of_test: int) -> None:
    """Of 60 training rows 40 have a gap, which 0 fills; of 32 test rows all but few."""
    random, rows = np.random.default_rng(0), ["train"] * 60 + ["test"] * 32
    there = np.array([place % 3 == 0 if row == "train" else place >= 92 - of_test for place, row in enumerate(rows)])
    values = random.normal(60, 9, 92).astype(np.float32).astype(float)
    codes = random.integers(0, 2, 92)
    table = {"x": pa.array(values, mask=~there), "sex": codes, "y": random.integers(0, 2, 92), "set": rows}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    task = {"kind": "parquet", "features": ["x", "sex"], "label": "y", "fill": {"x": 0}, "split": "set"}
    sites, asked = hub("world", site("a", path=str(tmp_path / "a.parquet"))), {"ranges": {"sex": [0, 2]}, "bins": 2}

    def columns(standardise: str) -> Any:
        ran = go(tmp_path / standardise, sites, {**task, "standardise": standardise}, statistics=asked)
        return told(ran.folder)["world/a"]["columns"]

    settings = {name: value for name, value in task.items() if name != "kind"}
    trained = feature_matrix(Parquet(**settings).data("a", str(tmp_path / "a.parquet")))  # type: ignore[arg-type]
    openly = columns("none")["x"]
    attacked = openly["mean"] * openly["count"] - trained[:, 0].sum()
    assert attacked == pytest.approx(values[60:][there[60:]].sum()), "a sum over the test values alone"
    found = columns("federated")
    assert found["x"] == {"kind": "number", "count": 0, "missing": int((~there).sum()), "num_withheld": 1}
    assert found["sex"]["histogram"]["counts"] == [0, *np.bincount(codes).tolist(), 0]


def test_records_in_a_pool_count_once(tmp_path: Path) -> None:
    plain = go(tmp_path / "plain", HEART, "heart_disease", statistics={"only": True})
    pooled = go(tmp_path / "pooled", HEART, "heart_disease", statistics={"only": True}, baseline="pooled")
    assert told(pooled.folder) == told(plain.folder)
    assert not [record for record in pooled.monitor.heard if getattr(record, "level", "") == "error"]


def test_what_is_about_training_says_that_nothing_is_trained(tmp_path: Path) -> None:
    config = config_of(tmp_path / "runs", hub("world", "a", "b"), "ward_tasks:Wards", statistics={"only": True})
    ran = hierfl.run(config.resolved)
    for of_a_model in (ran.model, ran.evaluate):
        with pytest.raises(OutputError, match=r"nothing has been trained, .*statistics\.only=false"):
            of_a_model()
    assert ran.metrics().num_rows == 0
    file = tmp_path / "only.yaml"
    file.write_text(json.dumps(config.resolved), encoding="utf-8")
    about = {"a plan": ["plan"], "a drill": ["drill"], "--seeds": ["run", "--seeds", "1,2"]}
    for what, words in {**about, "--leave-out": ["run", "--leave-out", "each"]}.items():
        ended = CliRunner().invoke(app, [*words, str(file)])
        assert (ended.exit_code, what in ended.output) == (2, True), ended.output
        assert "nothing is trained under statistics.only: true; add statistics.only=false" in ended.output


def test_gaps_for_which_training_is_refused_are_told(tmp_path: Path) -> None:
    values = [None, 3.5, *range(18)]
    pq.write_table(pa.table({"x": pa.array(values, pa.float64()), "y": [0, 1] * 10}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": ["12 mg"] * 20, "y": [0, 1] * 10}), tmp_path / "b.parquet")
    sites = hub("world", *(site(name, path=str(tmp_path / f"{name}.parquet")) for name in "ab"))
    task = {"kind": "parquet", "features": ["x"], "label": "y"}
    ran = go(tmp_path / "runs", sites, task, statistics={"only": True})
    found = told(ran.folder)
    assert found["world/a"]["columns"]["x"]["missing"] == 1 and found["world"]["columns"]["x"]["kind"] == "mixed"
    assert found["world/b"]["columns"]["x"]["values"] == {"12 mg": 20}
    said = [record.message for record in ran.monitor.heard if getattr(record, "level", "") == "error"]
    assert (
        len(said) == 2
        and "column 'x' has 1 null in 20 rows" in said[0]
        and "or its values (categories: {x: [...]})" in said[1]
    )
    with pytest.raises(DataError, match="column 'x' has 1 null "):
        go(tmp_path / "trains", sites, task, statistics={})


def test_a_column_may_be_at_some_sites_alone_and_has_to_be_at_one(tmp_path: Path) -> None:
    sites, task = hub("world", site("a", words="drug"), "b"), "ward_tasks:Tabled"
    found = told(go(tmp_path, sites, task, statistics={"columns": ["drug"]}).folder)
    assert found["world"]["columns"]["drug"]["count"] == 12 and found["world/b"] == {"num_rows": 12, "columns": {}}
    with pytest.raises(DataError, match=r"no site has a column 'dug' \(did you mean 'drug'\?"):
        go(tmp_path, sites, task, statistics={"columns": ["dug", "drug"]})
    with pytest.raises(DataError, match=r"table\(\) gave a dict; needed: a pyarrow.Table"):
        go(tmp_path, hub("world", site("a", words="none"), "b"), task, statistics={})
    with pytest.raises(DataError, match="no site has told anything of its records"):
        go(tmp_path, hub("world", site("a", words="none")), task, statistics={"only": True})


def test_who_joins_is_told_of_when_it_is_there(tmp_path: Path) -> None:
    sites = hub("world", "a", {**site("b"), "joins_at": 2}, rounds=3)
    ran = go(tmp_path, sites, "ward_tasks:Tabled", statistics={})
    assert list(told(ran.folder)) == ["world", "world/a", "world/b"]
    said = [record.message for record in ran.monitor.heard if "sites have told of" in getattr(record, "message", "")]
    assert [message[:41] for message in said] == [
        "sites have told of 12 records in 1 column",
        "sites have told of 24 records in 1 column",
    ]


def test_who_leaves_may_take_a_column_with_it(tmp_path: Path) -> None:
    sites = hub("world", {**site("a", words="drug"), "leaves_at": 2}, "b", rounds=3)
    ran = go(tmp_path, sites, "ward_tasks:Tabled", statistics={"columns": ["age", "drug"]})
    assert ran.summary["rounds"] == 3 and list(told(ran.folder)["world"]["columns"]) == ["age"]


def test_who_joins_a_run_that_scales_tells_of_records_as_they_are(tmp_path: Path) -> None:
    """A task without a table shows its data, which are loaded scaled once the run has begun."""
    task = {"kind": "breast_cancer", "num_sites": 2, "standardise": "federated"}
    there = told(go(tmp_path / "a", hub("world", "site-0", "site-1"), task, statistics={"only": True}).folder)
    sites = hub("world", "site-0", {**site("site-1"), "joins_at": 2}, rounds=2)
    joined = told(go(tmp_path / "b", sites, task, statistics={}).folder)
    assert joined["world/site-1"] == there["world/site-1"] and joined["world"] == there["world"]
    assert joined["world/site-1"]["columns"]["feature_3"]["mean"] > 100  # the mean area


def test_a_run_that_has_told_can_go_on_to_train(tmp_path: Path) -> None:
    config = config_of(tmp_path / "runs", hub("world", "a", "b"), "ward_tasks:Wards", statistics={"only": True})
    first = hierfl.run(config.resolved)
    assert first.digest is None and first.statistics().column("node").to_pylist()[0] == "world"
    again = hierfl.resume(first.run_dir, ["statistics.only=false"])
    assert again.summary["rounds"] == 2
    assert again.digest == go(tmp_path / "other", hub("world", "a", "b")).digest


def test_the_report_and_the_terminal_show_them(tmp_path: Path) -> None:
    file = tmp_path / "heart.yaml"
    config = config_of(tmp_path / "runs", HEART, "heart_disease", statistics={"ranges": {"age": [20, 80]}})
    file.write_text(json.dumps(config.resolved), encoding="utf-8")
    ended = CliRunner().invoke(app, ["run", str(file), "statistics.only=true", "output.tensorboard=true", "--report"])
    assert ended.exit_code == 0, ended.output
    lines = {line.split("  ")[0]: line.split() for line in ended.stdout.splitlines()}
    assert lines["records"] == ["records", "626", "503", "303", "200", "123", "123"]
    assert not [line for line in ended.stdout.splitlines() if line.startswith("curves")]
    [train] = [line for line in ended.stdout.splitlines() if line.startswith("train ")]
    assert train.endswith("statistics.only=false") and "resume" in train
    assert lines["sex"][1:3] == ["1:", "82%"] and "weights" not in lines and "report" in lines
    [folder] = (tmp_path / "runs").iterdir()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "What sites have" in page and "<td>1: 82%</td>" in page
    assert "no measurement" not in page and "left no" not in page and "Curves" not in page
    assert (folder / "histograms.png").stat().st_size > 10_000
    (folder / "statistics.json").write_text('{"nodes": []}')
    with pytest.raises(OutputError, match=r"statistics\.json is damaged"):
        write_report(folder)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"min_count": 0}, "statistics.min_count: min_count is 0; from 1 to 10,000"),
        ({"bins": 1}, "statistics.bins: bins is 1; from 2 to 10,000"),
        ({"ranges": {"age": [80, 20]}}, "statistics.ranges: ranges has [80.0, 20.0] for age; needed are two numbers"),
        ({"ranges": {"age": [-1e308, 1e308]}}, "for age, which 20 bins do not divide"),
        ({"ranges": {"age": [1.0, 1.0000000000000002]}}, "for age, which 20 bins do not divide"),
        ({"ranges": {"age": [1]}}, "ranges has [1.0] for age"),
        ({"columns": []}, "columns must name at least one column"),
        ({"columns": ["sex"], "ranges": {"age": [0, 9]}}, "ranges names age, which is not among the columns"),
        ({"minimum": 3}, "statistics.minimum: unknown key"),
    ],
)
def test_mistakes(tmp_path: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(hierfl.errors.ConfigError) as caught:
        config_of(tmp_path, HEART, "heart_disease", statistics=asked)
    assert said in str(caught.value)
