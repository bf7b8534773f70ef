"""Metrics of a task's own: what is measured where nothing is told into classes, or beside it."""

from __future__ import annotations

import io
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from small_runs import config_of, go, hub, site, tensors
from typer.testing import CliRunner
from ward_tasks import Doses, NamedDoses, patients

from hierfl.cli import app
from hierfl.errors import ConfigError, LinkError, SiteFailed
from hierfl.learning.contract import checked_prediction
from hierfl.learning.metrics import Tally
from hierfl.learning.stopping import Progress
from hierfl.learning.task import Prediction
from hierfl.lifecycle import resume
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.tallies import tally_in, tally_out
from hierfl.monitor.cross_site import read_matrix
from hierfl.monitor.pictures import curves
from hierfl.monitor.plain import Plain
from hierfl.monitor.records import Notice
from hierfl.monitor.report import write_report
from hierfl.monitor.terminal import Terminal
from hierfl.monitor.words import WHY_UNDEFINED, metric

SITES = ("north", "south", "east")
TREE = hub("world", hub("up", "north", "south"), "east")


def doses(both: bool = False) -> dict[str, Any]:
    return {"kind": "ward_tasks:Doses", "both": both}


def tally(*errors: float, loss: float = 1.0) -> Tally:
    return Tally.measured({"absolute_error": np.array(errors)}, loss_sum=loss)


def test_a_regression_is_measured_by_its_loss_and_its_own_metrics_over_the_tree(tmp_path: Path) -> None:
    ran = go(tmp_path, TREE, doses(), stopping={"metric": "loss", "patience": 5})
    model = tensors(ran.folder)
    x = {site: patients(site, 18)[0].numpy()[12:] for site in SITES}
    errors = {site: x[site] @ model["weight"][0] + model["bias"] - (x[site][:, 0] - x[site][:, 1]) for site in SITES}
    below = {f"world/up/{site}": (site,) for site in ("north", "south")} | {
        "world/up": ("north", "south"),
        "world/east": ("east",),
        "world": SITES,
    }
    for path, sites in below.items():
        found, expected = ran.summary["nodes"][path], np.concatenate([errors[site] for site in sites])
        assert found["absolute_error"] == pytest.approx(float(np.abs(expected).mean()), rel=1e-5)
        assert found["loss"] == pytest.approx(float(np.square(expected).mean()), rel=1e-5)
        assert found["num_test"] == len(expected) and "accuracy" not in found and "auc" not in found
    lines = Plain(said := io.StringIO())
    for record in ran.monitor.heard:
        lines.on(record)
    last = ran.summary["nodes"]["world"]
    assert f"round 2/2  loss {metric(last['loss'])}  absolute_error {metric(last['absolute_error'])}" in said.getvalue()
    rows = [json.loads(line) for line in (ran.folder / "metrics.jsonl").read_text().splitlines()]
    assert all("absolute_error" in row for row in rows if row["node"] == "world")
    assert ran.summary["fairness"].keys() == {"loss"}
    report = write_report(ran.folder).read_text()
    assert "<th>absolute error</th>" in report and report.count(f"<td>{metric(last['absolute_error'])}</td>") == 1
    assert "Calibration" not in report, "nothing is told into classes"
    drawn = curves(rows, ["loss", "absolute_error"])
    assert [axes.get_title("left") for axes in drawn.axes] == ["Loss", "Absolute error"]


def test_training_stops_by_a_metric_of_the_tasks_own_and_which_way_it_gets_better_is_told(tmp_path: Path) -> None:
    def rounds(mode: str) -> int:
        stop = {"metric": "absolute_error", "mode": mode, "target": 1e6}
        return int(go(tmp_path / mode, TREE, doses(), stopping=stop).summary["rounds"])

    assert rounds("min") == 1, "the error is below a million after the first round"
    assert rounds("max") == 2, "and never above"


