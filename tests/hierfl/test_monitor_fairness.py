"""How evenly a model serves the sites: figures that a reader can recompute."""

import pytest

from hierfl.monitor.fairness import fairness, fairness_lines, titles

SITES = {
    "w/a": {"num_test": 10, "accuracy": 0.9, "auc": None, "loss": 0.2},
    "w/b": {"num_test": 30, "accuracy": 0.5, "auc": 0.6, "loss": 0.8},
    "w/c": {"num_test": 0, "accuracy": None, "auc": None, "loss": None},
}


def test_worst_best_means_and_deviation_by_hand():
    found = fairness(SITES)
    assert found["accuracy"] == {
        "worst": "w/b",
        "worst_value": 0.5,
        "best": "w/a",
        "best_value": 0.9,
        "mean": pytest.approx(0.7),
        "weighted_mean": pytest.approx((10 * 0.9 + 30 * 0.5) / 40),
        "std": pytest.approx(0.2),
        "num_sites": 2,
        "num_undefined": 1,
    }
    assert (found["loss"]["worst"], found["loss"]["best"]) == ("w/b", "w/a")  # the lower the better
    assert (found["auc"]["num_sites"], found["auc"]["std"], found["auc"]["num_undefined"]) == (1, 0.0, 2)


def test_ties_go_to_the_first_by_path_whatever_the_order():
    tied = {path: {"num_test": 1, "accuracy": 0.5} for path in ("w/c", "w/a", "w/b")}
    assert fairness(tied) == fairness(dict(reversed(tied.items())))
    assert fairness(tied)["accuracy"]["worst"] == fairness(tied)["accuracy"]["best"] == "w/a"


def test_lines_leave_out_what_a_single_site_has_and_nothing_is_no_line():
    lines = list(fairness_lines(fairness(SITES)))
    assert [line.split()[1] for line in lines] == ["accuracy", "loss"]
    assert "worst 0.500 (w/b), best 0.900 (w/a), mean 0.700 (weighted 0.600), deviation 0.200" in lines[0]
    assert lines[0].endswith("deviation 0.200; undefined at 1 of 3 sites"), "w/c has no test samples"
    all_have = {path: SITES[path] for path in ("w/a", "w/b")}
    assert "undefined" not in " ".join(fairness_lines(fairness(all_have)))
    assert fairness({}) == {} and list(fairness_lines({})) == []


def test_what_is_told_at_each_labels_threshold_is_told_of_over_the_sites():
    def of(num: int, share: float | None) -> dict[str, object]:
        labels = {f"operating_{kind}_l{n:02}": share for kind in ("sensitivity", "specificity") for n in range(num)}
        return {"num_test": 10, "operating_threshold_l00": 0.3, **labels}

    found = fairness({"w/a": of(2, 0.9), "w/b": of(2, 0.5), "w/c": of(2, None)})
    assert [*found] == [f"operating_{kind}_l{n:02}" for kind in ("sensitivity", "specificity") for n in range(2)]
    figures = found["operating_sensitivity_l01"]
    assert (figures["worst"], figures["worst_value"], figures["num_undefined"]) == ("w/b", 0.5, 1)
    lines = list(fairness_lines(found))
    assert lines[1].startswith("sites    sensitivity at the threshold of l01 worst 0.500 (w/b), best 0.900 (w/a)")
    assert titles(of(1, 0.9))["operating_specificity_l00"] == "specificity at the threshold of l00"
    many = list(fairness_lines(fairness({"w/a": of(20, 0.9), "w/b": of(20, 0.5)})))
    assert len(many) == 15 and many[-1].strip() == "26 more figures at thresholds in summary.json"
