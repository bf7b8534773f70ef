from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import Durations

observations = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 500), st.floats(0, 100)), max_size=30)


def test_nothing_is_known_before_the_first_job_of_a_kind() -> None:
    durations = Durations()
    assert durations.predict("train", "a", 10) is None
    durations.observe("train", "a", 10, 2.0)
    assert durations.predict("train", "a", 10) == pytest.approx(2.0)
    assert durations.predict("evaluate", "a", 10) is None


def test_an_unseen_site_is_thought_to_be_like_the_others() -> None:
    durations = Durations()
    durations.observe("train", "a", 10, 2.0)
    assert durations.predict("train", "new", 30) == pytest.approx(6.0)


def test_one_observation_by_hand() -> None:
    """a: 0.2 s per unit, so the rate is 0.2. b: 0.4; the rate moves to 0.9 * 0.2 + 0.1 * 0.4 = 0.22."""
    durations = Durations()
    durations.observe("train", "a", 10, 2.0)
    durations.observe("train", "b", 10, 4.0)
    assert durations.predict("train", "new", 1) == pytest.approx(0.22)
    assert durations.predict("train", "b", 5) == pytest.approx(0.4 * 5)
    assert durations.predict("train", "a", 10) == pytest.approx(2.2)


def test_steady_sites_are_learned() -> None:
    durations = Durations()
    for _ in range(60):
        for site, rate in (("slow", 0.5), ("fast", 0.1)):
            durations.observe("train", site, 20, 20 * rate)
    assert durations.predict("train", "slow", 40) == pytest.approx(20.0, rel=0.1)
    assert durations.predict("train", "fast", 40) == pytest.approx(4.0, rel=0.1)


def test_a_site_that_became_slow_is_noticed_within_rounds() -> None:
    durations = Durations()
    for _ in range(20):
        durations.observe("train", "a", 10, 1.0)
        durations.observe("train", "b", 10, 1.0)
    for _ in range(6):
        durations.observe("train", "a", 10, 3.0)
        durations.observe("train", "b", 10, 1.0)
    predicted = durations.predict("train", "a", 10)
    assert predicted is not None and predicted > 2.5


@settings(max_examples=100)
@given(observations, st.floats(0, 500))
def test_predictions_are_positive_finite_and_grow_with_the_work(
    seen: list[tuple[str, float, float]], units: float
) -> None:
    durations = Durations()
    for site, done, spent_s in seen:
        durations.observe("train", site, done, spent_s)
    for site in ("a", "b", "c", "new"):
        predicted = durations.predict("train", site, units)
        if not seen:
            assert predicted is None
            continue
        more = durations.predict("train", site, units + 10)
        assert predicted is not None and more is not None
        assert 0 < predicted < more < float("inf")
