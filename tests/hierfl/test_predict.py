"""An exported model is enough to predict with, and predicts what the federation has measured."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from safetensors.numpy import load_file, save_file
from small_runs import Copied, Listener, Ran, config_of, go, hub, site
from typer.testing import CliRunner

from hierfl.cli import app
from hierfl.errors import OutputError
from hierfl.learning.standardise import apply
from hierfl.lifecycle import export, resume, run
from hierfl.monitor.files import read_metrics
from hierfl.monitor.records import Notice, RoundCommitted
from hierfl.monitor.words import metric
from hierfl.predict import read_exported
from hierfl.starter import write
from hierfl.tasks.parquet import Parquet

SITES = ("aalborg", "bergen", "porto")
TASK: dict[str, Any] = {
    "kind": "parquet",
    "features": ["age", "sex", "ward", "crp", "previous_stays"],
    "label": "readmitted",
    "categories": {"sex": ["f", "m"], "ward": ["cardiology", "*"]},
    "fill": {"crp": "median"},
    "flag_gaps": True,
}


@pytest.fixture(scope="module")
def wards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wards") / "starter"
    write(folder, tables=True)
    return folder / "data"


def trained(wards: Path, folder: Path, task: dict[str, Any], **top: Any) -> tuple[Ran, Path]:
    sites = hub("world", *(site(name, path=str(wards / f"{name}.csv")) for name in SITES))
    ran = go(folder / "runs", sites, {**TASK, **task}, **top)
    export(ran.folder, folder / "model.safetensors")
    return ran, folder / "model.safetensors"


def predict(*words: object) -> tuple[int, str]:
    ended = CliRunner().invoke(app, ["predict", *map(str, words)])
    return ended.exit_code, ended.stdout + ended.stderr


@pytest.mark.parametrize("standardise", ["federated", "site", "none"])
def test_predictions_are_those_that_were_measured(standardise: str, wards: Path, tmp_path: Path) -> None:
    point = {"operating_point": {"specificity": 0.8}}
    more = {"evaluation": {**point, "auc": "exact"}, "training": {"lr": 1e-4}}
    ran, model = trained(wards, tmp_path, {"standardise": standardise}, **more)
    right = {"0": [0, 0], "1": [0, 0]}
    for name in SITES:
        file, out = wards / f"{name}.csv", tmp_path / f"{name}.parquet"
        code, said = predict(model, file, out, "--site", name, "--data", file)
        assert code == 0, said
        found = pa.parquet.read_table(out)
        given = pa.csv.read_csv(file)
        typed = pa.schema([(one.name, found.schema.field(one.name).type) for one in given.schema])
        texts = pa.csv.read_csv(file, convert_options=pa.csv.ConvertOptions(column_types=typed))
        assert found.select(given.column_names).equals(texts)
        is_test = Parquet(**{k: v for k, v in {**TASK, "standardise": standardise}.items() if k != "kind"})._is_test(
            name, type("Table", (), {"num_rows": given.num_rows})(), None
        )
        labels = given["readmitted"].to_numpy()[is_test]
        probability, predicted = (found[one].to_numpy()[is_test] for one in ("probability", "predicted"))
        assert ((probability > 0.5) == labels).mean() == pytest.approx(
            ran.summary["nodes"][f"world/{name}"]["accuracy"]
        )
        for label in (0, 1):
            right[str(label)][0] += int((predicted == labels)[labels == label].sum())
            right[str(label)][1] += int((labels == label).sum())
    root = ran.summary["nodes"]["world"]
    assert right["0"][0] / right["0"][1] == pytest.approx(root["operating_specificity"])
    assert right["1"][0] / right["1"][1] == pytest.approx(root["operating_sensitivity"])
    assert f"class 1 from {metric(root['operating_threshold'])} on" in said


@pytest.mark.parametrize("standardise", ["federated", "site"])
def test_features_keep_the_digits_that_they_keep_in_training(standardise: str, tmp_path: Path) -> None:
    admitted = 1_700_000_000 + 7 * np.arange(40)
    table = pa.table({"admitted": admitted, "readmitted": (np.arange(40) % 5 > 2).astype(int)})
    for name in SITES:
        pa.csv.write_csv(table, tmp_path / f"{name}.csv")
    fields = {"features": ["admitted"], "categories": {}, "fill": {}, "test_fraction": 0.0, "standardise": standardise}
    ran, model = trained(tmp_path, tmp_path, fields)
    file, out = tmp_path / "porto.csv", tmp_path / "out.parquet"
    assert predict(model, file, out, "--site", "porto", "--data", file)[0] == 0
    task = Parquet(**{k: v for k, v in {**TASK, **fields}.items() if k != "kind"})
    data = task.data("porto", str(file))
    if standardise == "federated":
        data = apply(data, *(np.array(ran.summary["standardised"][name]) for name in ("mean", "std")))
    assert len(data.train.tensors[0].float().unique()) == 40, "a float32 holds every 128th second"
    module = task.model()
    module.load_state_dict({name: torch.from_numpy(values) for name, values in load_file(model).items()})
    wanted = task.predict(module, data.train.tensors).scores.detach().numpy()  # type: ignore[attr-defined]
    assert pa.parquet.read_table(out)["probability"].to_numpy() == pytest.approx(wanted, abs=1e-6)


def test_nothing_that_is_read_is_written_over(wards: Path, tmp_path: Path) -> None:
    _, model = trained(wards, tmp_path, {"fill": {"crp": 10}})
    folder = tmp_path / "records"
    folder.mkdir()
    held = (wards / "porto.csv").read_bytes()
    (folder / "porto.csv").write_bytes(held)
    (tmp_path / "same.csv").symlink_to(folder / "porto.csv")
    for file, out, data in (
        (folder / "porto.csv", folder / "porto.csv", ""),
        (folder / "porto.csv", tmp_path / "same.csv", ""),
        (folder, folder / "out.csv", ""),
        (wards / "porto.csv", folder / "porto.csv", folder / "porto.csv"),
    ):
        code, said = predict(model, file, out, *(("--site", "porto", "--data", data) if data else ()))
        assert code == 1 and "which is read and stays as it is; write to another file" in said
    assert [path.name for path in folder.iterdir()] == ["porto.csv"] and (folder / "porto.csv").read_bytes() == held


def test_no_device_or_pipe_is_replaced_by_a_file(wards: Path, tmp_path: Path) -> None:
    ran, model = trained(wards, tmp_path, {"fill": {"crp": 10}})
    for name in ("pipe.csv", "pipe.safetensors"):
        os.mkfifo(tmp_path / name)
    code, said = predict(model, wards / "porto.csv", tmp_path / "pipe.csv")
    assert code == 1 and "pipe.csv cannot be written: there is something else than a file" in said
    with pytest.raises(OutputError, match=r"pipe\.safetensors: there is something else than a file"):
        export(ran.folder, tmp_path / "pipe.safetensors")
    assert all((tmp_path / name).is_fifo() for name in ("pipe.csv", "pipe.safetensors"))


def test_a_model_that_has_diverged_predicts_no_class(wards: Path, tmp_path: Path) -> None:
    _, model = trained(wards, tmp_path, {"fill": {"crp": 10}})
    weights = {name: values * np.float32("nan") for name, values in load_file(model).items()}
    save_file(weights, tmp_path / "nan.safetensors", metadata(model))
    code, said = predict(tmp_path / "nan.safetensors", wards / "porto.csv", tmp_path / "out.csv")
    assert code == 1 and "predicts no finite number for 120 of 120 records" in said
    assert not (tmp_path / "out.csv").exists()


def test_a_stop_leaves_nothing_half_written(wards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_: object, file: str) -> None:
        Path(file).write_text("half", encoding="utf-8")
        raise KeyboardInterrupt

    _, model = trained(wards, tmp_path, {"fill": {"crp": 10}})
    monkeypatch.setattr(pa.parquet, "write_table", stopped)
    predict(model, wards / "porto.csv", tmp_path / "out.parquet")
    assert not list(tmp_path.glob("*out*")) and not list(tmp_path.glob(".*out*"))


def test_records_need_no_label_and_a_gap_needs_the_site_s_own_records(wards: Path, tmp_path: Path) -> None:
    _, model = trained(wards, tmp_path, {})
    whole = pa.csv.read_csv(wards / "porto.csv").drop(["readmitted"])
    known = whole.filter(pa.compute.is_valid(whole["crp"]))
    pa.csv.write_csv(known, tmp_path / "known.csv")
    pa.csv.write_csv(whole, tmp_path / "whole.csv")
    assert predict(model, tmp_path / "known.csv", tmp_path / "out.csv")[0] == 0
    assert pa.csv.read_csv(tmp_path / "out.csv").column_names[-2:] == ["probability", "predicted"]
    code, said = predict(model, tmp_path / "whole.csv", tmp_path / "out.csv")
    assert code == 1 and "column 'crp' has gaps, which the median of the site's own training rows fills" in said
    assert said.endswith("say where these are: --site NAME --data PATH\n")
    code, said = predict(model, tmp_path / "whole.csv", tmp_path / "out.csv", "--data", wards / "porto.csv")
    assert code == 2 and "--site NAME beside --data" in said
    code, said = predict(
        model, wards / "porto.csv", tmp_path / "out.csv", "--data", wards / "porto.csv", "--site", "world/porto"
    )
    assert (
        code == 2
        and "--site world/porto: no site of the federation has data of that key (did you mean 'porto'?" in said
    )
    pa.csv.write_csv(known.slice(0, 0), tmp_path / "none.csv")
    assert predict(model, tmp_path / "none.csv", tmp_path / "none.parquet")[0] == 0
    ended = CliRunner().invoke(
        app, ["predict", *map(str, (model, tmp_path / "known.csv", tmp_path / "o.csv")), "--json"]
    )
    assert json.loads(ended.stdout)["num_records"] == known.num_rows


def test_numbers_and_several_classes(wards: Path, tmp_path: Path) -> None:
    ran, model = trained(
        wards,
        tmp_path / "n",
        {"features": ["age"], "categories": {}, "fill": {}, "target": "number", "label": "previous_stays"},
    )
    assert predict(model, wards / "porto.csv", tmp_path / "n.csv")[0] == 0
    found = pa.csv.read_csv(tmp_path / "n.csv")
    scale, weights = ran.summary["standardised"], load_file(ran.folder / "model.safetensors")
    x = (found["age"].to_numpy() - scale["mean"][0]) / scale["std"][0]
    assert found["predicted"].to_numpy() == pytest.approx(x * weights["weight"][0, 0] + weights["bias"][0], rel=1e-5)
    classes = {"features": TASK["features"][:-1], "label": "previous_stays", "num_classes": 4, "fill": {"crp": 10}}
    _, model = trained(wards, tmp_path / "c", classes)
    assert predict(model, wards / "porto.csv", tmp_path / "c.arrow")[0] == 0
    table = pa.feather.read_table(tmp_path / "c.arrow")
    each = np.stack([table[f"probability_{n}"].to_numpy() for n in range(4)])
    assert each.sum(axis=0) == pytest.approx(1) and table["predicted"].to_pylist() == each.argmax(axis=0).tolist()


def test_what_cannot_be_used_is_told(wards: Path, tmp_path: Path) -> None:
    ran, model = trained(wards, tmp_path, {"fill": {"crp": 10}})
    porto, out = wards / "porto.csv", tmp_path / "out.csv"
    (tmp_path / "loop").symlink_to("loop")
    for words, said in (
        ((tmp_path / "loop", porto, out), "loop cannot be read as safetensors: Too many levels of symbolic links"),
        ((ran.folder / "model.safetensors", porto, out), "does not say how its model is used; write one that does"),
        ((porto, porto, out), "porto.csv cannot be read as safetensors"),
        ((porto, porto, out), "; give one that `hierfl export` wrote"),
        ((model, porto, tmp_path / f"{'x' * 300}.csv"), "x.csv cannot be written: File name too long"),
    ):
        assert predict(*words)[0] == 1 and said in predict(*words)[1], said
    for words, said in (
        ((tmp_path / "no.safetensors", porto, out), "no.safetensors; give one that `hierfl export` wrote"),
        ((model, tmp_path / "no.csv", out), "no.csv: does not exist"),
        ((model, porto, out, "--data", "nodata"), "nodata: does not exist"),
        ((model, tmp_path / ("x" * 300), out), "x: cannot be read: File name too long"),
        ((model, porto, tmp_path / "out.xlsx"), "ends in '.xlsx' (allowed: .parquet, .arrow, .ipc, .feather, .csv)"),
        ((model, porto, tmp_path / "no" / "out.csv"), "out.csv cannot be written: No such file or directory"),
        ((model, porto, porto / "out.csv"), "out.csv cannot be written: Not a directory"),
    ):
        assert predict(*words)[0] == 2 and said in predict(*words)[1], said
    for place, code, said in (
        (tmp_path / "no", 2, "no/x.st: No such file or directory"),
        (porto, 2, "porto.csv/x.st: Not a directory"),
        (tmp_path / ("x" * 300), 1, "x/x.st: File name too long"),
    ):
        ended = CliRunner().invoke(app, ["export", str(ran.folder), str(place / "x.st")])
        assert ended.exit_code == code and "the model cannot be written to" in ended.stderr and said in ended.stderr
    pa.csv.write_csv(pa.csv.read_csv(porto).append_column("probability", [[0.5] * 120]), tmp_path / "twice.csv")
    assert "has a column 'probability', as the predictions have" in predict(model, tmp_path / "twice.csv", out)[1]
    nested = pa.csv.read_csv(porto).append_column("visits", [[[1, 2]] * 120])
    pa.parquet.write_table(nested, tmp_path / "nested.parquet")
    code, told = predict(model, tmp_path / "nested.parquet", out)
    assert code == 1 and "out.csv cannot be written: CSV has no words for column 'visits', of type list" in told
    assert predict(model, tmp_path / "nested.parquet", tmp_path / "nested.arrow")[0] == 0
    assert not out.exists() and not list(tmp_path.glob(".*partial"))
    save_file({"weight": np.zeros((1, 3), np.float32)}, tmp_path / "other.safetensors", metadata(model))
    assert "does not hold the model of this task" in predict(tmp_path / "other.safetensors", porto, out)[1]
    whole = json.loads(metadata(model)["hierfl"])
    for other in (
        {"task": {}},
        {**whole, "scale": "x"},
        {**whole, "scale": [[1], [1, 2]]},
        {**whole, "threshold": "x"},
    ):
        save_file(load_file(model), tmp_path / "old.safetensors", {"hierfl": json.dumps(other)})
        assert "is not as hierfl" in predict(tmp_path / "old.safetensors", porto, out)[1]
    wards_run = go(tmp_path / "wards", hub("world", "a", "b"))
    export(wards_run.folder, tmp_path / "wards.safetensors")
    assert "give it records() and apply()" in predict(tmp_path / "wards.safetensors", porto, out)[1]


def test_the_threshold_is_of_the_very_model_that_is_exported(wards: Path, tmp_path: Path) -> None:
    sites = hub("world", *(site(name, path=str(wards / f"{name}.csv")) for name in SITES))
    point = {"every": 2, "operating_point": {"specificity": 0.8}}
    config = config_of(tmp_path / "runs", {**sites, "rounds": 5}, TASK, evaluation=point)
    first = Copied(tmp_path / "runs", lambda record: isinstance(record, RoundCommitted) and record.round_number == 2)
    summary = run(config, [first])
    measured = {row["round"]: row for row in read_metrics(Path(summary["run_dir"])) if row["node"] == "world"}
    assert measured.keys() == {2, 4, 5}
    export(first.copy, tmp_path / "under_way.safetensors")
    assert read_exported(tmp_path / "under_way.safetensors").threshold == measured[2]["operating_threshold"]
    again = Copied(tmp_path / "runs", lambda record: isinstance(record, RoundCommitted) and record.round_number == 7)
    again.copy = tmp_path / "again"
    resume(Path(summary["run_dir"]), ["federation.rounds=8"], [again])
    assert (again.copy / "summary.json").exists()  # of the rounds before
    heard = Listener()
    export(again.copy, tmp_path / "later.safetensors", [heard])
    assert read_exported(tmp_path / "later.safetensors").threshold is None
    assert "has no threshold of this model after round 7: it was not measured" in heard.of(Notice)[-1].message


def test_the_threshold_is_found_from_any_folder(wards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, _ = trained(wards, tmp_path, {}, evaluation={"operating_point": {"specificity": 0.8}})
    monkeypatch.chdir(ran.folder.parent)
    export(Path(ran.folder.name), tmp_path / "from_there.safetensors")
    chosen = ran.summary["nodes"]["world"]["operating_threshold"]
    assert read_exported(tmp_path / "from_there.safetensors").threshold == chosen


def test_a_threshold_is_of_the_models_that_sites_were_measured_with(wards: Path, tmp_path: Path) -> None:
    point = {"operating_point": {"specificity": 0.8}}
    sites = [site(name, path=str(wards / f"{name}.csv")) for name in SITES]
    plain, file, own = hub("world", *sites), tmp_path / "m.safetensors", "world/porto"
    ditto = hub("world", *sites, strategy={"kind": "ditto"})
    for name, tree, evaluation, of_federation, of_site in (
        ("tuned", plain, {**point, "fine_tune": {"steps": 5}}, True, False),
        ("ditto", ditto, point, False, True),
        ("given", ditto, {"operating_point": {"threshold": 0.25}, "fine_tune": {"steps": 5}}, True, True),
    ):
        ran = go(tmp_path / name, tree, TASK, evaluation=evaluation)
        chosen = ran.summary["nodes"]["world"]["operating_threshold"]
        for whose, has in (("", of_federation), (own, of_site)):
            export(ran.folder, file, site=whose)
            assert read_exported(file).threshold == (chosen if has else None)
    porto = wards / "porto.csv"
    said = predict(file, porto, tmp_path / "out.csv", "--site", "porto", "--data", porto)[1]
    assert "by the model that world/porto uses itself in trial after 2 rounds, class 1 from 0.250 on" in said


def metadata(file: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(file, "np") as opened:
        found: dict[str, str] = opened.metadata()
    return found


def test_an_exported_file_is_still_the_weights(wards: Path, tmp_path: Path) -> None:
    ran, model = trained(wards, tmp_path, {})
    weights = load_file(model)
    assert weights.keys() == load_file(ran.folder / "model.safetensors").keys()
    for name, values in load_file(ran.folder / "model.safetensors").items():
        assert np.array_equal(values, weights[name])
    module = Parquet(**{k: v for k, v in TASK.items() if k != "kind"}).model()
    module.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()})


def test_records_are_read_as_they_are_told_to_be_written(wards: Path, tmp_path: Path) -> None:
    _, model = trained(wards, tmp_path, {})
    plain = wards / "porto.csv"
    table = pa.csv.read_csv(plain)
    words = [
        [str(value).replace(".", ",") if value is not None else "" for value in table[n].to_pylist()]
        for n in table.column_names
    ]
    german = tmp_path / "porto.csv"
    german.write_text("\n".join(";".join(row) for row in [table.column_names, *zip(*words, strict=True)]), "latin-1")
    how = ("delimiter=;", "decimal=,", "encoding=latin-1")
    assert predict(model, plain, tmp_path / "plain.csv", "--site", "porto", "--data", plain)[0] == 0
    code, said = predict(model, german, tmp_path / "german.csv", *how, "--site", "porto", "--data", german)
    assert code == 0, said
    found, expected = (
        pa.csv.read_csv(tmp_path / name)["probability"].to_pylist() for name in ("german.csv", "plain.csv")
    )
    assert found == expected
    for wrong, says in (
        ((), "so tell what separates values: delimiter=';'"),
        (("delimeter=;",), "delimeter: how records are written has no such key (did you mean 'delimiter'? allowed:"),
        (("delimiter",), "'delimiter' is no KEY=VALUE"),
    ):
        code, said = predict(model, german, tmp_path / "x.csv", *wrong)
        assert code and says in " ".join(said.split()), said


def test_what_is_only_passed_on_comes_out_as_it_went_in(wards: Path, tmp_path: Path) -> None:
    _, model = trained(wards, tmp_path, {})
    head, *rows = (wards / "porto.csv").read_text().splitlines()
    odd = ["00123", "1e5", "250.10", "NA", "", "null", "TRUE", "07:00"]
    file = tmp_path / "new.csv"
    file.write_text("\n".join([f"pid,{head}", *(f"{odd[number % 8]},{row}" for number, row in enumerate(rows))]))
    assert predict(model, file, tmp_path / "out.csv", "--site", "porto", "--data", wards / "porto.csv")[0] == 0
    texts = pa.csv.ConvertOptions(column_types={"pid": pa.string()})
    found = pa.csv.read_csv(tmp_path / "out.csv", convert_options=texts)["pid"].to_pylist()
    assert found[:8] == odd and len(found) == len(rows)
