"""A hub's sum is written over by the next one, unless its strategy keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import late_hub
import numpy as np
import pytest
from numpy.typing import NDArray

from hierfl.learning.ring import Accumulator
from hierfl.learning.state import ModelState
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.runtime.hub import Aggregator, grid_of
from scheduler.participations.all import All
from tiers.messages import Begin, Share, Update

NUM_ROUNDS = 4


@dataclass(frozen=True)
class Keeping(FedAvg):
    """Adds half of the last change, which it keeps as it was given."""

    def step(
        self, model: NDArray[Any], delta: NDArray[Any], state: Mapping[str, NDArray[Any]], share: float = 1.0
    ) -> tuple[NDArray[Any], Mapping[str, NDArray[Any]]]:
        return model + delta + 0.5 * state.get("last", np.zeros_like(delta)), {"last": delta}


@pytest.mark.parametrize("strategy", [FedAvg(), Keeping()], ids=["fedavg", "keeping"])
@pytest.mark.parametrize("num_parts", [1, 2])
def test_what_a_strategy_keeps_of_a_change_is_not_written_over(strategy: FedAvg, num_parts: int) -> None:
    weights = dict.fromkeys("ab"[:num_parts], 4)
    hub = Aggregator(replace(late_hub.spec_of(All(), weights), strategy=strategy))
    start = ModelState(np.zeros(3, np.float32), np.zeros(1, np.int64))
    outcome, *beside = hub.begin(Begin(0, NUM_ROUNDS), None, start, None)
    expected, last = np.zeros(3), np.zeros(3)
    for number in range(NUM_ROUNDS):
        change = np.array([1.0, -2.0, 0.5]) * 2.0**-number
        opening = outcome.orders[0].opening
        for name, weight in weights.items():
            sums = Accumulator(grid_of(opening), late_hub.LAYOUT)
            sums.add_update(ModelState(change.astype(np.float32), start.ints), start, weight)
            part = sums.total()
            kept = part.floats.copy()
            update = Update("world", number, (Share(name, weight),), part.num_bytes)
            outcome, *beside = hub.arrive(update, part)
            assert part.floats.tobytes() == kept.tobytes(), "a part is another's"
        expected += change + (0.5 * last if isinstance(strategy, Keeping) else 0.0)
        last = change
    model: Any = beside[1]
    assert outcome.finished is not None
    np.testing.assert_allclose(model.floats, expected, atol=1e-6)
