"""Scores are counted in bins whose edges are the same everywhere, and fine where scores of rare classes lie."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from hierfl.learning.metrics import Curve
from hierfl.learning.score_bins import MOST_BINS, bins_of, edges, middles

SOME = [2, 3, 7, 10, 33, 100, 1000, 2048, MOST_BINS]


@pytest.mark.parametrize("bins", SOME)
def test_edges_rise_from_0_to_1_and_mirror(bins: int) -> None:
    found = edges(bins)
    assert len(found) == bins + 1 and found[0] == 0.0 and found[-1] == 1.0 and (np.diff(found) > 0).all()
    assert (found + found[::-1] == 1.0).all()
    places = np.arange(bins)
    assert (bins_of(found[:-1], bins) == places).all() and bins_of(np.array([1.0]), bins) == bins - 1
    assert (bins_of(np.nextafter(found[1:], 0), bins) == places).all()
    assert (bins_of(middles(found[:-1], bins), bins) == places).all()


@pytest.mark.parametrize("bins", [2048, 100])
def test_edges_are_the_octaves_ends_divided_evenly(bins: int) -> None:
    """In exact fractions; those of 2048 bins are none but powers of two and their 64ths."""
    expected = []
    for place in range(bins // 2 + 1):
        octave, rest = divmod(Fraction(32 * place, bins), 1)
        bottom, top = Fraction(2) ** (int(octave) - 17) if octave else Fraction(0), Fraction(2) ** (int(octave) - 16)
        expected.append(bottom + rest * (top - bottom))
    found = [Fraction(one) for one in edges(bins)[: bins // 2 + 1].tolist()]
    assert max(abs(float(one - other)) for one, other in zip(found, expected, strict=True)) < 1e-16
    assert (found == expected) == (bins == 2048)


@pytest.mark.parametrize("log_odds", [0.0, -4.0, -7.0, -8.5])
@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_the_area_under_the_curve_is_that_of_the_scores_however_rare_a_class_is(log_odds: float, spread: float) -> None:
    """With bins of equal width it was 0.14 beside at log odds of -8.5, one positive of 3,000."""
    chance = np.random.default_rng(1)
    scores = 1 / (1 + np.exp(-(spread * chance.normal(size=100_000) + log_odds)))
    positive = chance.random(100_000) < scores
    exact, binned = (Curve.of(scores, positive, bins).auc() for bins in (None, 2048))
    assert exact is not None and binned is not None and abs(exact - binned) < 2e-3
