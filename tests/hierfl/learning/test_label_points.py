"""Several labels of each sample: a threshold for each, how sure its figures are, and what is predicted by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from link_inside import Inside, several_runs  # noqa: F401
from safetensors.torch import load_file
from small_runs import config_of, events, go, hub, site
from torch import Tensor, nn
from typer.testing import CliRunner
from ward_tasks import FINDINGS, Findings

from hierfl.cli import app
from hierfl.learning.intervals import delong, wilson
from hierfl.learning.metrics import Curve
from hierfl.learning.own_metrics import TWO_CLASSES
from hierfl.learning.task import Prediction
from hierfl.lifecycle import export
from hierfl.monitor.plain import closing_lines
from hierfl.monitor.report import write_report
from hierfl.predict import read_exported

TREE = hub("world", hub("up", "north", "south"), site("east", without="mass"))
BELOW = {"world": ("north", "south", "east"), "world/up": ("north", "south"), "world/east": ("east",)}
POINT = {"operating_point": {"specificity": 0.8}, "auc": "exact"}
COLUMNS = ("a", "b", "c", "d")
Z = 1.959963984540054


class Used(Findings):
    """Findings whose model `hierfl predict` can use."""

    def records(self, file: str, site: str = "", data: str = "") -> tuple[pa.Table, np.ndarray]:
        table = pa.csv.read_csv(file)
        return table, np.stack([table[name].to_numpy() for name in COLUMNS], axis=1)

    def apply(self, model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        found = model(x).sigmoid()
        return {f"probability_of_{name}": found[:, place] for place, name in enumerate(FINDINGS)}


class Many(Findings):
    """More labels than are told one by one."""

    def model(self) -> nn.Module:
        return nn.Linear(4, 33)

    def predict(self, model: nn.Module, batch: Any) -> Prediction:
        labels = batch[1][:, :1].expand(-1, 33)
        return Prediction(model(batch[0]).sigmoid(), labels, {}, names=[f"label_{n}" for n in range(33)])

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return model(batch[0]).square().mean()

    def metrics(self) -> dict[str, str]:
        return TWO_CLASSES


def scored(folder: Path, sites: tuple[str, ...], place: int) -> tuple[np.ndarray, np.ndarray]:
    """The final model's scores of one label on these sites' test samples, where it is known, and whether it is true."""
    model = nn.Linear(4, 3)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    scores, truth = [], []
    for name in sites:
        x, y = Findings().data(name, "mass" if name == "east" else "").test[:]
        known = y[:, place] >= 0
        scores.append(model(x).sigmoid()[known, place].detach().double().numpy())
        truth.append(y[known, place].numpy() == 1)
    return np.concatenate(scores), np.concatenate(truth)


def test_each_label_has_a_threshold_of_its_own_and_every_node_what_it_gives(tmp_path: Path) -> None:
    ran = go(tmp_path, TREE, {"kind": "ward_tasks:Findings"}, evaluation={**POINT, "intervals": 0.95})
    nodes = ran.summary["nodes"]
    for place, label in enumerate(FINDINGS):
        scores, truth = scored(ran.folder, BELOW["world"], place)
        at = nodes["world"][f"operating_threshold_{label}"]
        assert (scores[~truth] < at).mean() >= 0.8 > (scores[~truth] < scores[scores < at].max()).mean()
        for path, sites in BELOW.items():
            scores, truth = scored(ran.folder, sites, place)
            found, sure = nodes[path], nodes[path]["intervals"]
            names = [f"operating_{share}_{label}" for share in ("sensitivity", "specificity")]
            if not len(truth):
                assert [found[name] for name in names] == [None, None]
                assert not sure.keys() & {*names, f"auc_{label}"}
                continue
            right = (scores[truth] >= at), (scores[~truth] < at)
            assert [found[name] for name in names] == pytest.approx([one.mean() for one in right])
            for name, one in zip(names, right, strict=True):
                assert sure[name] == pytest.approx(wilson(int(one.sum()), len(one), Z))
            assert sure[f"auc_{label}"] == pytest.approx(delong(Curve.of(scores, truth, None), Z))
    shares = {name for node in nodes.values() for name in node["intervals"]}
    assert not shares & {"accuracy", "auc", "sensitivity"}, "the labels of one patient are not independent"
    assert "operating_threshold" not in nodes["world"]
    told = ran.summary["fairness"]["operating_sensitivity_mass"]
    shares = {path: nodes[f"world/up/{path}"]["operating_sensitivity_mass"] for path in ("north", "south")}
    assert told["worst_value"] == min(shares.values()) and told["best_value"] == max(shares.values())
    assert told["num_undefined"] == 1, "in the east nobody looked for it"


def test_the_last_lines_and_the_report_tell_of_each(tmp_path: Path) -> None:
    ran = go(tmp_path, TREE, {"kind": "ward_tasks:Findings"}, evaluation={**POINT, "intervals": 0.95})
    root, lines = ran.summary["nodes"]["world"], closing_lines("finished", ran.summary, "")
    (low, high), at = root["intervals"]["auc_mass"], root["operating_threshold_mass"]
    assert any(f"auc_mass {root['auc_mass']:.3f} ({low:.3f}-{high:.3f})" in line for line in lines)
    (said,) = (line for line in lines if line.startswith("point    mass"))
    assert f"mass from {at:.3f} on: sensitivity {root['operating_sensitivity_mass']:.3f} (" in said
    page = write_report(ran.folder).read_text(encoding="utf-8")
    (row,) = (part for part in page.split("<tr>") if part.startswith(f"<td>mass</td><td>{at:.3f}</td>"))
    north, south = (
        ran.summary["nodes"][f"world/up/{name}"]["operating_specificity_mass"] for name in ("north", "south")
    )
    lowest = "north" if north <= south else "south"
    assert f"<td>{min(north, south):.3f} (world/up/{lowest})</td>" in row, "in the east nobody looked for it"
    assert "<h2>Labels</h2>" in page
    plain = go(tmp_path / "plain", TREE, {"kind": "ward_tasks:Findings"})
    assert plain.digest == ran.digest and "<h2>Labels</h2>" not in write_report(plain.folder).read_text(
        encoding="utf-8"
    )


@pytest.mark.usefixtures("several_runs")
def test_over_links_they_are_as_without(tmp_path: Path) -> None:
    linked = {**TREE, "members": [{**one, "link": {"address": "h.example.org:8443"}} for one in TREE["members"]]}
    asked = {"evaluation": {**POINT, "intervals": 0.95}}
    config = config_of(tmp_path / "links", linked, {"kind": "ward_tasks:Findings"}, **asked)
    inside = Inside(config, tmp_path / "members").go()
    alone = go(tmp_path / "alone", TREE, {"kind": "ward_tasks:Findings"}, **asked).summary
    for path in BELOW:
        assert inside["nodes"][path] == alone["nodes"][path]
    assert "operating_threshold_mass" in inside["nodes"]["world"]


def test_of_more_labels_than_are_told_there_is_none(tmp_path: Path) -> None:
    ran = go(tmp_path, hub("world", "north"), {"kind": f"{__name__}:Many"}, evaluation={**POINT, "intervals": 0.95})
    said = [event.get("message") or "" for event in events(ran.folder)]
    assert (
        len([one for one in said if "there is none, for predict gives more than two classes, or over 32" in one]) == 1
    )
    root = ran.summary["nodes"]["world"]
    assert root["intervals"] == {} and root["operating_sensitivity"] is None


@pytest.mark.parametrize("point", [{"specificity": 0.8}, {"threshold": 0.25}])
def test_what_is_predicted_of_each_label_is_what_was_measured(tmp_path: Path, point: dict[str, float]) -> None:
    ran = go(tmp_path, TREE, {"kind": f"{__name__}:Used"}, evaluation={"operating_point": point})
    export(ran.folder, model := tmp_path / "model.safetensors")
    x, y = Findings().data("north").test[:]
    file, out = tmp_path / "new.csv", tmp_path / "scored.csv"
    pa.csv.write_csv(pa.table({name: x[:, place].numpy() for place, name in enumerate(COLUMNS)}), file)
    ended = CliRunner().invoke(app, ["predict", str(model), str(file), str(out)])
    assert ended.exit_code == 0, ended.output
    table, root = pa.csv.read_csv(out), ran.summary["nodes"]["world"]
    assert table.column_names == [
        *COLUMNS,
        *(f"probability_of_{name}" for name in FINDINGS),
        *(f"predicted_{name}" for name in FINDINGS),
    ]
    north = ran.summary["nodes"]["world/up/north"]
    for place, label in enumerate(FINDINGS):
        predicted, at = table[f"predicted_{label}"].to_numpy(), root[f"operating_threshold_{label}"]
        assert (predicted == (table[f"probability_of_{label}"].to_numpy() >= at)).all()
        truth = y[:, place].numpy()
        assert predicted[truth == 1].mean() == pytest.approx(north[f"operating_sensitivity_{label}"])
        assert (1 - predicted[truth == 0]).mean() == pytest.approx(north[f"operating_specificity_{label}"])
    exported, first = read_exported(model), FINDINGS[0]
    if "threshold" in point:
        assert exported.threshold == root[f"operating_threshold_{first}"] == 0.25 and not exported.thresholds
        assert "class 1 from 0.250 on" in ended.output
    else:
        assert exported.thresholds == {name: root[f"operating_threshold_{name}"] for name in FINDINGS}
        assert f"{first} from {exported.thresholds[first]:.3f}, " in " ".join(ended.output.split())
