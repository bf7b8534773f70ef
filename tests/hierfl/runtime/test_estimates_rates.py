from __future__ import annotations

import pytest

from hierfl.runtime.estimates import Estimates
from scheduler import Device


def test_rates_are_those_measured_and_more_jobs_add_their_own() -> None:
    """Alone 1, two together at 0.8 each; three were never seen together."""
    estimates = Estimates("model")
    for _ in range(3):
        estimates.colocation.observe("model", [], 1.0, "card")
        estimates.colocation.observe("model", ["model"], 0.8, "card")
    assert estimates.rates(Device("card-0", "card", places=3)) == pytest.approx((1.0, 1.6, 2.6))
    assert estimates.rates(Device("other", "other", places=2)) == (1.0, 2.0)
    assert estimates.rates(Device("single", "card")) == (1.0,)
