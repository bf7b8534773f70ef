"""Several labels of each sample: the area under each one's curve, and all else over those that are known."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from link_inside import Inside, several_runs  # noqa: F401
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from small_runs import config_of, events, go, hub, site
from torch import nn
from torch.utils.data import TensorDataset
from ward_tasks import FINDINGS, Findings

from hierfl.config.schema import Evaluation
from hierfl.errors import LinkError, SiteFailed
from hierfl.learning import measuring
from hierfl.learning.alike import Form
from hierfl.learning.contract import checked_prediction
from hierfl.learning.labels import tally_of_labels
from hierfl.learning.measuring import measure
from hierfl.learning.metrics import Tally
from hierfl.learning.own_metrics import MAX_OWN
from hierfl.learning.task import Prediction, SiteData
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.tallies import tally_in, tally_out
from hierfl.monitor.report import write_report

NAMES = ("effusion", "mass", "nodule")


def made(n: int = 60, seed: int = 0, num: int = 3) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and labels, a fifth of which are not known."""
    chance = np.random.default_rng(seed)
    scores, labels = chance.random((n, num)), chance.integers(0, 2, (n, num)).astype(np.float64)
    labels[chance.random(labels.shape) < 0.1] = -1
    labels[chance.random(labels.shape) < 0.1] = math.nan
    return scores, labels


def counted(scores: NDArray[Any], labels: NDArray[Any], **more: Any) -> Tally:
    return tally_of_labels(scores, labels, NAMES, loss_sum=more.pop("loss_sum", 2.5), **more)


def test_auc_is_that_of_each_label_and_their_mean() -> None:
    scores, labels = made()
    known = (labels == 0) | (labels == 1)
    expected = [roc_auc_score(labels[here, k], scores[here, k]) for k, here in enumerate(known.T)]
    found = counted(scores, labels, auc="exact").scalars()
    assert [found[f"auc_{name}"] for name in NAMES] == pytest.approx(expected)
    assert found["auc"] == pytest.approx(np.mean(expected))
    assert [*found][1:10] == ["accuracy", "auc", "loss", "log_loss", "brier", "ece", *(f"auc_{n}" for n in NAMES)]


@pytest.mark.parametrize("auc", ["histogram", "exact", "none"])
def test_all_else_is_over_the_labels_that_are_known(auc: str) -> None:
    scores, labels = made()
    known = (labels == 0) | (labels == 1)
    found = counted(scores, labels, auc=auc)
    flat = Tally.of(scores[known], labels[known], loss_sum=2.5, auc=auc).scalars()
    alone = {name for name in found.scalars() if name.startswith(("auc", "ece", "reliability"))}
    assert {k: v for k, v in found.scalars().items() if k not in alone} == {
        k: v for k, v in flat.items() if k not in alone
    }
    assert found.num_samples == known.sum() < labels.size
    if auc == "none":
        assert found.scalars()["auc_mass"] is None and found.why_undefined("auc_mass") == "not measured"


@pytest.mark.parametrize("auc", ["histogram", "exact"])
def test_counts_of_labels_add(auc: str) -> None:
    scores, labels = made(90)
    whole, cuts = counted(scores, labels, auc=auc, loss_sum=8.0), [0, 1, 30, 31, 90]
    losses = [1.0, 2.0, 4.0, 1.0]
    parts = [
        counted(scores[a:b], labels[a:b], auc=auc, loss_sum=loss)
        for a, b, loss in zip(cuts, cuts[1:], losses, strict=False)
    ]
    found, expected = Tally.total(parts).scalars(), whole.scalars()
    assert found.keys() == expected.keys()
    figures = {name for name in found if name not in ("reliability", "confusion")}
    assert {k: found[k] for k in figures} == pytest.approx({k: expected[k] for k in figures}, rel=1e-9)
    assert [found[f"auc_{name}"] for name in NAMES] == [expected[f"auc_{name}"] for name in NAMES]
    assert Tally.total(parts) == Tally.total([Tally(), *parts[::-1]]) == sum(parts, Tally())


