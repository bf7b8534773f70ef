"""Durations across kinds of devices: which sites a kind was given must not look like its speed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from scheduler import Durations

Jobs = list[tuple[str, str, float, float]]
"""(device, site, units, seconds)"""


def learned(jobs: Jobs, kind: str = "train") -> Durations:
    durations = Durations()
    for device, site, units, seconds in jobs:
        durations.observe(kind, site, units, seconds, device=device)
    return durations


def predict(durations: Durations, site: str, units: float, device: str) -> float:
    predicted = durations.predict("train", site, units, device)
    assert predicted is not None
    return predicted


def test_a_long_site_that_one_kind_has_to_itself_is_no_speed() -> None:
    """a: one site of 1 s and one of 100 s, for equal units; b: the site of 1 s. Both are equally fast."""
    durations = learned([("a", "shared", 10, 1.0), ("a", "long", 10, 100.0), ("b", "shared", 10, 1.0)])
    assert durations.speed("a", "b") == durations.speed("b", "a") == 1.0
    assert predict(durations, "long", 10, "b") == pytest.approx(predict(durations, "long", 10, "a"))


@pytest.mark.parametrize("seed", range(8))
def test_equal_threads_that_are_called_by_two_kinds_are_equal(seed: int) -> None:
    """12 sites of log-sd 1.27 that the units do not explain, noise 5%, dealt out anew in each of four rounds."""
    rng = np.random.default_rng(seed)
    usual = np.exp(rng.normal(0, 1.27, 12))
    durations = Durations()
    for _ in range(4):
        for place in rng.permutation(12):
            seconds = float(usual[place] * rng.lognormal(0, 0.05))
            durations.observe("train", f"s{place}", 50, seconds, device=str(rng.choice(["v100", "t4"])))
    assert durations.speed("t4", "v100") == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_two_rounds_teach_both_kinds(seed: int, speed: float) -> None:
    """24 sites of log-sd 1.27 that the units do not explain, dealt out anew in each round."""
    rng = np.random.default_rng(seed)
    usual = np.exp(rng.normal(0, 1.27, 24))
    jobs: Jobs = []
    for _ in range(2):
        for place in rng.permutation(24):
            device = str(rng.choice(["fast", "slow"]))
            seconds = usual[place] * rng.lognormal(0, 0.05) / (speed if device == "fast" else 1.0)
            jobs.append((device, f"s{place}", 50.0, float(seconds)))
    durations = learned(jobs)
    assert durations.speed("fast", "slow") == pytest.approx(speed, rel=0.1)
    for device, divisor in (("fast", speed), ("slow", 1.0)):
        wrong = [abs(predict(durations, f"s{i}", 50, device) / (usual[i] / divisor) - 1) for i in range(24)]
        assert np.median(wrong) < 0.1 and np.quantile(wrong, 0.9) < 0.2


def test_one_outlier_among_the_shared_sites_changes_little() -> None:
    jobs: Jobs = [("a", f"s{i}", 10, 4.0 + i) for i in range(5)]
    durations = learned(jobs + [("b", f"s{i}", 10, (4.0 + i) / (400 if i == 2 else 4)) for i in range(5)])
    assert durations.speed("b", "a") == pytest.approx(4.0, rel=0.02)


def test_a_difference_within_the_noise_reads_as_none() -> None:
    durations = learned([("a", "s", 10, 1.0), ("b", "s", 10, 1.2)])
    assert durations.speed("b", "a") == 1.0
    assert learned([("a", "s", 10, 1.0), ("b", "s", 10, 8.0)]).speed("a", "b") == pytest.approx(8.0, rel=0.1)


def test_sites_that_are_not_shared_do_not_bend_the_line_of_the_second_kind() -> None:
    """b is half as fast, and was also given five sites that take a tenth of what their units say."""
    jobs: Jobs = [("a", f"s{i}", 10.0 * (i + 1), 1.0 * (i + 1)) for i in range(6)]
    jobs += [("b", f"s{i}", 10.0 * (i + 1), 2.0 * (i + 1)) for i in range(3)]
    durations = learned(jobs + [("b", f"short{i}", 30.0, 0.6) for i in range(5)] * 2)
    assert predict(durations, "new", 30, "b") == pytest.approx(6.0, rel=0.1)
    assert predict(durations, "s5", 60, "b") == pytest.approx(12.0, rel=0.05)
    assert predict(durations, "short1", 30, "b") == pytest.approx(0.6, rel=0.05), "what it has shown itself"
    assert predict(durations, "short1", 30, "a") == pytest.approx(0.3, rel=0.1)


def test_before_anything_is_shared_lines_tell_as_far_as_the_choice_of_sites_does_not() -> None:
    """Ten times slower for what the units explain is believed; two sites that they do not explain tell nothing."""
    jobs: Jobs = [("a", f"s{i}", 10.0 * (i + 1), 1.0 * (i + 1)) for i in range(6)]
    durations = learned(jobs + [("b", f"t{i}", 10.0 * (i + 1), 10.0 * (i + 1)) for i in range(6)])
    assert predict(durations, "s2", 30, "b") == pytest.approx(30.0, rel=0.1)
    assert durations.speed("b", "a") == 1.0, "of speed only shared sites tell"
    durations = learned([("a", "s", 10, 1.0), ("b", "t", 10, 10.0)])
    assert predict(durations, "s", 10, "b") == predict(durations, "s", 10, "a")


def test_other_work_tells_the_ratio_until_this_one_does() -> None:
    durations = learned([("a", "s", 10, 1.0), ("b", "s", 10, 8.0)], kind="evaluate")
    assert durations.speed("a", "b") == pytest.approx(8.0, rel=0.1)
    for device in ("a", "b"):
        for site in ("s", "t", "u"):
            durations.observe("train", site, 10, 1.0, device=device)
    assert durations.speed("a", "b") == 1.0


def test_a_kind_beside_the_first_two_learns_from_the_one_that_knows_the_site() -> None:
    jobs: Jobs = [("a", "s", 10, 1.0), ("a", "t", 10, 1.0)]
    jobs += [(device, site, 10, seconds) for device, seconds in (("b", 3.0), ("c", 6.0)) for site in ("u", "v")]
    durations = learned([*jobs, ("b", "w", 10, 9.0)])
    assert predict(durations, "w", 10, "c") == pytest.approx(18.0, rel=0.15)


def test_what_was_saved_knows_the_shared_sites_again() -> None:
    rng = np.random.default_rng(0)
    durations = Durations()
    for number in range(400):
        site, device = f"s{rng.integers(80)}", str(rng.choice(["a", "b", "c"]))
        durations.observe("train", site, 10, float(rng.lognormal(0, 0.2)), device=device)
        if number % 40 == 0:
            restored = Durations.from_state(json.loads(json.dumps(durations.state())))
            assert [restored.speed(x, y) for x in "abc" for y in "abc"] == [
                durations.speed(x, y) for x in "abc" for y in "abc"
            ]
