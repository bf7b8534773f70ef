"""Hubs that are served by replicas, under drawn histories of every fault: what must hold holds after each event.

`replicated_world` plays them. At most one list closes a round, and each on it counts once; a receipt is not broken;
the sum is that of the list; only the life and the epoch that lead are heard; rounds are published in order; what was
durable is told again to the same state; and with as many replicas as decide all rounds end.
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from replicated_brain import Shape, Violation
from replicated_run import Supervisor
from replicated_trees import TREES, Tree
from replicated_world import World, checked

from tiers import Hub, Site
from tiers.replay import Replay
from tiers.replica_messages import Replace
from tiers.replicas import Replicas

TWO_TIERS = next(one for one in TREES if len(one.shapes) == one.rounds == 2 and one.shapes[0].hub.keep_going)


@pytest.mark.parametrize("number", [2_000, pytest.param(4_000, marks=pytest.mark.slow)])
def test_no_history_breaks_what_must_hold(number: int) -> None:
    """Every protocol of test_replicated_mutants.py is found within 1,500."""
    assert checked(range(number)) == number


@pytest.mark.slow
def test_none_of_a_million_histories_breaks_what_must_hold() -> None:
    chunks = [range(first, first + 10_000) for first in range(0, 1_000_000, 10_000)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("forkserver")) as pool:
        assert sum(pool.map(checked, chunks)) == 1_000_000


def test_the_histories_meet_what_they_are_about(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    handle = Replicas.handle

    def heard(self: Replicas, event: object) -> list[object]:
        commands = handle(self, event)  # type: ignore[arg-type]
        seen.update(one.cause if isinstance(one, Replace) else type(one).__name__ for one in commands)
        seen["recalled"] += any(one.recalls for one in self._replicas)
        return commands  # type: ignore[return-value]

    monkeypatch.setattr(Replicas, "handle", heard)
    for seed in range(1000):
        story: list[str] = []
        world = World(seed, story=story)
        world.run()
        seen.update(
            {
                "hung": len(world.hung),
                "taken up": world.disk.epoch - 1,
                "all told again": world.leader.replay is not None,
            }
        )
        seen["fenced"] += any(one.is_fenced() and one.ended for one in world.hung)
        seen.update(
            word
            for line in story
            for word in ("again", "Carry", "GiveUp", "Dismiss", "excused=True", "goes on")
            if word in line
        )
        seen.update(f"{mode} {num}" for mode, num in world.kinds.values())
        seen[f"{len(world.tree.shapes)} tiers"] += 1
        root = world.tree.shapes[0]
        early = bool(root.hubs) and root.hub.participation.may_close_early
        seen["a root that closes early over a hub"] += early
        seen["it carries a hub over"] += early and any("w: Close" in line and "'h': 'late by" in line for line in story)
        seen["calm"] += world.tree.is_calm
    causes = {"died", "silent", "outvoted", "unsigned", "forged", "Retire", "Return", "Abandon"}
    assert causes <= seen.keys() and min(seen.values()) > 1, seen


def test_what_is_looked_up_is_what_is_worked_out() -> None:
    for seed in range(150):
        worlds = [World(seed, alone=alone, story=[]) for alone in (False, True)]
        for world in worlds:
            world.run()
        assert worlds[0].story == worlds[1].story and worlds[0].published == worlds[1].published


def test_a_history_that_breaks_something_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Supervisor, "is_fenced", lambda self: False)
    with pytest.raises(
        AssertionError, match=r"history \d+: World\((\d+), story=\[\]\).run\(\) plays it again\nepoch 1: "
    ):
        checked(range(1500))


def given_up_and_taken_up(times: int) -> None:
    """An inner hub gives up, its parent goes on, and the run is killed so often before the root's round is over."""
    for seed in range(20):
        world = World(seed, tree=TWO_TIERS)
        answered(world.leader)
        world.leader.lose(("w/h", "a"))
        answered(world.leader)
        for _ in range(times):
            world.leader.flush(len(world.leader.waiting))
            world.take_up(kill=True)
            answered(world.leader)
        world.finish()


def answered(leader: Supervisor) -> None:
    while (found := leader.pending(0)) is not None:
        leader.deliver(*found)


def test_a_hub_that_gave_up_is_begun_again_however_often_the_run_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    given_up_and_taken_up(3)
    stop = Replay.stop
    monkeypatch.setattr(Replay, "stop", lambda self, hub: (None, stop(self, hub)[1]))  # it is written down each time
    monkeypatch.setattr(Replay, "stops", lambda self, hub: False)
    with pytest.raises(Violation):
        given_up_and_taken_up(3)


def three_tiers() -> Tree:
    """A root that goes on without a hub, whose one member is a hub that gives up when it loses a site."""
    low = Hub("g", (Site("a"), Site("b")))
    middle = Hub("h", (low,), keep_going=True, quorum=0.3)
    top = Hub("w", (Site("x"), middle), keep_going=True, quorum=0.3)
    shapes = Shape("w/h", middle, {"g": 3}, ("g",)), Shape("w/h/g", low, {"a": 1, "b": 2})
    return Tree(Shape("w", top, {"x": 2, "h": 3}, ("h",)), *shapes, rounds=2, loses=True)


@pytest.mark.parametrize(("tree", "every"), [(TWO_TIERS, 1), (TWO_TIERS, 2), (three_tiers(), 1), (three_tiers(), 2)])
def test_what_the_root_goes_on_without_before_it_gives_up_again_is_begun_again(tree: Tree, every: int) -> None:
    """`every`: rounds from checkpoint to checkpoint."""
    for seed in range(20):
        world = World(seed, tree=tree)
        world.every = every
        answered(world.leader)
        world.leader.lose((tree.shapes[-1].path, "a"))
        answered(world.leader)
        world.leader.answer(("w", "x"))
        for _ in range(3):
            world.leader.flush(len(world.leader.waiting))
            world.take_up(kill=True)
            while not world.leader.number:  # the root has it from the journal that the hub below gave up
                served, replica = world.leader.pending(0) or pytest.fail("the root waits for the hub that it lost")
                assert served.shape.path == "w"
                world.leader.deliver(served, replica)
        world.finish()
