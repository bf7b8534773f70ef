"""The same worlds as `test_replicated`, with the faults chosen by Hypothesis, which shrinks what breaks something."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from replicated_brain import forget
from replicated_hub import Served
from replicated_lies import LIES
from replicated_run import Supervisor
from replicated_trees import TREES
from replicated_world import World

SOME = st.integers(0, 11)
"""Which of those that there are, counted round and round."""


class Histories(RuleBasedStateMachine):
    """A run that anything may befall; at the end nothing more does, and all rounds end."""

    world: World

    @initialize(seed=st.integers(0, 1000), tree=st.integers(0, len(TREES) - 1), alone=st.booleans())
    def begin(self, seed: int, tree: int, alone: bool) -> None:
        forget()
        self.world = World(seed, tree=TREES[tree], alone=alone)

    @property
    def leader(self) -> Supervisor:
        if self.world.leader.ended and not self.world.is_over:
            self.world.take_up(kill=True)
        return self.world.leader

    def seat(self, which: int) -> tuple[Served, int]:
        return self.leader.seats[which % len(self.leader.seats)]

    @rule(which=SOME, twice=st.booleans())
    def a_replica_answers(self, which: int, twice: bool) -> None:
        found = self.leader.pending(which % len(self.leader.seats))
        if found is not None:
            self.leader.deliver(*found, twice)

    @rule(which=SOME, how=st.sampled_from(["", "", "twice", "otherwise", "together"]))
    def a_member_answers(self, which: int, how: str) -> None:
        keys = list(self.leader.at_work)
        if keys:
            self.leader.answer(keys[which % len(keys)], how)

    @precondition(lambda self: self.world.tree.loses)
    @rule(which=SOME)
    def a_member_is_lost(self, which: int) -> None:
        keys = list(self.leader.at_work)
        if keys:
            self.leader.lose(keys[which % len(keys)])

    @rule(which=SOME)
    def time_is_up(self, which: int) -> None:
        paths = list(self.leader.timers)
        if paths:
            self.leader.ring(paths[which % len(paths)])

    @rule(which=SOME)
    def a_replica_dies(self, which: int) -> None:
        served, replica = self.seat(which)
        served.die(replica)
        self.leader.settle()

    @rule(which=SOME)
    def a_replica_hangs_or_comes_back(self, which: int) -> None:
        served, replica = self.seat(which)
        served.processes[replica].stuck ^= True

    @rule(which=SOME, how=st.sampled_from(LIES))
    def a_replica_lies(self, which: int, how: str) -> None:
        served, replica = self.seat(which)
        self.world.corrupt(served, replica, how if served.votes else "fails")

    @rule(seconds=st.sampled_from([0.5, 1.5, 4.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.leader.wait(seconds)

    @rule(which=SOME, until_end=st.booleans())
    def an_earlier_life_is_heard(self, which: int, until_end: bool) -> None:
        served, _ = self.seat(which)
        if served.zombies:
            served.haunt(which % len(served.zombies), until_end)
            self.leader.settle()

    @rule(number=SOME)
    def some_of_the_journal_is_flushed(self, number: int) -> None:
        self.leader.flush(min(number, len(self.leader.waiting)))

    @precondition(lambda self: not self.world.is_over)
    @rule(kill=st.booleans())
    def another_process_takes_the_run_up(self, kill: bool) -> None:
        self.world.take_up(kill=kill)

    @precondition(lambda self: self.world.hung)
    @rule(which=SOME, number=st.integers(1, 8))
    def one_that_hung_goes_on(self, which: int, number: int) -> None:
        zombie = self.world.hung[which % len(self.world.hung)]
        for _ in range(number):
            self.world.act(zombie)
            zombie.flush(len(zombie.waiting))

    @invariant()
    def rounds_are_published_in_order(self) -> None:
        saved, published = self.world.disk.saved, self.world.published
        assert list(published) == sorted(published) and max(published, default=0) == saved.number

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.finish()


class TestHistories(Histories.TestCase):  # type: ignore[name-defined, misc]
    settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
