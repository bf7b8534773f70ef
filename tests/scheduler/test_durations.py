from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import Durations

Jobs = list[tuple[str, float, float]]

observations: st.SearchStrategy[Jobs] = st.lists(
    st.tuples(st.sampled_from("abc"), st.floats(0, 500), st.floats(0, 100)), max_size=30
)
positive: st.SearchStrategy[Jobs] = st.lists(
    st.tuples(st.sampled_from("abc"), st.floats(0, 500), st.floats(1e-3, 100)), min_size=1, max_size=30
)


def learned(jobs: Jobs) -> Durations:
    durations = Durations()
    for site, units, seconds in jobs:
        durations.observe("train", site, units, seconds)
    return durations


def predict(durations: Durations, site: str, units: float, device: str = "", kind: str = "train") -> float:
    predicted = durations.predict(kind, site, units, device)
    assert predicted is not None
    return predicted


def errors(durations: Durations, true: dict[str, tuple[float, float]]) -> list[float]:
    """Absolute relative errors over sites, each with its units and true seconds."""
    return [abs(predict(durations, site, units) / seconds - 1) for site, (units, seconds) in true.items()]


@settings(max_examples=60)
@given(observations, st.floats(0, 500))
def test_predictions_are_positive_finite_and_grow_with_the_work(jobs: Jobs, units: float) -> None:
    durations = learned(jobs)
    for site in ("a", "b", "c", "new"):
        if not jobs:
            assert durations.predict("train", site, units) is None
            assert durations.p90("train", site, units) is None
            continue
        upper = durations.p90("train", site, units)
        assert upper is not None
        assert 0 < predict(durations, site, units) < predict(durations, site, units + 10) < math.inf
        assert predict(durations, site, units) <= upper < math.inf


@settings(max_examples=60)
@given(positive, st.sampled_from([1e-3, 0.5, 60.0, 1e3]), st.floats(0, 500))
def test_in_another_unit_of_time_all_predictions_are_the_same(jobs: Jobs, scale: float, units: float) -> None:
    durations, scaled = learned(jobs), learned([(site, done, seconds * scale) for site, done, seconds in jobs])
    for site in ("a", "b", "new"):
        assert predict(scaled, site, units) == pytest.approx(scale * predict(durations, site, units), rel=1e-3)


@settings(max_examples=40)
@given(positive, positive)
def test_what_was_saved_goes_on_with_the_same_bits(before: Jobs, after: Jobs) -> None:
    kept = learned(before)
    kept.observe("train", "a", 10, 1.0, device="gpu")
    restored = Durations.from_state(json.loads(json.dumps(kept.state())))
    assert restored.state() == kept.state()
    for durations in (kept, restored):
        for site, units, seconds in after:
            durations.observe("train", site, units, seconds, device="gpu" if seconds < 50 else "")
    assert restored.state() == kept.state()
    assert restored.error() == kept.error()


@settings(max_examples=25)
@given(positive)
def test_a_prediction_goes_by_all_that_was_learned_though_one_was_made_before(jobs: Jobs) -> None:
    """On the kind of device that was seen first, and on one that goes by it."""
    durations = Durations()
    for number, (site, units, seconds) in enumerate(jobs):
        durations.observe("train", site, units, seconds, device="gpu" if number % 3 == 2 else "")
        anew = Durations.from_state(durations.state())
        for device in ("", "gpu"):
            for other in ("a", "b", "new"):
                assert predict(durations, other, 10, device) == predict(anew, other, 10, device)


@settings(max_examples=25)
@given(st.floats(0, 2), st.floats(1e-3, 0.1), st.lists(st.integers(1, 1000), min_size=4, max_size=12, unique=True))
def test_an_exact_line_is_found(overhead_s: float, unit_s: float, sizes: list[int]) -> None:
    """Sites without factors of their own: a new one of any size among theirs is predicted."""
    durations = Durations()
    for _ in range(6):
        for size in sizes:
            durations.observe("train", str(size), size, overhead_s + unit_s * size)
    for units in (min(sizes), sum(sizes) / len(sizes), max(sizes)):
        assert predict(durations, "new", units) == pytest.approx(overhead_s + unit_s * units, rel=0.05)


