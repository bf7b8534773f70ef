"""Jobs of one call are learned together, against what was predicted before it."""

from __future__ import annotations

import numpy as np

from scheduler import Durations


def predict(durations: Durations, site: str, units: float, kind: str = "train") -> float:
    predicted = durations.predict(kind, site, units)
    assert predicted is not None
    return predicted


def test_jobs_of_one_call_are_held_against_what_was_predicted_before_it() -> None:
    durations = Durations()
    for _ in range(3):
        durations.observe_all("train", [("a", 10, 1.0), ("b", 10, 3.0)])
    before = [predict(durations, site, 10) for site in "aba"]
    assert durations.observe_all("train", [("a", 10, 5.0), ("b", 10, 9.0), ("a", 10, 5.0)]) == before
    assert predict(durations, "a", 10) > 2 * before[0] and predict(durations, "b", 10) > before[1]
    assert durations.observe_all("evaluate", [("a", 10, 5.0), ("b", 10, 9.0)]) == [None, None]
    assert "evaluate" not in durations.error() and predict(durations, "a", 10, kind="evaluate") > 0


def test_what_nobody_had_predicted_is_no_hit() -> None:
    rng = np.random.default_rng(7)
    jobs = [(f"s{place}", 10.0, float(rng.lognormal(0, 0.3))) for place in range(400)]
    together = Durations()
    together.observe_all("train", jobs)
    kept = [seconds <= (together.p90("train", site, 10) or 0.0) for site, _, seconds in jobs]
    assert sum(kept) > 0.85 * len(kept)


def test_a_call_without_jobs_teaches_nothing() -> None:
    durations = Durations()
    assert durations.observe_all("train", []) == []
    assert durations.predict("train", "a", 10) is None and not durations.knows("train") and not durations.error()
