from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import Colocation
from scheduler.colocation import WAIT, WAIT_AFTER_ERROR, WINDOW

events = st.lists(
    st.one_of(
        st.tuples(
            st.just("rate"), st.sampled_from("ab"), st.lists(st.sampled_from("ab"), max_size=2), st.floats(0.1, 10)
        ),
        st.tuples(st.just("start"), st.sampled_from("ab"), st.lists(st.sampled_from("ab"), min_size=1, max_size=2)),
        st.tuples(st.just("error"), st.sampled_from("ab"), st.lists(st.sampled_from("ab"), min_size=1, max_size=2)),
    ),
    max_size=40,
)


def test_an_eager_kind_begins_in_company_then_compares() -> None:
    eager = Colocation(["cores"])
    assert eager.gain(["m"], "m", "cores", 2) and not Colocation().gain(["m"], "m", "cores", 2)
    for _ in range(WINDOW):
        assert eager.gain(["m"], "m", "cores", 2)
        eager.started(["m"], "m", "cores")
        eager.tried("m", ["m"], "cores")
    assert not eager.gain(["m"], "m", "cores", 2), "that was company enough; now some alone"
    eager = Colocation.from_state(json.loads(json.dumps(eager.state())), ["cores"])
    for _ in range(3):
        assert not eager.gain(["m"], "m", "cores", 2)
        eager.observe("m", [], 1.0, "cores")
    assert eager.gain(["m"], "m", "cores", 2), "there is something to compare company with, and no rate of it"
    eager.started(["m"], "m", "cores")
    eager.observe("m", ["m"], 0.54, "cores")
    assert not eager.gain(["m"], "m", "cores", 2), "two at 0.54 do not beat one by a tenth"
    again = Colocation.from_state(eager.state(), ["cores"])
    for _ in range(WINDOW):
        again.observe("m", ["m"], 0.9, "cores")
    assert again.gain(["m"], "m", "cores", 2), "two at 0.9 do"
    assert again.gain(["m", "m"], "m", "cores", 3), "and so might three"


def test_an_eager_kind_tries_no_larger_company_than_one_of_which_a_smaller_has_not_paid() -> None:
    eager = Colocation(["cores"])
    for _ in range(3):
        eager.observe("m", [], 1.0, "cores")
    assert eager.gain(["m"], "m", "cores", 3) and not eager.gain(["m", "m"], "m", "cores", 3)
    eager.observe("m", ["m"], 0.5, "cores")
    assert not eager.gain(["m", "m"], "m", "cores", 3)


def paying(num_tried: int = WINDOW) -> Colocation:
    """Give an eager kind on which two at 0.9 pay, tried so often before one was alone."""
    eager = Colocation(["cores"])
    for _ in range(num_tried):
        eager.tried("m", ["m"], "cores")
    for _ in range(3):
        eager.observe("m", [], 1.0, "cores")
    return eager


@pytest.mark.parametrize("num_tried", [0, WINDOW])
def test_on_an_eager_kind_what_jobs_take_alone_is_measured_anew_while_company_pays(num_tried: int) -> None:
    """A machine that was slow when one job was alone, and is not any more, would else be shared for ever."""
    eager, again = paying(num_tried), []
    for number in range(8 * WAIT):
        if not eager.gain(["m"], "m", "cores", 2):
            again.append(number)
            assert not eager.gain(["m", "m"], "m", "cores", 3), "nor a third beside two that are there still"
            eager.observe("m", [], 1.0, "cores")
        else:
            eager.observe("m", ["m"], 0.9, "cores")
    assert [number for number in again if number - 1 not in again] == [17, 49, 113], "waits of 16, 32, 64"
    assert len(again) == 9, "three alone each time"
    while eager.gain(["m"], "m", "cores", 2):
        eager.observe("m", ["m"], 0.9, "cores")
    for _ in range(3):
        eager.observe("m", [], 1.7, "cores")  # one alone was slow then, and is not now
    assert eager.gain(["m"], "m", "cores", 2), "company is tried once more, for its rate is of before as well"
    eager.observe("m", ["m"], 0.9, "cores")
    assert not eager.gain(["m"], "m", "cores", 2)
    eager = Colocation.from_state(json.loads(json.dumps(eager.state())), ["cores"])
    assert not eager.gain(["m"], "m", "cores", 2)


