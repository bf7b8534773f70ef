"""Reliability curves: what a reader can recompute, and sums that are what pooled predictions give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierfl.learning.calibration import NUM_BINS, Reliability


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


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**31), st.integers(1, 40)), min_size=1, max_size=5), st.sampled_from([2, 4]))
def test_the_sum_over_sites_is_what_pooled_predictions_give(sites, num_classes):
    parts = [drawn(seed, n, num_classes) for seed, n in sites]
    probabilities, classes = (np.concatenate(column) for column in zip(*parts, strict=True))
    curves = [Reliability.of(*part) for part in parts]
    total = Reliability.total(curves)
    assert (
        total == Reliability.total(reversed(curves)) == Reliability.total([Reliability.total(curves[:1]), *curves[1:]])
    )
    pooled = Reliability.of(probabilities, classes)
    assert (total.counts, total.hits) == (pooled.counts, pooled.hits)
    assert total.sums == pytest.approx(pooled.sums, abs=len(sites))
    if num_classes == 2:
        said, true = probabilities[:, 1], classes == 1
    else:
        said, true = probabilities.max(axis=1), classes == probabilities.argmax(axis=1)
    assert total.error() == pytest.approx(plain_error(said, true), abs=1e-9)
    assert sum(row[0] for row in total.rows()) == len(classes)


def test_two_classes_hold_the_probability_of_class_one_against_its_share():
    said = np.array([0.0, 0.05, 0.81, 0.85, 0.89, 1.0])
    curve = Reliability.of(np.stack([1 - said, said], axis=1), np.array([0, 1, 1, 1, 0, 1]))
    assert curve.rows() == [[2, 1, pytest.approx(0.025)], [3, 2, pytest.approx(0.85)], [1, 1, 1.0]]
    assert curve.error() == pytest.approx((2 * (0.5 - 0.025) + 3 * (0.85 - 2 / 3)) / 6)


def test_what_is_sure_and_right_has_no_error_and_sure_and_wrong_has_all_of_it():
    sure, classes = np.eye(3)[[0, 1, 2]], np.array([0, 1, 2])
    assert Reliability.of(sure, classes).error() == 0.0
    assert Reliability.of(sure, (classes + 1) % 3).error() == 1.0


def test_nothing_adds_up_to_nothing():
    assert Reliability.total([]) is None