@settings(max_examples=25)
@given(st.lists(st.floats(-2, 2), min_size=3, max_size=10), st.floats(0.01, 2), st.integers(0, 100))
def test_sites_with_factors_are_found_though_their_work_varies(logs: list[float], overhead_s: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    factors = np.exp(logs)
    durations = Durations()
    for _ in range(40):
        for place, factor in enumerate(factors):
            units = float(rng.integers(20, 500))
            durations.observe("train", str(place), units, factor * (overhead_s + 0.01 * units))
    for place, factor in enumerate(factors):
        for units in (20, 200, 500):
            assert predict(durations, str(place), units) == pytest.approx(factor * (overhead_s + 0.01 * units), rel=0.1)


def test_nothing_is_known_before_the_first_job_of_a_kind_and_model() -> None:
    durations = Durations()
    assert durations.predict("train", "a", 10) is None
    durations.observe("train", "a", 10, 2.0, model="unet")
    assert durations.predict("train", "a", 10, model="unet") == pytest.approx(2.0)
    assert durations.predict("train", "a", 10) is None
    assert durations.predict("evaluate", "a", 10, model="unet") is None


def test_after_one_job_a_new_site_is_thought_to_be_like_it_with_a_tenth_of_overhead() -> None:
    """2 s for 10 units: 0.2 s of overhead and 0.18 s per unit, so 30 units take 5.6 s."""
    durations = learned([("a", 10, 2.0)])
    assert predict(durations, "new", 30) == pytest.approx(5.6)


def test_two_jobs_draw_the_line_through_both() -> None:
    """2 s for 10 units and 3.8 s for 20: again 0.2 s and 0.18 s per unit, so 100 units take 18.2 s."""
    durations = learned([("a", 10, 2.0), ("b", 20, 3.8)])
    assert predict(durations, "new", 100) == pytest.approx(18.2)


def test_what_took_long_in_company_stands_in_until_something_was_alone() -> None:
    durations = Durations()
    durations.observe("train", "a", 10, 4.0, device="cores", is_alone=False)
    assert not durations.knows("train", "cores") and durations.predict("train", "a", 10, "cores") == pytest.approx(4.0)
    durations = Durations.from_state(json.loads(json.dumps(durations.state())))
    assert durations.predict("train", "a", 10, "cores") == pytest.approx(4.0)
    durations.observe("train", "b", 10, 1.0, device="cores")
    assert durations.knows("train", "cores") and not durations.knows("train", "gpu")
    for site in "ab":
        assert durations.predict("train", site, 10, "cores") == pytest.approx(1.0), "company says nothing any more"
        assert durations.predict("train", site, 10, "gpu") == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_what_is_no_duration_is_refused(bad: float) -> None:
    durations = Durations()
    with pytest.raises(AssertionError, match="at least 0"):
        durations.observe("train", "a", 1, bad)
    with pytest.raises(AssertionError, match="at least 0"):
        durations.observe("train", "a", bad, 1)
    assert durations.predict("train", "a", 1) is None


def test_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 0"):
        Durations.from_state({"version": 0})


@pytest.mark.parametrize("num_workers", [1, 2, 4, 8])
def test_slow_first_calls_of_all_workers_are_soon_forgotten(num_workers: int) -> None:
    """Each worker's first job pays for imports, 100 times the usual 0.1 s; sites are equal, noise 5%."""
    rng = np.random.default_rng(num_workers)
    durations = Durations()
    for place in range(num_workers):
        durations.observe("train", f"s{place}", 10, 10.0 * rng.lognormal(0, 0.05))
    after = []
    for place in range(10):
        durations.observe("train", f"t{place}", 10, 0.1 * rng.lognormal(0, 0.05))
        after.append(predict(durations, "new", 10) / 0.1)
    assert after[-1] == pytest.approx(1.0, abs=0.25)
    if num_workers == 1:
        assert after == pytest.approx([1.0] * 10, abs=0.25)
    for place in range(num_workers):
        durations.observe("train", f"s{place}", 10, 0.1)
        assert predict(durations, f"s{place}", 10) == pytest.approx(0.1, rel=0.1)


def test_one_job_says_no_more_of_a_site_than_sites_differ() -> None:
    """30 sites of log-sd 0.3, and one whose only job paid for imports: it is not thought to be that slow."""
    rng = np.random.default_rng(0)
    durations = learned([("first", 10, 100.0), *((f"s{i}", 10.0, rng.lognormal(0, 0.3)) for i in range(30))])
    assert 1.0 < predict(durations, "first", 10) < math.exp(5 * 0.3)


def test_the_one_site_that_stands_apart_is_known_after_two_jobs() -> None:
    """30 equal sites and one that takes three times as long for its units."""
    rng = np.random.default_rng(0)
    true = {f"s{i}": (10.0, 3.0 if i == 7 else 1.0) for i in range(31)}
    durations = Durations()
    play = rounds_of(rng, true, 0.05)
    play(durations)
    play(durations)
    assert predict(durations, "s7", 10) == pytest.approx(3.0, rel=0.1)
    assert predict(durations, "new", 10) == pytest.approx(1.0, rel=0.1)


def test_an_outlier_late_in_the_run_changes_little() -> None:
    durations = learned([(site, 10, 1.0 + 0.05 * (-1) ** turn) for turn in range(10) for site in "abc"])
    durations.observe("train", "a", 10, 100.0)
    for site in ("a", "b", "new"):
        assert predict(durations, site, 10) == pytest.approx(1.0, rel=0.1)


def rounds_of(
    rng: np.random.Generator, true: dict[str, tuple[float, float]], noise: float
) -> Callable[[Durations], Jobs]:
    """Make a round: every site once, in random order, its true seconds times log-normal noise."""

    def play(durations: Durations) -> Jobs:
        names = rng.permutation(sorted(true))
        jobs = [(str(name), true[name][0], true[name][1] * rng.lognormal(0, noise)) for name in names]
        for site, units, seconds in jobs:
            durations.observe("train", site, units, seconds)
        return jobs

    return play


@pytest.mark.parametrize("explained", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_two_rounds_of_unequal_sites_teach_each_site(seed: int, explained: bool) -> None:
    """23 sites, log-sd 1.27, noise 5%. A site's mean of two has an error of 3.5% (90%: 5.8%), units or none."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.normal(0, 1.27, 23))
    true = {f"s{i}": (100 * size if explained else 50.0, 0.05 + size) for i, size in enumerate(sizes)}
    durations = Durations()
    play = rounds_of(rng, true, 0.05)
    play(durations)
    play(durations)
    found = errors(durations, true)
    assert np.median(found) < 0.045
    assert np.quantile(found, 0.9) < 0.10


def linear(jobs: Jobs) -> Callable[[str, float], float]:
    """The linear fit of all jobs by least squares."""
    units, seconds = np.array([job[1] for job in jobs]), np.array([job[2] for job in jobs])
    slope, start = np.polyfit(units, seconds, 1)
    return lambda _, units: float(start + slope * units)


def means(jobs: Jobs) -> Callable[[str, float], float]:
    """Each site's own mean."""
    seen: dict[str, list[float]] = {}
    for site, _, seconds in jobs:
        seen.setdefault(site, []).append(seconds)
    return lambda site, _: float(np.mean(seen[site]))


@pytest.mark.parametrize("own_sd", [0.0, 0.3, 1.27])
def test_no_worse_than_a_linear_fit_or_the_sites_means(own_sd: float) -> None:
    """Log-normal sizes (log-sd 1.27) with factors that the units do not explain, noise 5%; 8 seeds of 23 sites."""
    found: dict[tuple[int, str], list[float]] = {}
    for seed in range(8):
        rng = np.random.default_rng(seed)
        sizes, own = np.exp(rng.normal(4, 1.27, 23)), np.exp(rng.normal(0, own_sd, 23))
        true = {
            f"s{i}": (size, factor * (0.05 + 0.002 * size))
            for i, (size, factor) in enumerate(zip(sizes, own, strict=True))
        }
        durations, jobs = Durations(), Jobs()
        play = rounds_of(rng, true, 0.05)
        for number in range(1, 6):
            jobs += play(durations)
            if number in (2, 5):
                found.setdefault((number, "ours"), []).extend(errors(durations, true))
                for name, rival in (("linear", linear(jobs)), ("means", means(jobs))):
                    wrong = [abs(rival(site, units) / seconds - 1) for site, (units, seconds) in true.items()]
                    found.setdefault((number, name), []).extend(wrong)
    for number in (2, 5):
        ours = float(np.median(found[number, "ours"]))
        assert ours <= 1.05 * np.median(found[number, "means"])
        assert ours <= 1.05 * np.median(found[number, "linear"]) + 0.001
        assert np.quantile(found[number, "ours"], 0.9) <= 1.05 * np.quantile(found[number, "means"], 0.9)


@pytest.mark.parametrize("num_sites", [1, 5, 23])
@pytest.mark.parametrize("change", [2.0, 0.5])
def test_a_device_that_changes_speed_is_followed_within_rounds(num_sites: int, change: float) -> None:
    rng = np.random.default_rng(num_sites)
    sizes = rng.integers(10, 500, num_sites)
    true = {f"s{i}": (float(size), 0.02 + 0.003 * size) for i, size in enumerate(sizes)}
    changed = {site: (units, change * seconds) for site, (units, seconds) in true.items()}
    durations = Durations()
    play, play_changed = rounds_of(rng, true, 0.05), rounds_of(rng, changed, 0.05)
    for _ in range(6):
        play(durations)
    for _ in range(3):
        play_changed(durations)
    assert np.median(errors(durations, changed)) < 0.1
    assert max(errors(durations, changed)) < 0.25
    for _ in range(3):
        play_changed(durations)
    assert max(errors(durations, changed)) < 0.15


def test_another_kind_of_device_begins_with_what_is_known() -> None:
    """Unseen: as on the other kind, or by the ratio in other work; one job tells the ratio for all sites."""
    durations = Durations()
    factors = {"a": 1.0, "b": 4.0, "c": 0.5, "d": 2.0, "e": 1.5}
    for _ in range(3):
        for site, factor in factors.items():
            durations.observe("train", site, 100, 10.0 * factor, device="h100")
    assert predict(durations, "b", 100, "cpu") == predict(durations, "b", 100, "h100") == pytest.approx(40, rel=0.02)
    for site in "ab":
        durations.observe("evaluate", site, 100, 1.0, device="h100")
        durations.observe("evaluate", site, 100, 8.0, device="cpu")
    assert predict(durations, "b", 100, "cpu") == pytest.approx(320, rel=0.1)
    durations.observe("train", "c", 100, 30.0, device="cpu")
    assert predict(durations, "b", 100, "cpu") == pytest.approx(240, rel=0.1)
    assert predict(durations, "b", 100, "h100") == pytest.approx(40, rel=0.02)


@pytest.mark.parametrize(("noise", "share", "slower"), [(0.05, 0.0, 1.0), (0.05, 0.2, 1.3), (0.15, 0.15, 2.0)])
def test_nine_jobs_of_ten_keep_the_upper_prediction(noise: float, share: float, slower: float) -> None:
    """A share of the jobs takes longer, so that the errors are far from normal."""
    rng = np.random.default_rng(1)
    true = dict(enumerate(np.exp(rng.normal(0, 1, 30))))
    durations = Durations()
    kept = []
    for number in range(40):
        for place, usual_s in true.items():
            seconds = usual_s * rng.lognormal(0, noise) * (slower if rng.random() < share else 1.0)
            upper = durations.p90("train", str(place), 10)
            if number >= 10:
                assert upper is not None
                kept.append(seconds <= upper)
            durations.observe("train", str(place), 10, seconds)
    assert np.mean(kept) == pytest.approx(0.9, abs=0.03)


def test_errors_are_those_of_predictions_made_before() -> None:
    """The first job has none; 11 s instead of 10 is an error of 1/11, 10 again of about 0; places are 5% wide."""
    durations = Durations()
    assert durations.error() == {}
    durations.observe("train", "a", 10, 10.0)
    assert durations.error() == {}
    durations.observe("train", "a", 10, 11.0)
    accuracy = durations.error()["train"]
    assert accuracy.num == 1
    assert accuracy.median == accuracy.p90 == pytest.approx(1 / 11, rel=0.03)
    for _ in range(19):
        durations.observe("train", "b", 10, predict(durations, "b", 10))
    accuracy = durations.error()["train"]
    assert accuracy.num == 20
    assert accuracy.median < 0.001
    assert set(durations.error()) == {"train"}


def test_memory_is_bounded_by_the_number_of_sites_and_not_of_jobs() -> None:
    durations = Durations()
    sizes = []
    for number in range(400):
        durations.observe("train", f"s{number % 50}", 10, 1.0 + number % 7)
        if number >= 200:
            sizes.append(len(json.dumps(durations.state())))
    assert max(sizes) < 1.2 * min(sizes)


def test_largest_first_does_not_bend_the_line() -> None:
    """500 sites, longest first as dispatched: the sample that draws the line stays even, so the smallest are right."""
    durations = Durations()
    for _ in range(2):
        for size in range(500, 0, -1):
            durations.observe("train", f"s{size}", size, 0.5 + 0.01 * size)
    for units in (1, 50, 500):
        assert predict(durations, "new", units) == pytest.approx(0.5 + 0.01 * units, rel=0.05)


def test_one_round_longest_first_teaches_sites_that_units_do_not_explain() -> None:
    """200 sites of equal units, log-sd 1.27, noise 5%: each is known by its one job, the shortest at the end too."""
    rng = np.random.default_rng(0)
    seconds = np.sort(np.exp(rng.normal(0, 1.27, 200)))[::-1]
    true = {f"s{i}": (50.0, float(usual_s)) for i, usual_s in enumerate(seconds)}
    durations = Durations()
    for site, (units, usual_s) in true.items():
        durations.observe("train", site, units, usual_s * rng.lognormal(0, 0.05))
    assert np.quantile(errors(durations, true), 0.9) < 0.12
