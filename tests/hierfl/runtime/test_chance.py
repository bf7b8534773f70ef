from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from hierfl.errors import HierflError
from hierfl.runtime import chance as rules
from hierfl.runtime.baton import Baton, Hold, Interrupted
from hierfl.runtime.chance import SharedChance


@pytest.fixture
def quiet() -> SharedChance:
    """Chance of threads whose task was seen not to draw."""
    chance = SharedChance()
    chance.run(1, lambda: None)
    chance.check()
    return chance


@pytest.fixture
def own_numbers() -> Iterator[None]:
    """Put NumPy's own generator back."""
    generator = vars(np.random)["get_bit_generator"]()
    yield
    vars(np.random)["set_bit_generator"](generator)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.rand(1),
        lambda: np.random.rand(),
        lambda: np.random.randn(2),
        lambda: random.random(),
        lambda: vars(np.random)["set_bit_generator"](np.random.PCG64(1)),
    ],
    ids=["torch", "numpy", "normal", "python", "another-generator"],
)
def test_a_late_draw_is_an_error(quiet: SharedChance, own_numbers: None, draw: Callable[[], object]) -> None:
    for seed in (2, 3):
        quiet.run(seed, lambda: None)
        quiet.check()
    quiet.run(4, draw)
    with pytest.raises(
        HierflError,
        match=r"at some sites or in some steps only .*; set runtime\.num_workers: 1, or draw from a generator",
    ):
        quiet.check()


def test_what_failing_code_drew_is_excused_and_put_back(quiet: SharedChance) -> None:
    before = torch.get_rng_state()
    quiet.run(2, lambda: torch.rand(1))
    quiet.check(failed=True)
    quiet.check()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_task_that_draws_every_time_goes_on_after_a_failure() -> None:
    chance = SharedChance()
    first = chance.run(3, lambda: torch.rand(1))
    chance.check(failed=True)
    assert torch.equal(chance.run(3, lambda: torch.rand(1)), first)


@pytest.mark.parametrize("failed", [True, False])
def test_a_thread_that_sees_another_ones_draw_waits_for_how_that_one_ends(quiet: SharedChance, failed: bool) -> None:
    drawn, looking, over = threading.Event(), threading.Event(), threading.Event()

    def other() -> None:
        quiet.run(2, lambda: (torch.rand(1), drawn.set(), over.wait(60)))
        quiet.check(failed=failed)

    def look() -> None:
        quiet.run(3, lambda: drawn.wait(60))
        looking.set()
        quiet.check()

    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(other), pool.submit(look)]
        looking.wait(60)
        over.set()
        raised = [type(end.exception()) for end in ends]
    assert raised == [type(None) if failed else HierflError] * 2


@dataclass
class Hanging:
    """Draws twice, and hangs in between the first time."""

    draws: bool = True
    survives: bool = False
    hangs: threading.Event = field(default_factory=threading.Event)
    goes_on: threading.Event = field(default_factory=threading.Event)
    starts: int = 0

    def __call__(self) -> float:
        self.starts += 1
        drawn = float(torch.rand(1)) if self.draws else 0.0
        if self.starts == 1:
            self.hangs.set()
            try:
                self.goes_on.wait(60)
            except BaseException:
                if not self.survives:
                    raise
        return drawn + (float(torch.rand(1)) if self.draws else 0.0)

    def undisturbed(self, chance: SharedChance) -> float:
        """As a worker does it: from the beginning until nobody has interrupted."""
        while True:
            try:
                return chance.run(7, self)
            except Interrupted:
                continue


@pytest.fixture
def impatient() -> SharedChance:
    return SharedChance(patience_s=0.02, look_s=0.01)


@pytest.mark.parametrize("draws", [True, False])
def test_who_hangs_alone_holds_nobody_up_and_runs_anew_to_the_same_bits(impatient: SharedChance, draws: bool) -> None:
    hanging = Hanging(draws)
    with ThreadPoolExecutor(1) as pool:
        end = pool.submit(hanging.undisturbed, impatient)
        assert hanging.hangs.wait(60)
        others = [impatient.run(3, lambda: float(torch.rand(1)) if draws else 0.0) for _ in range(2)]
        impatient.check()
        hanging.goes_on.set()
        found = end.result(60)
    alone = SharedChance()
    assert others == [alone.run(3, lambda: float(torch.rand(1)) if draws else 0.0)] * 2
    assert found == alone.run(7, Hanging(draws, starts=1)) and hanging.starts == 2


def test_what_hangs_while_it_builds_leaves_no_trace(impatient: SharedChance, quiet: SharedChance) -> None:
    """Of a task that does not draw, building a model does: it hangs after its first draw, and others train beside."""
    hanging, before = Hanging(), None
    impatient.run(1, lambda: None)
    before = torch.get_rng_state()
    with ThreadPoolExecutor(1) as pool:
        end = pool.submit(impatient.run, 7, hanging, checked=False)
        assert hanging.hangs.wait(60)
        impatient.run(2, lambda: None)
        impatient.check()
        assert torch.equal(torch.get_rng_state(), before)
        hanging.goes_on.set()
        assert end.result(60) == quiet.run(7, Hanging(starts=1), checked=False) and hanging.starts == 2
    impatient.check()


