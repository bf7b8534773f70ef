"""Reliability curves: what a reader can recompute, made of the counts of scores and of nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierfl.learning.calibration import NUM_BINS
from hierfl.learning.metrics import Curve, Tally
from hierfl.learning.score_bins import bins_of, edges


def drawn(seed, n, num_classes):
    random = np.random.default_rng(seed)
    return random.dirichlet(np.ones(num_classes), size=n), random.integers(num_classes, size=n)


def plain_error(said, true):
    """The paper's sum, bin by bin."""
    error = 0.0
    for b in range(NUM_BINS):
        inside = (said >= b / NUM_BINS) & ((said < (b + 1) / NUM_BINS) | (b == NUM_BINS - 1))
        if inside.any():
            error += inside.mean() * abs(true[inside].mean() - said[inside].mean())
    return error


def told(probabilities, classes, **how):
    return Tally.of(probabilities, classes, loss_sum=1.0, **how)


parts = st.lists(st.tuples(st.integers(0, 2**31), st.integers(1, 40)), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(parts, st.sampled_from([2, 4]))
def test_the_sum_over_sites_is_what_pooled_predictions_give(sites, num_classes):
    found = [drawn(seed, n, num_classes) for seed, n in sites]
    probabilities, classes = (np.concatenate(column) for column in zip(*found, strict=True))
    total = Tally.total(told(*part, auc="exact") for part in found).scalars()
    pooled = told(probabilities, classes, auc="exact").scalars()
    assert (total["ece"], total["reliability"]) == (pooled["ece"], pooled["reliability"])
    against_the_rest = [1] if num_classes == 2 else range(num_classes)
    errors = [plain_error(probabilities[:, c], classes == c) for c in against_the_rest]
    assert total["ece"] == pytest.approx(np.mean(errors), abs=1e-9)
    assert sum(row[0] for row in total["reliability"]) == len(classes) * len(errors)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 300), st.sampled_from([2, 4]), st.sampled_from([2, 10, 64, 1024]))
def test_of_a_histogram_it_is_that_of_the_middles_of_its_bins(seed, n, num_classes, bins):
    """Which are at most half a bin beside the scores: so much, and no more, is known of them."""
    probabilities, classes = drawn(seed, n, num_classes)
    middles = (edges(bins)[:-1] + edges(bins)[1:])[bins_of(probabilities, bins)] / 2
    assert np.abs(middles - probabilities).max() <= np.diff(edges(bins)).max() / 2
    against_the_rest = [1] if num_classes == 2 else range(num_classes)
    errors = [plain_error(middles[:, c], classes == c) for c in against_the_rest]
    assert told(probabilities, classes, bins=bins).scalars()["ece"] == pytest.approx(np.mean(errors), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60))
def test_scores_that_share_their_bins_cannot_be_told_apart(seed, n):
    random = np.random.default_rng(seed)
    places, labels = random.integers(2048, size=n), random.integers(2, size=n)
    low, wide = edges(2048)[places], np.diff(edges(2048))[places]
    one, other = (told(low + random.random(n) * wide, labels) for _ in range(2))
    for name in ("ece", "reliability", "auc"):
        assert one.scalars()[name] == other.scalars()[name], name


@pytest.mark.parametrize("n", [2_000, 20_000])
def test_with_so_many_bins_the_error_is_next_to_that_of_the_scores(n):
    random = np.random.default_rng(0)
    scores = random.beta(0.7, 1.5, size=n)
    labels = (random.random(n) < scores**1.3).astype(int)
    exact, binned = (told(scores, labels, auc=auc).scalars()["ece"] for auc in ("exact", "histogram"))
    assert exact > 0.04 and abs(binned - exact) < 0.002


def test_two_classes_hold_the_probability_of_class_one_against_its_share():
    said, true = np.array([0.0, 0.05, 0.81, 0.85, 0.89, 1.0]), np.array([0, 1, 1, 1, 0, 1])
    curve = Curve.of(said, true == 1, None).reliability()
    assert curve.rows() == [[2, 1, pytest.approx(0.025)], [3, 2, pytest.approx(0.85)], [1, 1, 1.0]]
    assert curve.error() == pytest.approx((2 * (0.5 - 0.025) + 3 * (0.85 - 2 / 3)) / 6)
    assert [row[:2] for row in told(said, true).scalars()["reliability"]] == [[2, 1], [3, 2], [1, 1]]


def test_what_is_sure_and_right_has_no_error_and_sure_and_wrong_has_all_of_it():
    sure, classes = np.eye(2)[[0, 1, 1]], np.array([0, 1, 1])
    assert told(sure, classes, auc="exact").scalars()["ece"] == 0.0
    assert told(sure, 1 - classes, auc="exact").scalars()["ece"] == 1.0
    assert told(sure, classes).scalars()["ece"] == pytest.approx(0.0, abs=1e-6)


def test_where_no_scores_are_told_there_is_no_curve():
    assert "reliability" not in Tally().scalars()
    none = told(*drawn(0, 30, 2), auc="none")
    assert none.scalars()["ece"] is None and "reliability" not in none.scalars()
    assert none.why_undefined("ece") == "not measured"
