from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from hierfl.errors import HierflError
from hierfl.runtime.chance import SharedChance


@pytest.fixture
def quiet() -> SharedChance:
    """Chance of threads whose task was seen not to draw."""
    chance = SharedChance()
    chance.run(1, lambda: None)
    chance.check()
    return chance


def test_a_late_draw_is_an_error(quiet: SharedChance) -> None:
    quiet.run(2, lambda: torch.rand(1))
    with pytest.raises(HierflError, match="in some rounds only"):
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
