"""When training ends early, measurement by measurement; figures that are exact in binary."""

from __future__ import annotations

import pytest

from hierfl.config.schema import Stopping
from hierfl.learning.stopping import Progress, advance, lacking

CASES = [
    (Stopping("auc", target=0.75), [0.5, None, 0.75], "auc 0.75 has reached its target 0.75"),
    (Stopping("loss", target=0.75), [1.0, 0.75], "loss 0.75 has reached its target 0.75"),
    (Stopping("days", target=0.75), [1.0, 0.75], "days 0.75 has reached its target 0.75"),
    (Stopping("auc", patience=2), [0.75, 0.75, 0.5], "auc has not improved on 0.75 in 2 measurements"),
    (Stopping("auc", patience=2), [0.75, 0.5, 0.625], "auc has not improved on 0.75 in 2 measurements"),
    (Stopping("loss", patience=1), [0.75, 0.5, 0.5], "loss has not improved on 0.5 in 1 measurement"),
    (Stopping("visits", patience=2), [3.0, 2.0, 1.0], "visits has not improved on 3 in 2 measurements"),
    (Stopping("days", patience=2), [3.0, 3.5, 4.0], "days has not improved on 3 in 2 measurements"),
    (Stopping("visits", patience=1), [1.0, 2.0, 3.0], None),
    (Stopping("days", patience=1), [3.0, 2.0, 1.0], None),
    (Stopping("auc", patience=1, min_delta=0.25), [0.5, 0.75], "auc has not improved on 0.5 in 1 measurement"),
    (Stopping("auc", patience=2), [None, None], "auc has not improved on undefined in 2 measurements"),
    (Stopping("auc", patience=2), [0.5, None, 0.75, None, 0.875], None),
    (Stopping("auc", patience=2, min_delta=0.25), [0.25, 0.5, 0.625], None),
    (Stopping("auc", target=0.75, patience=1), [0.5, 0.625], None),
    (Stopping(), [0.5, 0.5, None], None),
]


@pytest.mark.parametrize(("stopping", "values", "reason"), CASES)
def test_it_ends_at_the_last_of_these_measurements_and_not_before(
    stopping: Stopping, values: list[float | None], reason: str | None
) -> None:
    progress, said = Progress(), []
    for number, value in enumerate(values, 1):
        progress = advance(stopping, progress, value, {"days": "min", "visits": "max"}, number)
        said.append(progress.reason)
    kept = values[progress.best_round - 1] if progress.best_round else None
    assert progress.best == kept
    assert said == [*[None] * (len(values) - 1), reason]


def test_what_was_measured_of_nobody_ends_no_run() -> None:
    assert lacking(Stopping("days", patience=1), {"num_test": 0, "loss": None}, "exact") is None
    assert lacking(Stopping("loss", patience=1), {"num_test": 2, "loss": 0.5}, "none") is None
    assert lacking(Stopping(), {"num_test": 2, "loss": 0.5}, "none") is None


def test_who_stops_by_the_area_of_a_label_measures_areas() -> None:
    found, stopping = {"num_test": 2, "loss": 0.5, "auc_mass": None}, Stopping("auc_mass", patience=1)
    assert lacking(stopping, found, "histogram") is None  # one class, which may change where sites join
    assert "evaluation.auc is none: measure it" in str(lacking(stopping, found, "none"))
