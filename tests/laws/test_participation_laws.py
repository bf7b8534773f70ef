"""What every participation policy keeps; the folder is listed.

tests/tiers/test_hub_rounds_participation.py has the laws of a hub's whole history under it.
"""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest
from hub_schedules import SETTINGS, policy_of
from hypothesis import given, settings
from hypothesis import strategies as st

from hierfl.kinds import load, names
from scheduler.participation import Candidates, Ending, Limits, Participation, RoundView, needed
from scheduler.participations.sample import Sample

KINDS = names("participation")
each_kind = pytest.mark.parametrize("kind", KINDS)

weights_of = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 10**6), min_size=1, max_size=12)
seconds = st.lists(st.floats(0.001, 1e4), max_size=20)


@st.composite
def views(draw: st.DrawFn) -> RoundView:
    """Figures that a round may have: members are in, waited for, late, lost, or at work for nothing."""
    total = draw(st.integers(1, 1000))
    num_in, num_waiting, num_late, num_lost, rest = (draw(st.integers(0, 5)) for _ in range(5))
    close_s = draw(st.sampled_from([1.0, math.inf]))
    return RoundView(
        num_members=max(1, num_in + num_waiting + num_late + num_lost + rest),
        total_weight=total,
        num_waiting=num_waiting,
        num_late=num_late,
        num_lost=num_lost,
        num_in=num_in,
        weight_in=draw(st.integers(num_in, total)) if 0 < num_in <= total else num_in,
        num_updates=num_in + draw(st.integers(0, num_in)),
        elapsed_s=draw(st.sampled_from([0.0, 1.0, 2.0])),
        limits=Limits(close_s, draw(st.sampled_from([2.0, math.inf]))),
    )


def test_the_folder_is_not_empty() -> None:
    assert {"all", "buffered", "deadline", "sample"} <= set(KINDS)
    assert set(SETTINGS) <= set(KINDS)


@each_kind
def test_a_policy_is_a_frozen_value(kind: str) -> None:
    policy = load("participation", kind)()
    assert isinstance(policy, Participation)
    assert type(policy).__dataclass_params__.frozen
    assert policy == load("participation", kind)() and hash(policy) == hash(load("participation", kind)())


@each_kind
@settings(max_examples=60)
@given(free=weights_of, unable=weights_of, seed=st.integers(0, 99), number=st.integers(0, 99))
def test_it_asks_somebody_who_is_free_and_says_why_it_leaves_others_out(
    kind: str, free: dict[str, int], unable: dict[str, int], seed: int, number: int
) -> None:
    policy = policy_of(kind, Random(seed))
    unable = {name: weight for name, weight in unable.items() if name not in free}
    choice = policy.choose(Candidates("w/h", number, seed, free, unable))
    assert choice.asked and set(choice.asked) <= set(free) and len(set(choice.asked)) == len(choice.asked)
    assert not set(choice.asked) & set(choice.skipped)
    assert set(choice.skipped) <= {*free, *unable} and all(choice.skipped.values())
    assert set(choice.asked) == set(free) - set(choice.skipped)


@each_kind
@settings(max_examples=40)
@given(free=weights_of, seed=st.integers(0, 99), order=st.randoms(use_true_random=False))
def test_a_choice_repeats_itself_whatever_the_order_of_members(
    kind: str, free: dict[str, int], seed: int, order: Random
) -> None:
    shuffled = dict(order.sample(list(free.items()), len(free)))
    one, two = (
        policy_of(kind, Random(seed)).choose(Candidates("w/h", 3, seed, members)) for members in (free, shuffled)
    )
    assert set(one.asked) == set(two.asked) and one.skipped == two.skipped


@each_kind
@settings(max_examples=60)
@given(forecast_s=seconds, seed=st.integers(0, 99))
def test_limits_are_ahead_and_giving_up_never_comes_first(kind: str, forecast_s: list[float], seed: int) -> None:
    limits = policy_of(kind, Random(seed)).limits(forecast_s)
    assert 0 < limits.close_s <= limits.give_up_s
    if not policy_of(kind, Random(seed)).may_close_early:
        assert limits == Limits()


