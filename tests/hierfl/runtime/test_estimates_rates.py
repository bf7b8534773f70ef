from __future__ import annotations

from collections.abc import Mapping

import pytest

from hierfl.runtime.estimates import Estimates
from scheduler import Device

CORES = Device("process", "process", places=2)


def works(seconds: float, *sites: str) -> Mapping[str, tuple[float, float]]:
    return dict.fromkeys(sites, (1.0, seconds))


def test_rates_are_those_measured_and_more_jobs_add_their_own() -> None:
    """Alone 1, two together at 0.8 each; three were never seen together."""
    estimates = Estimates("model")
    for _ in range(3):
        estimates.colocation.observe("model", [], 1.0, "card")
        estimates.colocation.observe("model", ["model"], 0.8, "card")
    assert estimates.rates(Device("card-0", "card", places=3)) == pytest.approx((1.0, 1.6, 2.6))
    assert estimates.rates(Device("other", "other", places=2)) == (1.0, 2.0)
    assert estimates.rates(Device("single", "card")) == (1.0,)


def test_threads_that_only_share_one_lock_are_found_out() -> None:
    """Two at once take twice as long each: what was seen in company first must not pass for what jobs take alone."""
    estimates = Estimates("model")
    for number in range(20):
        for company in (1, None):  # the one that ends last had company for a part of its time only
            assert estimates.learn("train", works(2.0, f"site-{number}"), CORES, company) is None
    assert estimates.predict("train", "site-0", 1.0, "process") == pytest.approx(2.0)
    assert not estimates.colocation.gain(["model"], "model", "process", 2), "it is time for jobs alone"
    for number in range(4):
        estimates.learn("train", works(1.0, f"site-{number}"), CORES, 0)
    assert estimates.predict("train", "site-9", 1.0, "process") == pytest.approx(1.0)
    assert estimates.colocation.gain(["model"], "model", "process", 2)
    estimates.learn("train", works(2.0, "site-9"), CORES, 1)
    assert estimates.predict("train", "site-9", 1.0, "process") == pytest.approx(1.0), "company changes nothing"
    assert not estimates.colocation.gain(["model"], "model", "process", 2)
    assert estimates.colocation.curve("model", "process") == pytest.approx({1: 1.0, 2: 1.0})


def test_of_two_that_share_unevenly_both_tell() -> None:
    """Each takes 4 s alone. One gets three quarters and is done after 5.33 s, the other, then alone, 2.67 s later."""
    estimates = Estimates("model")
    for _ in range(4):
        estimates.learn("train", works(2.0, "a", "b"), CORES, 0)
    estimates.learn("train", works(8 / 3, "a", "b"), CORES, 1)
    estimates.learn("train", works(4.0, "a", "b"), CORES, 1, alone_s=8 / 3)
    assert estimates.colocation.curve("model", "process")[2] == pytest.approx(1.0)
    estimates.learn("train", works(2.05, "a", "b"), CORES, 1, alone_s=4.0)
    assert estimates.colocation.curve("model", "process")[2] == pytest.approx(1.0), "hardly any company tells nothing"