def test_a_label_that_nobody_knows_at_a_site_is_undefined_there_alone() -> None:
    scores, labels = made()
    there, here = labels.copy(), labels.copy()
    there[:, 1], here[:, 2] = -1, 1
    first, second = counted(scores, there), counted(scores, here)
    assert first.scalars()["auc_mass"] is None and first.why_undefined("auc_mass") == "one class"
    assert second.scalars()["auc_nodule"] is None
    assert first.scalars()["auc"] == np.mean([first.scalars()[f"auc_{name}"] for name in ("effusion", "nodule")])
    both = (first + second).scalars()
    assert both["auc_mass"] == second.scalars()["auc_mass"] and both["auc_nodule"] is not None
    assert counted(scores, np.full_like(labels, -1)) == Tally()


def test_of_many_labels_the_mean_alone_is_told() -> None:
    scores, labels = made(40, num=MAX_OWN + 1)
    names = [f"code_{k}" for k in range(MAX_OWN + 1)]
    found = tally_of_labels(scores, labels, names, loss_sum=1.0)
    assert found.scalars()["auc"] is not None and "auc_code_0" not in found.scalars()
    assert tally_in(tally_out(found)) == found


@pytest.mark.parametrize("bad", ["score", "loss"])
def test_a_site_that_is_left_out_tells_of_the_same_labels(bad: str) -> None:
    scores, labels = made()
    own = {"age": np.ones(len(scores))}
    good = counted(scores, labels, own=own)
    labels[0, 0] = 1
    if bad == "score":
        scores[0, 0] = math.nan
    left = counted(scores, labels, own=own, loss_sum=math.nan if bad == "loss" else 1.0)
    assert left.num_left_out == left.num_samples and Form.of(left) == Form.of(good)
    assert left.scalars()["auc_mass"] is None and left.scalars().keys() >= good.scalars().keys() - {"reliability"} - {
        *("sensitivity", "specificity", "dice"),
        *(f"{truth}_{sign}" for truth in ("true", "false") for sign in ("positives", "negatives")),
    }
    assert (good + left).scalars()["auc_mass"] == good.scalars()["auc_mass"]
    assert tally_in(tally_out(left)) == left and tally_in(tally_out(good + left)) == good + left


def test_sites_with_other_labels_are_told_apart() -> None:
    scores, labels = made()
    found = Form.of(counted(scores, labels)), Form.of(replace(counted(scores, labels), labels=("a", "b", "c")))
    assert found[0] != found[1] and str(found[0]) == "3 labels (effusion, mass, nodule)"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.labels.append("other"), "3 curves for 2 classes and 4 labels"),
        (lambda t: t.labels.__setitem__(0, "mass"), "3 names of labels; .* each once"),
        (lambda t: t.labels.__setitem__(0, "<b>"), "a label is called '<b>'"),
        (lambda t: t.labels.__setitem__(0, "sum"), "a label is called 'sum'"),
        (lambda t: t.labels.extend(["x"] * 2000), "2003 names of labels; at most 1024"),
        (lambda t: t.ClearField("labels"), "3 curves for 2 classes and 0 labels"),
        (lambda t: t.curves[0].positives.__setitem__(0, 9), "the curves of labels counts"),
        (lambda t: setattr(t, "num_own", 2**60), "num_own"),
        (lambda t: t.own.clear(), "num_own"),
    ],
)
def test_a_tally_that_contradicts_itself_is_refused(change: Any, said: str) -> None:
    scores, labels = made()
    message = tally_out(counted(scores, labels, own={"auc_sum": np.ones(60)}))
    assert tally_in(wire.Tally.FromString(message.SerializeToString())).num_own == 60
    change(message)
    with pytest.raises(LinkError, match=said):
        tally_in(message)