@each_kind
@settings(max_examples=300)
@given(view=views(), seed=st.integers(0, 99))
def test_an_ending_has_a_reason_and_comes_when_nobody_else_can_come(kind: str, view: RoundView, seed: int) -> None:
    policy = policy_of(kind, Random(seed))
    ending = policy.decide(view)
    assert ending == policy.decide(view)
    assert ending is None or ending.reason.strip()
    if view.num_in and not view.num_waiting and not view.num_late:
        assert ending is not None and not ending.gives_up
    if isinstance(ending, Ending) and not ending.gives_up and view.num_waiting:
        assert policy.may_close_early


@each_kind
@settings(max_examples=100)
@given(
    weight=st.integers(1, 2**53 - 1), less=st.integers(0, 1000), staleness=st.integers(1, 20), seed=st.integers(0, 99)
)
def test_a_late_update_counts_no_more_than_in_time_and_no_more_the_later(
    kind: str, weight: int, less: int, staleness: int, seed: int
) -> None:
    """No more for less weight either: then a total has room for whatever of a member's weight may come."""
    policy = policy_of(kind, Random(seed))
    now, later = policy.admit(weight, staleness), policy.admit(weight, staleness + 1)
    assert 0 <= later.weight <= now.weight <= weight
    assert now.reason and later.reason
    assert policy.admit(max(1, weight - less), staleness).weight <= now.weight
    if not policy.may_close_early:
        assert now.weight == 0


@given(share=st.floats(0.001, 1.0), number=st.integers(0, 10**6))
def test_needed_is_the_least_number_that_is_the_share(share: float, number: int) -> None:
    least = needed(share, number)
    assert least >= 1 and least >= share * number * (1 - 1e-9)
    assert least == 1 or least - 1 < share * number


def test_a_sample_is_unbiased() -> None:
    """10 members, 3 drawn: of 2,000 rounds each is expected in 600, with a deviation of sqrt(2000 * 0.3 * 0.7) = 20."""
    free = {f"site-{i}": 10 ** (i % 4) for i in range(10)}
    drawn: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for number in range(2000):
        asked = Sample(count=3).choose(Candidates("world", number, 0, free)).asked
        assert len(asked) == 3
        drawn.update(asked)
        pairs.update((one, two) for one in asked for two in asked if one < two)
    assert set(drawn) == set(free) and all(abs(count - 600) < 80 for count in drawn.values())
    assert len(pairs) == 45 and all(abs(count - 2000 / 15) < 50 for count in pairs.values())


def test_a_sample_by_samples_draws_the_first_in_proportion() -> None:
    """Of 2,000 rounds 200, 400, 600, 800 are expected, with deviations of 13 to 22."""
    free = {"a": 10, "b": 20, "c": 30, "d": 40}
    drawn = Counter(
        Sample(count=1, by="samples").choose(Candidates("world", number, 1, free)).asked[0] for number in range(2000)
    )
    assert all(abs(drawn[name] - 20 * weight) < 90 for name, weight in free.items()), drawn


def test_a_sample_by_samples_that_knows_them_draws_by_them_whatever_members_weigh() -> None:
    samples, policy = {"a": 10, "b": 20, "c": 30, "d": 40}, Sample(count=2, by="samples")
    for number in range(100):
        plain = policy.choose(Candidates("w", number, 1, samples))
        for weight in (1, 2**20):
            weighed = Candidates("w", number, 1, dict.fromkeys(samples, weight))
            assert policy.knowing(samples).choose(weighed) == plain
    assert Sample(count=2).knowing(samples) == Sample(count=2)


def test_hubs_rounds_and_seeds_draw_apart() -> None:
    free = {f"site-{i}": 1 for i in range(20)}
    places = [("w/a", 0, 0), ("w/b", 0, 0), ("w/a", 1, 0), ("w/a", 0, 1)]
    draws = [frozenset(Sample(count=8).choose(Candidates(*place, free)).asked) for place in places]
    assert len(set(draws)) == len(draws)
