from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import Memory

GB = 10**9

peaks = st.lists(st.tuples(st.sampled_from([1, 8, 32]), st.integers(0, 10**10), st.integers(0, 5)), max_size=20)


@given(peaks)
def test_estimates_cover_every_recent_peak_with_a_tenth_to_spare(seen: list[tuple[int, int, int]]) -> None:
    """Within five rounds what decays is less than a fifth of the lead over what is seen now."""
    memory = Memory()
    now = 0
    for batch_size, peak, rounds in seen:
        now += rounds // 5
        memory.observe("unet", batch_size, peak, now)
        predicted = memory.predict("unet", batch_size)
        assert predicted is not None and predicted >= math.floor(1.1 * peak)


@given(st.floats(0, 1e10), st.floats(0, 1e8), st.sets(st.integers(1, 256), min_size=1), st.integers(1, 256))
def test_a_batch_that_was_never_measured_is_covered_too(
    constant: float, per_sample: float, measured: set[int], asked: int
) -> None:
    """The true peak is a constant and a part per sample."""
    memory = Memory()
    for batch_size in measured:
        memory.observe("unet", batch_size, constant + per_sample * batch_size, 0)
    predicted = memory.predict("unet", asked)
    assert predicted is not None and predicted >= constant + per_sample * asked


@given(peaks, st.integers(1, 32), st.integers(0, 10**11))
def test_after_an_error_the_estimate_lies_above_what_was_admitted(
    seen: list[tuple[int, int, int]], batch_size: int, admitted: int
) -> None:
    memory = Memory()
    for size, peak, now in seen:
        memory.observe("unet", size, peak, now)
    memory.out_of_memory("unet", batch_size, admitted, 5)
    predicted = memory.predict("unet", batch_size)
    assert predicted is not None and predicted >= 1.25 * admitted


@settings(max_examples=50)
@given(peaks, peaks)
def test_what_was_saved_goes_on_the_same(before: list[tuple[int, int, int]], after: list[tuple[int, int, int]]) -> None:
    kept = Memory()
    for size, peak, now in before:
        kept.observe("unet", size, peak, now, "h100")
        kept.out_of_memory("vit", size, peak, now)
    restored = Memory.from_state(json.loads(json.dumps(kept.state())))
    for memory in (kept, restored):
        for size, peak, now in after:
            memory.observe("unet", size, peak, now, "h100")
    assert restored.state() == kept.state()


def test_by_hand() -> None:
    """Peaks of 2 and 3 GB at batches 8 and 16: 3.3 for 16 and all between, twice that for 32, 2.2 for 4."""
    memory = Memory()
    assert memory.predict("unet", 8) is None
    memory.observe("unet", 8, 2 * GB, 0)
    memory.observe("unet", 16, 3 * GB, 0)
    assert {size: memory.predict("unet", size) for size in (4, 8, 12, 16, 32)} == {
        4: pytest.approx(2.2 * GB),
        8: pytest.approx(2.2 * GB),
        12: pytest.approx(3.3 * GB),
        16: pytest.approx(3.3 * GB),
        32: pytest.approx(6.6 * GB),
    }
    assert memory.predict("vit", 8) is None


def test_a_freak_loses_half_of_its_lead_in_twenty_rounds_of_newer_peaks() -> None:
    memory = Memory()
    memory.observe("unet", 8, 8 * GB, 0)
    memory.observe("unet", 8, 1 * GB, 20)
    assert memory.predict("unet", 8) == pytest.approx(1.1 * 4 * GB)
    for now in range(21, 41):
        for _ in range(100):
            memory.observe("unet", 8, 1 * GB, now)
    assert memory.predict("unet", 8) == pytest.approx(1.1 * 2 * GB)
    memory.observe("unet", 8, 1 * GB, 200)
    assert memory.predict("unet", 8) == pytest.approx(1.1 * GB)


def test_peaks_do_not_decay_by_themselves() -> None:
    memory = Memory()
    memory.observe("unet", 8, 8 * GB, 0)
    memory.observe("vit", 8, 1 * GB, 1000)
    assert memory.predict("unet", 8) == pytest.approx(8.8 * GB)


def test_what_an_error_raised_holds_for_twenty_rounds_then_forty() -> None:
    memory = Memory()
    memory.observe("unet", 8, 2 * GB, 0)
    memory.out_of_memory("unet", 8, 4 * GB, 0)
    for now, expected in ((19, 5.0), (20, 2.2)):
        memory.observe("unet", 8, 2 * GB, now)
        assert memory.predict("unet", 8) == pytest.approx(expected * GB)
    memory.out_of_memory("unet", 8, 4 * GB, 20)
    for now, expected in ((59, 5.0), (60, 2.2)):
        memory.observe("unet", 8, 2 * GB, now)
        assert memory.predict("unet", 8) == pytest.approx(expected * GB)


def test_an_error_speaks_for_larger_batches_too() -> None:
    memory = Memory()
    memory.observe("unet", 32, 2 * GB, 0)
    memory.out_of_memory("unet", 16, 4 * GB, 0)
    predicted = memory.predict("unet", 32)
    assert predicted is not None and predicted >= 5 * GB


def test_a_kind_of_device_without_measurement_needs_what_the_hungriest_does() -> None:
    memory = Memory()
    memory.observe("unet", 8, 2 * GB, 0, "h100")
    memory.observe("unet", 8, 3 * GB, 0, "a100")
    assert memory.predict("unet", 8, "h100") == pytest.approx(2.2 * GB)
    assert memory.predict("unet", 8, "t4") == pytest.approx(3.3 * GB)


def test_old_batch_sizes_make_room() -> None:
    memory = Memory()
    for batch_size in range(1, 1001):
        memory.observe("unet", batch_size, GB, 0)
    assert len(memory.state()["peaks"]) <= 64


def test_what_is_no_peak_and_another_version_are_refused() -> None:
    with pytest.raises(AssertionError, match="at least 0"):
        Memory().observe("unet", 8, math.nan, 0)
    with pytest.raises(AssertionError, match="batch of 0"):
        Memory().observe("unet", 0, GB, 0)
    with pytest.raises(ValueError, match="version 7"):
        Memory.from_state({"version": 7})
