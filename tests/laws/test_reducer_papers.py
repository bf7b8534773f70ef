"""Each rule that looks at each member against its paper, in plain loops over Python numbers."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest

from hierfl.kinds import load

ROWS = [[0.5, -1.0], [0.25, -1.5], [0.75, -0.5], [0.5, -1.25], [0.0, -0.75], [9.0, 40.0], [0.625, -1.0]]
"""Seven members' changes, the sixth far off."""


def of(kind: str, rows: list[list[float]] = ROWS, weights: list[float] | None = None, **fields: Any) -> list[float]:
    strategy = load("strategy", kind)(**fields)
    shares = np.array(weights or [1 / len(rows)] * len(rows))
    found = strategy.reduce(np.array(rows), shares, strategy.init(np.zeros(len(rows[0]))))
    return list(found.tolist())


def distance(a: list[float], b: list[float]) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def test_the_median_is_yin_et_al_definition_1() -> None:
    assert of("median", num_byzantine=3) == [statistics.median(column) for column in zip(*ROWS, strict=True)]
    assert of("median", ROWS[:4]) == [statistics.median(column) for column in zip(*ROWS[:4], strict=True)]


def test_the_trimmed_mean_is_yin_et_al_definition_2() -> None:
    for f in (0, 1, 3):
        expected = [statistics.fmean(sorted(column)[f : 7 - f]) for column in zip(*ROWS, strict=True)]
        assert of("trimmed_mean", num_byzantine=f) == pytest.approx(expected, rel=1e-14)


def krum_scores(f: int) -> list[float]:
    """s(i) = the sum over the n - f - 2 nearest others of ||V_i - V_j||^2 (Blanchard et al. 2017, Section 4)."""
    n, scores = len(ROWS), []
    for i in range(n):
        away = sorted(distance(ROWS[i], ROWS[j]) ** 2 for j in range(n) if j != i)
        scores.append(sum(away[: n - f - 2]))
    return scores


@pytest.mark.parametrize("f", [0, 1, 2])
def test_krum_is_blanchard_et_al(f: int) -> None:
    scores = krum_scores(f)
    assert of("krum", num_byzantine=f) == ROWS[scores.index(min(scores))]


@pytest.mark.parametrize(("f", "m"), [(1, None), (1, 2), (2, 1), (2, 3)])
def test_multi_krum_is_blanchard_et_al(f: int, m: int | None) -> None:
    scores = krum_scores(f)
    best = sorted(range(7), key=lambda i: scores[i])[: m or 7 - f - 2]
    expected = [statistics.fmean(ROWS[i][k] for i in best) for k in (0, 1)]
    assert of("multi_krum", num_byzantine=f, num_selected=m) == pytest.approx(expected, rel=1e-14)


def test_the_geometric_median_is_pillutla_et_al_algorithm_2() -> None:
    alpha, nu, steps = [0.1, 0.1, 0.2, 0.2, 0.1, 0.1, 0.2], 1e-6, 5
    v = [weighted_median([row[k] for row in ROWS], alpha) for k in (0, 1)]
    for _ in range(steps):
        beta = [a / max(nu, distance(v, row)) for a, row in zip(alpha, ROWS, strict=True)]
        v = [sum(b * row[k] for b, row in zip(beta, ROWS, strict=True)) / sum(beta) for k in (0, 1)]
    found = of("geometric_median", weights=alpha, iterations=steps, smoothing=nu)
    assert found == pytest.approx(v, rel=1e-12)
    assert distance(of("geometric_median", iterations=200), [0.5, -1.0]) < 0.2


def weighted_median(values: list[float], weights: list[float]) -> float:
    """By definition: no more than half of the weight lies below, nor above; midway between the two if there are."""

    def lies(is_beside: Any) -> float:
        return sum(weight for value, weight in zip(values, weights, strict=True) if is_beside(value))

    half = sum(weights) / 2 + 1e-12
    fits = [v for v in values if lies(lambda x, v=v: x < v) <= half and lies(lambda x, v=v: x > v) <= half]
    return (min(fits) + max(fits)) / 2


@pytest.mark.parametrize(("n", "f"), [(3, 1), (5, 2), (11, 5), (7, 3)])
@pytest.mark.parametrize("far", [0.1, 8.0, 1e4])
def test_the_geometric_median_stays_near_the_good_however_far_the_bad_are(n: int, f: int, far: float) -> None:
    """With its default steps, all bad members at one place, it is where it comes to; Minsker 2015, Lemma 2.1, says how
    near that is.
    """
    good = np.random.default_rng(n).normal(0.01, 0.005, (n - f, 1000))
    rows = np.concatenate([np.full((f, 1000), -far), good]).astype(np.float32)
    found, at_last = (
        load("strategy", "geometric_median")(num_byzantine=f, iterations=steps).reduce(rows, np.full(n, 1 / n), {})
        for steps in (8, 300)
    )
    furthest, share = np.linalg.norm(good - good.mean(axis=0), axis=1).max(), f / n
    assert np.linalg.norm(found - good.mean(axis=0)) < (2 - 2 * share) / (1 - 2 * share) * furthest
    assert np.linalg.norm(found - at_last) < 0.01 * furthest


def test_norm_bounding_is_sun_et_al() -> None:
    weights, bound = [0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], 0.8
    expected = [0.0, 0.0]
    for w, row in zip(weights, ROWS, strict=True):
        cut = max(1.0, distance(row, [0.0, 0.0]) / bound)
        expected = [e + w * x / cut for e, x in zip(expected, row, strict=True)]
    assert of("norm_bounding", weights=weights, bound=bound) == pytest.approx(expected, rel=1e-13)


def test_centred_clipping_is_karimireddy_et_al_algorithm_2() -> None:
    """v <- v + 1/n sum (x_i - v) min(1, tau / ||x_i - v||), three times, in two rounds with the aggregate kept."""
    strategy = load("strategy", "centered_clipping")(radius=0.5, iterations=3)
    model, state = np.zeros(2), strategy.init(np.zeros(2))
    v, x = [0.0, 0.0], [0.0, 0.0]
    for shift in (0.0, 0.25):
        rows = [[a + shift, b] for a, b in ROWS]
        delta = strategy.reduce(np.array(rows), np.full(7, 1 / 7), state)
        model, state = strategy.step(model, delta, state)
        for _ in range(3):
            away = [min(1.0, 0.5 / distance(row, v)) for row in rows]
            v = [v[k] + sum((row[k] - v[k]) * a for row, a in zip(rows, away, strict=True)) / 7 for k in (0, 1)]
        x = [a + b for a, b in zip(x, v, strict=True)]
    assert model.tolist() == pytest.approx(x, rel=1e-12)


def test_mixing_is_allouah_et_al_algorithm_2() -> None:
    """Each change becomes the mean of its n - f nearest, its own among them; then the rule."""
    n, f = 7, 1
    mixed = []
    for i in range(n):
        nearest = sorted(range(n), key=lambda j: distance(ROWS[i], ROWS[j]))[: n - f]
        mixed.append([statistics.fmean(ROWS[j][k] for j in nearest) for k in (0, 1)])
    expected = [statistics.median(column) for column in zip(*mixed, strict=True)]
    assert of("median", num_byzantine=f, mixing=True) == pytest.approx(expected, rel=1e-12)