def test_where_devices_have_memory_of_their_own_company_that_pays_is_not_given_up_to_see() -> None:
    colocation = Colocation()
    for _ in range(3):
        colocation.observe("m", [], 1.0, "gpu")
    for _ in range(8 * WAIT):
        colocation.observe("m", ["m"], 0.9, "gpu")
        assert colocation.gain(["m"], "m", "gpu", 2)


def play(colocation: Colocation, script: list[tuple[Any, ...]]) -> Colocation:
    for what, model, others, *rate in script:
        if what == "rate":
            colocation.observe(model, others, rate[0], "gpu")
        elif what == "start":
            colocation.started(others, model, "gpu")
        else:
            colocation.out_of_memory([*others, model], "gpu")
    return colocation


def alone(*models: str) -> Colocation:
    """Three rates of each model alone: 1."""
    colocation = Colocation()
    for model in models:
        for _ in range(3):
            colocation.observe(model, (), 1.0, "gpu")
    return colocation


def pass_time(colocation: Colocation, num: int) -> None:
    for _ in range(num):
        colocation.observe("x", (), 1.0, "gpu")


@given(events, st.sampled_from("ab"), st.lists(st.sampled_from("ab"), max_size=4), st.integers(1, 4))
def test_places_and_memory_are_never_exceeded(
    script: list[tuple[Any, ...]], candidate: str, running: list[str], places: int
) -> None:
    colocation = play(Colocation(), script)
    assert colocation.gain([], candidate, "gpu", places)
    if len(running) >= places and running:
        assert not colocation.gain(running, candidate, "gpu", places)
    if running:
        assert not colocation.gain(running, candidate, "gpu", 9, need_bytes=0, free_bytes=10)
        assert not colocation.gain(running, candidate, "gpu", 9, need_bytes=11, free_bytes=10)
        fits = colocation.gain(running, candidate, "gpu", 9, need_bytes=10, free_bytes=10)
        assert fits == colocation.gain(running, candidate, "gpu", 9)


@given(events, st.permutations(["a", "a", "b"]))
def test_a_question_changes_nothing_and_order_does_not_matter(
    script: list[tuple[Any, ...]], company: list[str]
) -> None:
    colocation = play(Colocation(), script)
    before = colocation.state()
    assert colocation.gain(company, "b", "gpu", 9) == colocation.gain(sorted(company), "b", "gpu", 9)
    assert colocation.state() == before


@settings(max_examples=60)
@given(events, events)
def test_what_was_saved_goes_on_the_same(before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]) -> None:
    kept = play(Colocation(), before)
    restored = Colocation.from_state(json.loads(json.dumps(kept.state())))
    assert play(restored, after).state() == play(kept, after).state()


