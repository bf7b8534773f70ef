"""A hub under any policy, whose members answer late or never and whose process dies: what counts, and its bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from late_hub import LAYOUT, Members, spec_of

from hierfl.config.schema import Replication
from hierfl.runtime.remembered import still_true
from scheduler.participation import Participation
from scheduler.participations.buffered import Buffered
from scheduler.participations.deadline import Deadline
from tiers.federation import Federation

WEIGHTS = {"a": 3, "b": 40, "c": 7, "d": 500}
POLICIES: Mapping[str, Participation] = {
    "deadline": Deadline(after_s=1.0, quorum=0.5, weight=0.01, staleness=3),
    "refusing": Deadline(after_s=1.0, quorum=0.25, weight=0.001, late="refuse"),
    "buffered": Buffered(goal=2, staleness=3),
}
SEEDS = st.integers(0, 2**32 - 1)


def play(members: Members, random: Random, num_events: int) -> None:
    """Let things happen as they are drawn; what may happen next depends on the hub's answers alone."""
    for _ in range(num_events):
        moves: list[Callable[[], None]] = []
        moves += [partial(members.arrive, name) for name in sorted(members.at_work)] * 3
        moves += [partial(members.lose, name) for name in sorted(members.at_work)]
        if members.timers:
            moves += [members.ring] * 3
        if not members.hubs.running("world"):
            moves += [members.begin] * 3
        elif not members.at_work:
            return
        random.choice(moves)()


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@settings(max_examples=40)
@given(seed=SEEDS, width=st.sampled_from([32, 64]))
def test_what_is_late_counts_with_its_part_of_the_weight(policy: Participation, seed: int, width: int) -> None:
    """The plain loop of `Members` is held against the model as each round ends."""
    play(Members(spec_of(policy, WEIGHTS, width)), Random(seed), 60)


REDUNDANCY = [Replication(), Replication(2), Replication(3), Replication(3, "vote")]


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@settings(max_examples=60)
@given(seed=SEEDS, kills=SEEDS, redundancy=st.sampled_from(REDUNDANCY))
def test_a_hub_whose_processes_die_has_the_bits_of_one_that_lives(
    policy: Participation, seed: int, kills: int, redundancy: Replication
) -> None:
    steady = Members(spec_of(policy, WEIGHTS))
    frail = Members(spec_of(policy, WEIGHTS, redundancy=redundancy), Random(kills))
    play(steady, Random(seed), 40)
    play(frail, Random(seed), 40)
    assert frail.rounds == steady.rounds and frail.refused == steady.refused
    assert frail.model.digest(LAYOUT) == steady.model.digest(LAYOUT)
    assert frail.hubs.kept().keys() == steady.hubs.kept().keys()
    assert {cause for _, cause in frail.lost} <= {"died"}


@settings(max_examples=40)
@given(seed=SEEDS)
def test_a_hub_of_a_later_process_counts_what_was_held_and_nothing_twice(seed: int) -> None:
    policy = POLICIES["deadline"]
    before = Members(spec_of(policy, WEIGHTS))
    play(before, Random(seed), 30)
    if before.hubs.running("world") or not before.rounds:
        return
    found = before.hubs.kept().get("world")
    tree = Federation(before.spec.hub)
    left = still_true(found.memory, found.payloads, "world", before.number + 1, tree) if found else None
    held = [update.shares[0].member for update in found.memory.standing.held] if found else []
    assert held == ([update.shares[0].member for update in left[0].standing.held] if left else [])
    kept = None if left is None or found is None else type(found)(*left)
    after = Members(before.spec, kept=kept, first=before.number + 1, model=before.model)
    late = {(name, number) for name, number in before.sent if name in held}
    after.sent = {key: before.sent[key] for key in late}
    after.begin()
    for name in sorted(after.at_work):
        after.arrive(name)
    assert after.rounds[0].carried.keys() <= set(held)
    assert set(after.rounds[0].members) | set(held) == WEIGHTS.keys() - set(after.rounds[0].missing)
