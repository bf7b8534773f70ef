from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierfl.monitor.busy import Account, Covered, without
from hierfl.monitor.company import Company
from hierfl.monitor.records import Phase
from scheduler.eventlog import merge, union_s

Spans = list[tuple[int, int]]
spans: st.SearchStrategy[Spans] = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 9)).map(lambda span: (span[0], span[0] + span[1])), max_size=12
)


def seconds(found: Spans) -> set[int]:
    return {second for start, end in found for second in range(start, end)}


@given(spans, spans, st.integers(0, 40), st.integers(0, 40))
def test_unions_and_differences_are_those_of_sets_of_seconds(some: Spans, holes: Spans, since: int, until: int) -> None:
    window = set(range(since, max(since, until)))
    assert union_s(some) == len(seconds(some))
    assert Covered(some).inside_s(since, max(since, until)) == len(seconds(some) & window)
    apart = merge(some)
    assert union_s(without(apart, holes)) == len(seconds(some) - seconds(holes))


@given(spans, st.integers(0, 40), st.integers(1, 9))
def test_what_a_job_takes_alone_is_its_share_of_every_second(some: Spans, start: int, length: int) -> None:
    rates = (1.0, 1.5, 1.8)
    counts = [sum(a <= second < b for a, b in some) for second in range(start, start + length)]
    shares = [rates[min(count, 3) - 1] / count if count else 1.0 for count in counts]
    assert Company(some, rates).alone_s(start, start + length) == pytest.approx(sum(shares))


def test_loading_within_a_training_is_not_training() -> None:
    account = Account(("x",), 0.0)
    account.add(Phase(4.0, "x", "train", 0.0, 4.0, ["a"], 1))
    account.add(Phase(4.0, "x", "load", 0.0, 1.0, ["a"], 1))
    found = account.close(4.0)
    assert (found.phase_s["train"], found.phase_s["load"], found.busy["x"]) == (3.0, 1.0, 1.0)