@given(st.floats(0.01, 1.0), st.floats(0.01, 1.0), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_a_measured_pair_joins_if_it_gains_a_tenth_whatever_the_units_of_the_rates(
    share_a: float, share_b: float, unit_a: float, unit_b: float
) -> None:
    colocation = Colocation()
    for _ in range(3):
        colocation.observe("a", (), unit_a, "gpu")
        colocation.observe("b", (), unit_b, "gpu")
    colocation.observe("a", "b", share_a * unit_a, "gpu")
    colocation.observe("b", "a", share_b * unit_b, "gpu")
    if abs(share_a + share_b - 1.1) > 1e-6:
        assert colocation.gain("a", "b", "gpu", 2) == (share_a + share_b > 1.1)
        assert colocation.gain("b", "a", "gpu", 2) == (share_a + share_b > 1.1)


def test_nobody_joins_before_the_rates_alone_are_known() -> None:
    colocation = Colocation()
    assert not colocation.gain(["a"], "a", "gpu", 4)
    for _ in range(3):
        assert not colocation.gain(["a"], "a", "gpu", 4)
        colocation.observe("a", (), 1.0, "gpu")
    assert colocation.gain(["a"], "a", "gpu", 4)
    assert not colocation.gain(["a"], "b", "gpu", 4)
    assert not colocation.gain(["a"], "a", "other", 4)


def test_one_trial_at_a_time() -> None:
    """A started trial holds back the same and all others; its measurement decides, and time brings the next."""
    colocation = alone("a", "b")
    colocation.started(["a"], "a", "gpu")
    assert not colocation.gain(["a"], "a", "gpu", 4)
    assert not colocation.gain(["a"], "b", "gpu", 4)
    colocation.observe("a", ["a"], 0.8, "gpu")
    assert colocation.gain(["a"], "a", "gpu", 4)
    assert not colocation.gain(["a"], "b", "gpu", 4)
    pass_time(colocation, WAIT)
    assert colocation.gain(["a"], "b", "gpu", 4)


def test_the_next_step_is_tried_only_from_a_company_that_is_known() -> None:
    """Two at 0.8 each make 1.6; three at 0.56 make 1.68, which is not a tenth more."""
    colocation = alone("a")
    assert not colocation.gain(["a", "a"], "a", "gpu", 4)
    colocation.observe("a", ["a"], 0.8, "gpu")
    pass_time(colocation, WAIT)
    assert colocation.gain(["a", "a"], "a", "gpu", 4)
    colocation.observe("a", ["a", "a"], 0.56, "gpu")
    assert not colocation.gain(["a", "a"], "a", "gpu", 4)
    assert colocation.gain(["a"], "a", "gpu", 4)
    assert colocation.curve("a", "gpu") == {1: 1.0, 2: pytest.approx(1.6), 3: pytest.approx(1.68)}


def test_a_company_without_gain_is_tried_again_after_waits_that_double() -> None:
    colocation = alone("a")
    waits = []
    for _ in range(4):
        colocation.started(["a"], "a", "gpu")
        colocation.observe("a", ["a"], 0.5, "gpu")
        waited = 1
        while not colocation.gain(["a"], "a", "gpu", 2):
            pass_time(colocation, 1)
            waited += 1
        waits.append(waited)
    assert waits == [WAIT, 2 * WAIT, 4 * WAIT, 8 * WAIT]


def test_a_trial_that_was_never_measured_waits_longer_each_time() -> None:
    colocation = alone("a")
    for wait in (WAIT, 2 * WAIT):
        colocation.started(["a"], "a", "gpu")
        pass_time(colocation, wait - 1)
        assert not colocation.gain(["a"], "a", "gpu", 2)
        pass_time(colocation, 1)
        assert colocation.gain(["a"], "a", "gpu", 2)


def test_after_an_error_the_pair_and_what_contains_it_wait_longer_each_time() -> None:
    colocation = alone("a", "b")
    colocation.observe("a", ["b"], 0.9, "gpu")
    colocation.observe("a", ["a"], 0.6, "gpu")
    colocation.observe("a", ["a", "b"], 0.9, "gpu")
    assert colocation.gain(["a"], "b", "gpu", 4)
    assert colocation.gain(["a", "a"], "b", "gpu", 4)
    for wait in (WAIT_AFTER_ERROR, 2 * WAIT_AFTER_ERROR):
        colocation.out_of_memory(["b", "a"], "gpu")
        pass_time(colocation, wait - 1)
        assert not colocation.gain(["a"], "b", "gpu", 4)
        assert not colocation.gain(["a", "a"], "b", "gpu", 4)
        assert colocation.gain(["a"], "a", "gpu", 4)
        pass_time(colocation, 1)
        assert colocation.gain(["a"], "b", "gpu", 4)
        assert colocation.gain(["a", "a"], "b", "gpu", 4)


def test_one_slow_job_in_company_does_not_part_a_pair() -> None:
    colocation = alone("a")
    for rate in (0.8, 0.8, 0.01, 0.8):
        colocation.observe("a", ["a"], rate, "gpu")
        assert colocation.gain(["a"], "a", "gpu", 2)


def test_companies_are_forgotten_when_there_are_too_many() -> None:
    colocation = Colocation()
    for number in range(3000):
        colocation.observe("a", [f"m{number}"], 1.0, "gpu")
        colocation.started([f"m{number}"], "b", "gpu")
        colocation.out_of_memory(["a", f"m{number}"], "gpu")
    (kind,) = colocation.state()["kinds"].values()
    assert max(len(kind[what]) for what in ("rates", "waits", "errors")) <= 1024


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_rate_is_refused(rate: float) -> None:
    with pytest.raises(AssertionError, match="positive"):
        Colocation().observe("a", (), rate, "gpu")


def test_a_lone_job_and_another_version_are_refused() -> None:
    with pytest.raises(AssertionError, match="no company"):
        Colocation().out_of_memory(["a"], "gpu")
    with pytest.raises(ValueError, match="version None"):
        Colocation.from_state({})
