"""Confidence intervals hold what they promise, and come from what is counted anyway."""

from __future__ import annotations

import io
import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_inside import Inside, several_runs  # noqa: F401
from rich.console import Console
from small_runs import config_of, go, hub, site

from hierfl.errors import ConfigError
from hierfl.learning.intervals import delong, intervals, wilson
from hierfl.learning.metrics import Curve, Tally
from hierfl.monitor.report import write_report
from hierfl.monitor.table import tabulate

Z = NormalDist().inv_cdf(0.975)
TREE = hub("world", hub("us", "cleveland", "long_beach"), "budapest", hub("ch", "zurich_basel"))
SAMPLES = st.lists(st.tuples(st.integers(0, 9).map(lambda n: n / 10), st.booleans()), min_size=4, max_size=40)


@given(st.integers(1, 400), st.data())
def test_wilson_s_ends_are_where_the_score_test_turns(number: int, data: st.DataObject) -> None:
    """Wilson 1927: the shares p with |x/n - p| = z sqrt(p (1 - p) / n)."""
    right = data.draw(st.integers(0, number))
    low, high = wilson(right, number, Z)
    assert 0 <= low <= right / number <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(right / number - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / number), rel=1e-6)


@given(SAMPLES)
def test_delong_s_variance_is_the_paper_s_pair_by_pair(samples: list[tuple[float, bool]]) -> None:
    scores, labels = (np.array(one) for one in zip(*samples, strict=True))
    good, bad = scores[labels], scores[~labels]
    found = delong(Curve.of(scores, labels, None), Z)
    if min(len(good), len(bad)) < 2:
        assert found is None
        return
    kernel = (good[:, None] > bad) + 0.5 * (good[:, None] == bad)
    variance = kernel.mean(1).var(ddof=1) / len(good) + kernel.mean(0).var(ddof=1) / len(bad)
    if variance < 1e-15:
        assert found is None or found[1] - found[0] < 1e-6
        return
    half = Z * math.sqrt(variance)
    assert found == pytest.approx((max(0, kernel.mean() - half), min(1, kernel.mean() + half)), abs=1e-9)


def test_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """800 draws of 150 patients; the AUC of two normal distributions 1 apart is Phi(1 / sqrt 2)."""
    random, truth, hits = np.random.default_rng(0), NormalDist().cdf(1 / math.sqrt(2)), {"auc": 0, "accuracy": 0}
    for _ in range(800):
        labels = random.random(150) < 0.4
        scores = 1 / (1 + np.exp(-(random.standard_normal(150) + labels - 0.5)))
        tally = Tally.of(scores, labels.astype(int), loss_sum=0.0)
        found = intervals(tally.scalars(), tally.told_apart, 0.95)
        hits["auc"] += found["auc"][0] <= truth <= found["auc"][1]
        right = NormalDist().cdf(0.5)
        hits["accuracy"] += found["accuracy"][0] <= right <= found["accuracy"][1]
    assert all(0.93 < count / 800 < 0.97 for count in hits.values()), hits


def test_every_node_has_its_own_over_any_tree_and_over_links(tmp_path: Path, several_runs: None) -> None:  # noqa: F811
    asked = {"evaluation": {"intervals": 0.95, "operating_point": {"specificity": 0.9}}}
    ran, plain = go(tmp_path / "a", TREE, "heart_disease", **asked), go(tmp_path / "b", TREE, "heart_disease")
    nodes = ran.summary["nodes"]
    assert ran.digest == plain.digest and "intervals" not in plain.summary["nodes"]["world"]
    for path, node in nodes.items():
        for name, (low, high) in node["intervals"].items():
            assert 0 <= low <= node[name] <= high <= 1, (path, name)
    assert set(nodes["world"]["intervals"]) == {
        *("auc", "accuracy", "sensitivity", "specificity", "operating_sensitivity", "operating_specificity")
    }
    wide, narrow = (nodes[path]["intervals"]["accuracy"] for path in ("world/ch/zurich_basel", "world"))
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])
    assert nodes["world/ch"]["intervals"] == nodes["world/ch/zurich_basel"]["intervals"]
    assert ran.summary["nodes"]["world/ch"]["specificity"] == 1.0  # of one patient
    assert "auc" not in nodes["world/ch"]["intervals"]
    linked = {**TREE, "members": [{**one, "link": {"address": "h.example.org:8443"}} for one in TREE["members"]]}
    inside = Inside(config_of(tmp_path / "c", linked, "heart_disease", **asked), tmp_path / "linked")
    found = inside.go()["nodes"]
    assert all(found[path]["intervals"] == nodes[path]["intervals"] for path in ("world", "world/us", "world/budapest"))


def test_tables_the_report_and_the_last_lines_show_them(tmp_path: Path) -> None:
    ran = go(tmp_path / "a", TREE, "heart_disease", evaluation={"intervals": 0.9})
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(tabulate(ran.summary["nodes"], 200))
    shown, node = console.export_text(), ran.summary["nodes"]["world"]
    low, high = node["intervals"]["auc"]
    assert f"{node['auc']:.4f} ({low:.3f}-{high:.3f})" in shown and "intervals" not in shown
    assert f"{node['auc']:.3f} ({low:.3f}-{high:.3f})" in write_report(ran.folder).read_text(encoding="utf-8")
    from hierfl.monitor.plain import closing_lines

    lines = closing_lines("finished", ran.summary, "")
    assert any(line.startswith(f"all      AUC {node['auc']:.3f} ({low:.3f}-{high:.3f}), accuracy") for line in lines)


def test_more_classes_have_that_of_their_accuracy_and_numbers_none(tmp_path: Path) -> None:
    ran = go(
        tmp_path / "a",
        hub("world", site("site-0"), "site-1"),
        {"kind": "digits", "num_sites": 2},
        evaluation={"intervals": 0.95},
    )
    assert list(ran.summary["nodes"]["world"]["intervals"]) == ["accuracy"]
    ran = go(tmp_path / "b", hub("world", "a", "b"), "ward_tasks:Doses", evaluation={"intervals": 0.95})
    assert ran.summary["nodes"]["world"]["intervals"] == {}
    with pytest.raises(ConfigError, match=r"evaluation\.intervals: must be a confidence level, as 0\.95, not 95"):
        config_of(tmp_path, TREE, "heart_disease", evaluation={"intervals": 95})