def test_a_metric_that_the_task_does_not_measure_ends_the_run_with_those_that_it_does(tmp_path: Path) -> None:
    says = r"which this task does not measure \(did you mean 'absolute_error'\? allowed: loss, absolute_error"
    with pytest.raises(ConfigError, match=says) as told:
        go(tmp_path, TREE, doses(), stopping={"metric": "absolut_error", "mode": "min", "patience": 1})
    assert [problem.path for problem in told.value.problems] == ["stopping.metric"]
    assert "the round is committed: resume the run with another stopping.metric" in str(told.value)
    (folder,) = tmp_path.iterdir()
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["round-000001"]
    measured = [json.loads(line)["round"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert set(measured) == {1}, "what was measured is told"
    kept = json.loads((folder / "checkpoints" / "round-000001" / "checkpoint.json").read_text())["progress"]
    assert kept == asdict(Progress()), "it is no measurement without an improvement"
    later = resume(folder, ["stopping.metric=absolute_error"])
    assert (
        later["rounds"] == 2 and later["model_digest"] == go(tmp_path / "whole", TREE, doses()).summary["model_digest"]
    )


def test_a_task_that_says_which_way_its_metrics_get_better_has_them_in_fairness_and_across_sites(
    tmp_path: Path,
) -> None:
    named = {"kind": "ward_tasks:NamedDoses"}
    ran = go(tmp_path, TREE, named, stopping={"metric": "absolute_error", "target": 1e6})
    assert ran.summary["rounds"] == 1, "below a million: less is better, as the task says"
    found = ran.summary["fairness"]
    assert found.keys() == {"loss", "absolute_error"}, "which way a dose gets better, nobody has said"
    errors = {
        path: ran.summary["nodes"][path]["absolute_error"]
        for path in ("world/up/north", "world/up/south", "world/east")
    }
    assert found["absolute_error"]["worst_value"] == max(errors.values()) == errors[found["absolute_error"]["worst"]]
    assert found["absolute_error"]["best_value"] == min(errors.values())
    assert "<td>absolute_error</td>" in write_report(ran.folder).read_text()
    shown = CliRunner().invoke(app, ["evaluate", str(ran.folder), "--cross-site", "--metric", "dose"])
    assert shown.exit_code == 0 and shown.output.startswith("dose of each row's model"), shown.output
    matrix = read_matrix(ran.folder)
    assert matrix is not None and matrix.shown()[0] == "absolute_error"
    assert matrix.lower_is_better("absolute_error") and matrix.lower_is_better("loss")
    assert not matrix.lower_is_better("accuracy")
    with pytest.raises(
        ConfigError, match=r"--metric aucc: not measured, or nowhere defined.*allowed: loss, absolute_error, dose\)"
    ):
        matrix.legend("aucc")


def test_a_metric_that_is_named_and_never_given_is_told_once(tmp_path: Path) -> None:
    ran = go(tmp_path, hub("world", hub("us", "a", "b"), "c", rounds=2), {"kind": "ward_tasks:MisnamedDoses"})
    said = "the task's metrics() names absolut_error, which its predict() does not give"
    nearest = " (did you mean 'absolute_error'? allowed: absolute_error, dose)"
    told = [(notice.level, notice.node, notice.message) for notice in ran.monitor.of(Notice)]
    assert told == [("warning", "world", said + nearest)]


def test_a_metric_of_the_tasks_own_that_is_no_number_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Prediction(own={"absolute_error": torch.full((6,), torch.nan)})
    monkeypatch.setattr(NamedDoses, "predict", lambda self, model, batch: bad)
    ran = go(tmp_path, hub("world", "a"), {"kind": "ward_tasks:NamedDoses"})
    [told] = [notice.message for notice in ran.monitor.of(Notice)]
    assert told.startswith("its predictions, or metrics of the task's own, are not finite: 6 of 6 samples; ")


def broken(sites: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a regression give NaN at these of the sites a, b and c."""
    given = Doses.predict
    first = {float(patients(site, 18)[0][12, 0]) for site in sites}

    def predict(self: Doses, model: Any, batch: Any) -> Prediction:
        found = given(self, model, batch)
        bad = float(batch[0][0, 0]) in first
        return Prediction(own={name: value * (math.nan if bad else 1.0) for name, value in found.own.items()})

    monkeypatch.setattr(Doses, "predict", predict)


def told_by(ran: Any) -> tuple[str, str, str]:
    """What the terminal, the log and the report say of a run that is over."""
    log, screen = io.StringIO(), io.StringIO()
    console = Console(file=screen, width=140, force_terminal=False)
    for monitor in (Plain(log), Terminal(config_of(ran.folder, TREE, doses()), console)):
        for record in ran.monitor.heard:
            monitor.on(record)
        monitor.close()
    return screen.getvalue(), log.getvalue(), write_report(ran.folder).read_text()


@pytest.mark.parametrize("sites", ["abc", "a"])
def test_a_regression_without_a_number_is_told_as_a_regression(
    sites: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(sites, monkeypatch)
    tree, output = (
        hub("world", hub("us", "a", "b"), site("c", test=6 * (sites != "a"))),
        {"dir": str(tmp_path), "tensorboard": True},
    )
    ran = go(tmp_path, tree, doses(), output=output, stopping={"metric": "absolute_error", "mode": "min", "target": 0})
    for path, found in ran.summary["nodes"].items():
        assert found.keys() - {"num_samples", "num_left_out", "num_not_finite"} == {
            *("num_test", "loss", "absolute_error", "dose")
        }, path
    assert ran.summary["nodes"]["world/us/a"]["absolute_error"] is None
    assert ran.summary["nodes"]["world/us/a"]["num_left_out"] == 6
    screen, log, report = told_by(ran)
    assert "<th>AUC</th>" not in report and "<th>accuracy</th>" not in report and "<th>absolute error</th>" in report
    assert WHY_UNDEFINED not in report
    assert "test samples of sites where a prediction, a metric of the task's own or the loss is not finite" in report
    assert "accuracy" not in screen and "AUC" not in screen and "absolute error" in screen
    assert "its predictions, or metrics of the task's own, are not finite: 6 of 6 samples" in screen
    undefined = "round 2/2  loss undefined  absolute_error undefined  dose undefined"
    assert (undefined in log) == (sites == "abc") and "auc" not in log
    tags = (next((ran.folder / "tensorboard").iterdir())).read_bytes()
    points = tags.replace(b"^world/", b"")  # charts that stand ready for a classification
    assert b"world/accuracy" not in points and (b"world/absolute_error" in points) == (sites == "a")


def test_what_a_regression_measures_is_known_where_nothing_counts_and_crosses_a_link() -> None:
    for none in (tally(math.nan), tally(0.5, loss=math.inf), tally()):
        assert none.scalars().keys() - {"num_test", "num_left_out", "num_not_finite"} == {"loss", "absolute_error"}
        assert tally_in(wire.Tally.FromString(tally_out(none).SerializeToString())) == none
    assert Tally.total([tally(math.nan), tally(math.inf)]).scalars()["absolute_error"] is None
    message = tally_out(tally(math.nan))
    message.own["absolute_error"] = b"\x01"
    with pytest.raises(LinkError, match="counts of samples where none was counted"):
        tally_in(message)


def test_classes_have_metrics_of_the_tasks_own_beside_theirs(tmp_path: Path) -> None:
    both, alone = (go(tmp_path / str(both), TREE, doses(both)).summary["nodes"]["world"] for both in (True, False))
    assert both["absolute_error"] == alone["absolute_error"] and both["dose"] == alone["dose"]
    assert 0.0 <= both["accuracy"] <= 1.0 and both["auc"] is not None


def test_sums_add_in_any_order_and_cross_a_link() -> None:
    parts = [tally(0.1, 0.2), tally(0.3), Tally(), tally(math.nan, 1.0)]
    total = Tally.total(parts)
    assert total == Tally.total(reversed(parts)) == (parts[0] + parts[1]) + (parts[3] + parts[2])
    assert total.scalars()["absolute_error"] == pytest.approx(0.2)
    assert (total.num_samples, total.num_left_out, total.num_not_finite) == (5, 2, 1)
    assert tally_in(wire.Tally.FromString(tally_out(total).SerializeToString())) == total
    with pytest.raises(ValueError, match="sites differ in their own metrics: absolute_error and dose"):
        Tally.total([tally(0.1), Tally.measured({"dose": np.ones(1)}, loss_sum=0.0)])


@pytest.mark.parametrize("name", ["accuracy", "role", "held_out_x", "a" * 65, "a\n", "<b>"])
def test_a_link_takes_no_name_that_is_hierfls_own_or_none(name: str) -> None:
    message = tally_out(tally(0.5))
    message.own[name] = b"\x01"
    with pytest.raises(LinkError, match="a metric of a task's own is called"):
        tally_in(message)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Prediction(), r"gave nothing as scores; needed: a tensor"),
        (
            Prediction(own={"dice": torch.ones(2)}),
            r"names a metric 'dice'; needed: another name, mean_dice say: hierfl",
        ),
        (Prediction(own={"held_out_x": torch.ones(2)}), r"'held_out_x'; needed: another name, mean_held_out_x say"),
        (Prediction(own={"Dice": torch.ones(2)}), r"names a metric 'Dice'; needed: up to 64 small letters"),
        (Prediction(own={"mae": torch.ones(2, 1)}), r"gave a tensor of shape \[2, 1\] as mae; needed: .* shape \(n,\)"),
        (Prediction(own={"mae": 0.5}), r"gave a float as mae"),  # type: ignore[dict-item]
        (
            Prediction(own={"mae": torch.ones(2), "mse": torch.ones(3)}),
            r"unlike numbers of samples: \{'mae': 2, 'mse': 3",
        ),
        (Prediction(torch.ones(2), torch.ones(2), {"mae": torch.ones(3)}), r"unlike numbers of samples"),
        (Prediction(torch.ones(2), None, {"mae": torch.ones(2)}), r"gave nothing as labels"),
        (Prediction(own={f"m{i}": torch.ones(2) for i in range(33)}), r"gave 33 metrics of its own; at most 32"),
    ],
)
def test_what_is_no_metric_is_told(given: Prediction, says: str) -> None:
    with pytest.raises(SiteFailed, match=says):
        checked_prediction(given)