def test_who_goes_on_although_interrupted_spoils_the_run_by_name(impatient: SharedChance) -> None:
    hanging = Hanging(survives=True)
    with ThreadPoolExecutor(1) as pool:
        end = pool.submit(hanging.undisturbed, impatient)
        assert hanging.hangs.wait(60)
        impatient.run(3, lambda: torch.rand(1))
        hanging.goes_on.set()
        end.result(60)
    with pytest.raises(HierflError, match="catches every exception"):
        impatient.check()


def test_waiting_for_a_turn_is_told_once(impatient: SharedChance) -> None:
    """It is nobody's training: durations are learned without it."""
    hanging = Hanging()
    with ThreadPoolExecutor(1) as pool:
        end = pool.submit(hanging.undisturbed, impatient)
        assert hanging.hangs.wait(60)
        impatient.run(3, lambda: torch.rand(1))
        assert impatient.waited_s() >= 0.02 and impatient.waited_s() == 0.0
        hanging.goes_on.set()
        end.result(60)


class Stuck:
    """A first site that does not come to an end before `over` is set; what it draws before and after."""

    def __init__(self, chance: SharedChance, before: int, after: int) -> None:
        self.over, self.begun = threading.Event(), threading.Event()
        self.drawn: list[torch.Tensor] = []
        self.chance, self.before, self.after = chance, before, after

    def __call__(self) -> None:
        self.chance.run(2, self.work)
        self.chance.check()

    def work(self) -> None:
        self.drawn += [torch.rand(1) for _ in range(self.before)]
        self.begun.set()
        self.over.wait(60)
        self.drawn += [torch.rand(1) for _ in range(self.after)]


@pytest.mark.parametrize("after", [0, 1])
def test_a_first_site_that_is_stuck_holds_the_others_up_for_a_while(
    monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Models are built meanwhile, and sites trained; what it draws when it goes on is a late draw."""
    monkeypatch.setattr(rules, "FIRST_S", 0.1)
    chance = SharedChance(look_s=0.02)
    stuck = Stuck(chance, 0, after)

    def other() -> tuple[torch.Tensor, str]:
        built = chance.run(5, lambda: torch.rand(1), checked=False)
        said = chance.run(3, lambda: "trained")
        chance.check()
        return built, said

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(stuck)
        stuck.begun.wait(60)
        others = [pool.submit(other) for _ in range(2)]
        try:
            found = [one.result(60) for one in others]
        finally:
            stuck.over.set()
        assert isinstance(first.exception(60), HierflError if after else type(None))
    assert {said for _, said in found} == {"trained"} and torch.equal(found[0][0], found[1][0])


def test_a_first_site_that_has_drawn_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever draws has the generators to itself, however long that takes: to the same bits."""
    monkeypatch.setattr(rules, "FIRST_S", 0.01)
    alone = Stuck(SharedChance(), 1, 1)
    alone.over.set()
    alone()
    chance = SharedChance()
    stuck = Stuck(chance, 1, 1)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(stuck)
        stuck.begun.wait(60)
        other = pool.submit(chance.run, 3, lambda: torch.rand(1))
        with pytest.raises(TimeoutError):
            other.result(0.3)
        stuck.over.set()
        first.result(60)
        drawn = other.result(60)
    assert all(torch.equal(*pair) for pair in zip(stuck.drawn, alone.drawn, strict=True))
    assert torch.equal(drawn, torch.rand(1, generator=torch.Generator().manual_seed(3)))


def test_a_first_site_that_fails_makes_the_next_one_the_first() -> None:
    chance = SharedChance()
    with pytest.raises(ZeroDivisionError):
        chance.run(1, lambda: 1 / 0)
    chance.check(failed=True)
    drawn = [chance.run(3, lambda: torch.rand(1)) for _ in range(2)]
    assert torch.equal(*drawn)


def test_who_was_interrupted_may_stand_still_for_longer_until_it_has_come_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A site that waits for long, and does not hang, ends at last."""
    chance = SharedChance(patience_s=0.25, look_s=0.05)
    me, given_s, take = threading.get_ident(), [], Baton.take
    ended, passed, starts = threading.Event(), threading.Event(), []

    def taking(baton: Baton, patience_s: float, **more: Callable[[], bool]) -> Hold | None:
        if threading.get_ident() == me:
            given_s.append(patience_s)
        return take(baton, patience_s, **more)

    def slow() -> None:
        starts.append(torch.rand(1))
        if len(starts) < 3:
            passed.clear()
            passed.wait(60)

    def others() -> None:
        while not ended.is_set():
            chance.run(3, lambda: (torch.rand(1), passed.set()))

    monkeypatch.setattr(Baton, "take", taking)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(others)
        try:
            for again in (True, True, False, False):
                with pytest.raises(Interrupted) if again else nullcontext():
                    chance.run(7, slow)
                if not again:
                    chance.check()
        finally:
            ended.set()
    assert given_s == [0.25, 0.5, 1.0, 0.25]
