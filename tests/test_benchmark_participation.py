"""The comparison of participation policies: its task is the one that it wraps, and its ratio is what it says."""

from __future__ import annotations

import pytest

from benchmarks.participation import CONTENDERS, Curve, Delayed, reached
from hierfl.kinds import load


@pytest.mark.parametrize("of", ["heart_disease", "digits"])
def test_a_delayed_task_is_its_task(of: str) -> None:
    delayed = Delayed(of)
    site = list(delayed.sites())[1]
    data, own = delayed.data(site), delayed.task.data(site)
    model = delayed.model()
    assert delayed.standardise == getattr(delayed.task, "standardise", "none")
    assert delayed.loss(model, data.train[:]).item() == delayed.task.loss(model, own.train[:]).item()
    found, expected = delayed.predict(model, data.test[:]), delayed.task.predict(model, own.test[:])
    assert bool((found.scores == expected.scores).all() and (found.labels == expected.labels).all())


def test_the_time_to_there_is_compared_with_waitings() -> None:
    waiting = Curve("auc", points=[(10.0, 0.5), (20.0, 0.9), (30.0, 0.905)])
    assert reached(Curve("auc", points=[(1.0, 0.8), (5.0, 0.9)]), waiting) == 0.25
    assert reached(waiting, waiting) == 1.0
    assert reached(Curve("auc", points=[(1.0, 0.8)]), waiting) is None


def test_contenders_are_kinds_that_there_are() -> None:
    assert {load("participation", policy["kind"]).__name__ for policy in CONTENDERS.values()} == {
        "All",
        "Buffered",
        "Deadline",
        "Sample",
    }
