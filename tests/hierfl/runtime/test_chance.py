from __future__ import annotations

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
    quiet.excuse()
    quiet.check()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_task_that_draws_every_time_needs_no_excuse() -> None:
    chance = SharedChance()
    first = chance.run(3, lambda: torch.rand(1))
    chance.excuse()
    assert torch.equal(chance.run(3, lambda: torch.rand(1)), first)