WIDE = torch.full((6, 3), 0.5)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Prediction(WIDE, WIDE), r"of shape \[6, 3\], several of each sample; name these labels"),
        (Prediction(WIDE, WIDE, names=NAMES[:2]), r"names 2 labels, and gave .* needed: both of shape \(n, 2\)"),
        (Prediction(WIDE[:, 0], WIDE[:, 0], names=NAMES), r"names 3 labels, and gave a tensor of shape \[6\]"),
        (Prediction(WIDE, WIDE[:3], names=NAMES), r"a tensor of shape \[3, 3\] as labels"),
        (Prediction(WIDE, WIDE, names=("a", "b", "a")), "names a label 'a'"),
        (Prediction(WIDE, WIDE, names=("a", "b", "C d")), "names a label 'C d'; needed: up to 60 small letters"),
        (Prediction(WIDE, WIDE, names=("a", "b", 3)), "names a label 3"),  # type: ignore[arg-type]
        (Prediction(WIDE, WIDE, {"auc_a": torch.ones(6)}, names=("a", "b", "c")), "names a label 'a'; .* auc_ and"),
        (Prediction(WIDE, WIDE, {"mae": torch.ones(18)}, names=NAMES), "unlike numbers of samples"),
        (Prediction(own={"mae": torch.ones(6)}, names=NAMES), "gave nothing as scores"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused(given: Prediction, says: str) -> None:
    with pytest.raises(SiteFailed, match=says):
        checked_prediction(given, 6)


@pytest.mark.parametrize("names", [[*NAMES], np.array(NAMES), dict.fromkeys(NAMES).keys(), iter(NAMES)])
def test_names_may_lie_in_anything(names: Any) -> None:
    assert checked_prediction(Prediction(WIDE, WIDE, names=names), 6).names == NAMES
    assert checked_prediction(Prediction(WIDE, WIDE[:, 0], names=None), 6).names == ()  # type: ignore[arg-type]


class Shown:
    """Predicts what it is given; `cases`: with a figure of each sample."""

    def __init__(self, cases: bool = False, names: tuple[str, ...] = NAMES) -> None:
        self.cases, self.names = cases, names

    def loss(self, module: nn.Module, batch: Any) -> torch.Tensor:
        return batch[0].square().mean()

    def predict(self, module: nn.Module, batch: Any) -> Prediction:
        own = {"first": batch[0][:, 0]} if self.cases else {}
        if self.names:
            return Prediction(batch[0], batch[1], own, self.names)
        return Prediction(batch[0].reshape(-1), batch[1].reshape(-1), own)


def told(task: Any, scores: Any, labels: Any, **settings: Any) -> Tally:
    data = TensorDataset(torch.tensor(scores), torch.tensor(labels))
    return measure(nn.Identity(), task, data, Evaluation(**settings), torch.device("cpu"))


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_labels_are_counted_in_parts_as_in_the_whole(monkeypatch: pytest.MonkeyPatch, batch_size: int) -> None:
    scores, labels = made()
    labels[-25:] = -1  # nothing of the last ones is known, and what the task says of them counts all the same
    whole = told(Shown(cases=True), scores, labels, batch_size=60)
    assert whole.scalars()["first"] == pytest.approx(scores[:, 0].mean()) and whole.num_own == 60
    for most in (1, 10, 30):
        monkeypatch.setattr(measuring, "MANY", most)
        parts = told(Shown(cases=True), scores, labels, batch_size=batch_size)
        assert parts.num_own == 60 and parts.num_samples == whole.num_samples
        assert parts.curves[1].positives.tolist() == whole.curves[1].positives.tolist()
        assert parts.scalars()["first"] == pytest.approx(whole.scalars()["first"])
    scores[3, 0], labels[3, 0] = math.nan, 1
    left = told(Shown(cases=True), scores, labels, batch_size=batch_size)
    assert left.num_left_out == left.num_samples and left.labels == NAMES and [*left.own] == ["first"]


def test_a_figure_of_each_case_stands_beside_the_predictions_of_its_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels = made()
    labels = np.where(labels == 1, 1, 0)
    for most in (1 << 18, 20):
        monkeypatch.setattr(measuring, "MANY", most)
        found = told(Shown(cases=True, names=()), scores, labels, batch_size=16)
        assert (found.num_samples, found.num_own) == (180, 60)
        assert found.scalars()["first"] == pytest.approx(scores[:, 0].mean())
        assert found.scalars()["accuracy"] == pytest.approx(((scores > 0.5) == labels).mean())
        assert tally_in(tally_out(found)) == found


def test_a_federation_is_told_of_each_label_at_every_node(tmp_path: Path) -> None:
    tree = hub("world", hub("up", "north", "south"), site("east", without="mass"))
    settings = {"stopping": {"metric": "auc_effusion", "patience": 3}, "evaluation": {"auc": "exact"}}
    ran = go(tmp_path, tree, {"kind": "ward_tasks:Findings"}, **settings)
    nodes = ran.summary["nodes"]
    for path, sites in {
        "world/up": ("north", "south"),
        "world/east": ("east",),
        "world": ("north", "south", "east"),
    }.items():
        assert all(0 <= nodes[path][f"auc_{name}"] <= 1 for name in ("effusion", "nodule"))
        areas = [nodes[path][f"auc_{name}"] for name in FINDINGS]
        defined = [area for area in areas if area is not None]
        assert nodes[path]["auc"] == pytest.approx(np.mean(defined))
        assert (nodes[path]["auc_mass"] is None) == (sites == ("east",))
    assert nodes["world"]["age"] == pytest.approx(
        np.mean([Findings.age(name).mean() for name in ("north", "south", "east")])
    )
    assert ran.summary["stopping"]["metric"] == "auc_effusion" if "stopping" in ran.summary else True
    lines = [json.loads(line) for line in (ran.folder / "metrics.jsonl").read_text().splitlines()]
    assert {line["node"] for line in lines if line.get("auc_nodule") is not None} == {*nodes}
    page = write_report(ran.folder).read_text()
    assert "auc_effusion" in page or "auc effusion" in page


@dataclass(frozen=True)
class Apart(Findings):
    """Findings of which each site names those alone that it knows."""

    def data(self, site: str, without: str = "") -> SiteData:
        found = super().data(site, without)
        mark = torch.full((30,), float(bool(without)))
        return SiteData(*(TensorDataset(*one.tensors, mark) for one in (found.train, found.test)))  # type: ignore[attr-defined]

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return super().loss(model, batch[:2])

    def predict(self, model: nn.Module, batch: Any) -> Prediction:
        found = super().predict(model, batch[:2])
        return replace(found, names=("cyst", *FINDINGS[1:])) if batch[2][0] else found


def test_who_has_other_labels_is_told(tmp_path: Path) -> None:
    tree = hub("world", hub("up", "north", "south"), site("east", without="mass"), rounds=2, on_failure="continue")
    ran = go(tmp_path, tree, {"kind": f"{__name__}:Apart"})
    said = [event.get("error") or event.get("message") or "" for event in events(ran.folder)]
    unlike = [one for one in said if "3 labels (cyst, " in one]
    assert len(unlike) == 2 and "predict names all that any site labels, in one order, with -1" in unlike[0]


@pytest.mark.usefixtures("several_runs")
def test_over_links_labels_are_told_as_without(tmp_path: Path) -> None:
    tree = hub("world", hub("up", "north", "south"), site("east", without="mass"))
    linked = {**tree, "members": [{**one, "link": {"address": "h.example.org:8443"}} for one in tree["members"]]}
    inside = Inside(config_of(tmp_path / "links", linked, {"kind": "ward_tasks:Findings"}), tmp_path / "members").go()
    alone = go(tmp_path / "alone", tree, {"kind": "ward_tasks:Findings"}).summary
    for path in ("world", "world/up", "world/east"):
        assert inside["nodes"][path] == alone["nodes"][path]
    assert inside["model_digest"] == alone["model_digest"]
