"""One threshold for a federation, and what it gives at each node."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_inside import Inside, several_runs  # noqa: F401
from small_runs import config_of, go, hub, site

from hierfl.config.learning import OperatingPoint
from hierfl.errors import ConfigError
from hierfl.learning.metrics import Curve
from hierfl.learning.operating import at_thresholds, threshold_of
from hierfl.learning.score_bins import edges

SAMPLES = st.lists(st.tuples(st.integers(0, 20).map(lambda n: n / 20), st.booleans()), min_size=1, max_size=40)
SHARES = st.integers(1, 19).map(lambda n: n / 20)
FLAT = hub("world", "cleveland", "long_beach", "budapest", "zurich_basel")
TREE = hub("world", hub("us", "cleveland", "long_beach"), "budapest", hub("ch", "zurich_basel"))


def curve(samples: list[tuple[float, bool]]) -> Curve:
    scores, labels = zip(*samples, strict=True)
    return Curve.of(np.array(scores), np.array(labels), None)


def at(one: Curve | None, threshold: float | None) -> dict[str, Any]:
    return at_thresholds({} if one is None else {"": one}, {"": threshold})


def shares(samples: list[tuple[float, bool]], threshold: float) -> tuple[Fraction | None, Fraction | None]:
    """Sensitivity and specificity, sample by sample."""
    of = {label: [score for score, own in samples if own is label] for label in (True, False)}
    right = sum(score >= threshold for score in of[True]), sum(score < threshold for score in of[False])
    return tuple(
        Fraction(n, len(of[label])) if of[label] else None for n, label in zip(right, (True, False), strict=True)
    )  # type: ignore[return-value]


@given(SAMPLES, SHARES)
def test_the_threshold_is_the_first_that_has_the_specificity_and_the_last_that_has_the_sensitivity(
    samples: list[tuple[float, bool]], share: float
) -> None:
    candidates = sorted({score for score, _ in samples} | {1.0})
    wanted = Fraction(str(share))
    for place, kind, choose in ((1, "specificity", min), (0, "sensitivity", max)):
        good = [one for one in candidates if (shares(samples, one)[place] or Fraction(0)) >= wanted]
        threshold = threshold_of(curve(samples), OperatingPoint(**{kind: share}))
        assert (threshold is None) == (not good)
        if threshold is not None:
            right, below = choose(good), [one for one in candidates if one < choose(good)]
            assert threshold == (right + max(below, default=right)) / 2
            found = at(curve(samples), threshold)
            said = [None if one is None else float(one) for one in shares(samples, threshold)]
            assert [found["operating_sensitivity"], found["operating_specificity"]] == pytest.approx(said)


def test_other_last_bits_of_a_score_are_told_the_same_class() -> None:
    samples = [(0.25, False), (0.5, True), (0.75, False), (0.875, True)]
    for wanted in (OperatingPoint(sensitivity=0.9), OperatingPoint(specificity=0.5), OperatingPoint(specificity=0.9)):
        threshold = threshold_of(curve(samples), wanted)
        assert threshold is not None
        assert all((score >= threshold) == (np.nextafter(score, 0) >= threshold) for score, _ in samples)


FLOATS = st.floats(0, 1, width=32) | st.just(1.0) | st.just(0.5) | st.integers(0, 100).map(lambda n: n / 100)


@given(
    st.lists(st.tuples(FLOATS, st.booleans()), min_size=1, max_size=30),
    st.sampled_from(["specificity", "sensitivity", "threshold"]),
    SHARES,
    st.sampled_from([2, 10, 100, 1024]),
)
def test_what_is_told_of_bins_is_what_predicting_by_the_threshold_gives(
    samples: list[tuple[float, bool]], kind: str, share: float, bins: int
) -> None:
    scores, labels = zip(*samples, strict=True)
    binned = Curve.of(np.array(scores), np.array(labels), bins)
    threshold = threshold_of(binned, OperatingPoint(**{kind: share}))
    if threshold is not None:
        found = at(binned, threshold)
        said = [None if one is None else float(one) for one in shares(samples, threshold)]
        assert [found["operating_sensitivity"], found["operating_specificity"]] == pytest.approx(said)
        if kind == "specificity" and threshold > min(binned.scores):
            less = shares(samples, float(edges(bins)[np.searchsorted(edges(bins), threshold) - 1]))[1]
            assert less is not None and less < Fraction(str(share)), "the smallest edge that has it"


def test_each_edge_between_bins_is_told_what_predicting_by_it_gives() -> None:
    samples = [(n / 100, n % 3 == 0) for n in range(101)]
    scores, labels = zip(*samples, strict=True)
    for bins in (7, 100, 1000, 1024):
        binned = Curve.of(np.array(scores), np.array(labels), bins)
        for edge in edges(bins)[1:-1].tolist():
            said = [float(one or 0) for one in shares(samples, edge)]
            assert list(at(binned, edge).values()) == pytest.approx(said), (bins, edge)


def test_a_given_threshold_is_the_nearest_edge_between_bins() -> None:
    binned = Curve.of(np.array([0.3]), np.array([True]), 1024)
    given = [threshold_of(binned, OperatingPoint(threshold=one)) for one in (0.3, 1e-9, 0.99999)]
    assert given == [0.25 + 6 / 128, 2.0**-21, 1 - 21 * 2.0**-21]


def test_a_node_without_one_of_the_classes_or_without_scores_has_no_figure() -> None:
    assert at(curve([(0.3, True)]), 0.2) == {"operating_sensitivity": 1.0, "operating_specificity": None}
    assert set(at(None, 0.5).values()) == set(at(curve([(0.3, True)]), None).values()) == {None}
    assert threshold_of(curve([(0.3, True)]), OperatingPoint(specificity=0.5)) is None
    assert threshold_of(curve([(1.0, False), (1.0, True)]), OperatingPoint(specificity=0.5)) is None
    assert threshold_of(curve([(0.3, True)]), OperatingPoint(threshold=0.25)) == 0.25


def run(folder: Path, tree: dict[str, Any], **evaluation: Any) -> dict[str, Any]:
    point = {"operating_point": {"specificity": 0.9}, **evaluation}
    found: dict[str, Any] = dict(go(folder, tree, "heart_disease", evaluation=point).summary)
    return found


def test_one_threshold_holds_at_every_node_over_any_tree(tmp_path: Path) -> None:
    flat, tree = run(tmp_path / "a", FLAT), run(tmp_path / "b", TREE)
    plain = go(tmp_path / "c", TREE, "heart_disease").summary
    assert tree["model_digest"] == plain["model_digest"] and "operating_threshold" not in plain["nodes"]["world"]
    names = ("operating_threshold", "operating_sensitivity", "operating_specificity")
    at_root = {name: tree["nodes"]["world"][name] for name in names}
    assert at_root == {name: flat["nodes"]["world"][name] for name in names}
    assert at_root["operating_specificity"] >= 0.9 and names[0] not in tree["nodes"]["world/us"]
    assert tree["nodes"]["world/us/cleveland"][names[1]] == flat["nodes"]["world/cleveland"][names[1]]
    assert tree["nodes"]["world/ch"][names[1]] == tree["nodes"]["world/ch/zurich_basel"][names[1]]
    counts = tree["nodes"]
    right = total = 0.0
    for path in ("world/us/cleveland", "world/us/long_beach", "world/budapest", "world/ch/zurich_basel"):
        negatives = counts[path]["true_negatives"] + counts[path]["false_positives"]
        right, total = right + counts[path][names[2]] * negatives, total + negatives
    assert right / total == pytest.approx(at_root[names[2]])
    assert tree["fairness"][names[2]]["worst"] == "world/us/long_beach"


@pytest.mark.usefixtures("several_runs")
def test_over_links_it_is_the_same_and_nothing_more_is_sent(tmp_path: Path) -> None:
    linked = {**TREE, "members": [{**one, "link": {"address": "h.example.org:8443"}} for one in TREE["members"]]}
    point = {"operating_point": {"sensitivity": 0.95}}
    sent = {}
    for name, evaluation in (("with", point), ("without", {})):
        inside = Inside(
            config_of(tmp_path / name, linked, "heart_disease", evaluation=evaluation), tmp_path / f"{name}-l"
        )
        found, sent[name] = inside.go()["nodes"], sum(map(len, inside.up))
    assert sent["with"] == pytest.approx(sent["without"], rel=0.01)
    alone = run(tmp_path / "s", TREE, **point)["nodes"]
    inside = Inside(config_of(tmp_path / "again", linked, "heart_disease", evaluation=point), tmp_path / "again-l")
    found = inside.go()["nodes"]
    for path in ("world", "world/us", "world/budapest", "world/ch"):
        assert found[path]["operating_sensitivity"] == alone[path]["operating_sensitivity"]
    assert found["world"]["operating_threshold"] == alone["world"]["operating_threshold"]


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ({"operating_point": {}}, "needs exactly one of specificity, sensitivity and threshold, and has none"),
        ({"operating_point": {"specificity": 0.9, "threshold": 0.5}}, "and has specificity and threshold"),
        ({"operating_point": {"specificity": 1.0}}, "specificity is 1.0; between 0 and 1"),
        ({"operating_point": {"specificity": 0.9}, "auc": "none"}, "evaluation.auc is none, and it needs the scores"),
        ({"operating_point": {"specificity": 0.9}, "every": 0}, "is never measured: evaluation.every is 0"),
    ],
)
def test_mistakes(tmp_path: Path, evaluation: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config_of(tmp_path, FLAT, "heart_disease", evaluation=evaluation)


def test_a_task_of_more_classes_has_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is of two classes, and the task measures accuracy, auc"):
        config_of(tmp_path, hub("world", site("site-0")), "digits", evaluation={"operating_point": {"threshold": 0.5}})
