"""Batch normalisation under every strategy: of its running statistics the model has the members' mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import go, hub, site, tensors

from hierfl.kinds import load
from hierfl.learning.state import Layout
from hierfl.learning.stepping import reduced, stepped

SITES = [site("a", n=12), site("b", n=24), site("c", n=18)]
STATISTICS = ("1.running_mean", "1.running_var")
STRATEGIES: dict[str, dict[str, Any]] = {
    "fedavgm": {},
    "fedadam": {"lr": 0.1},
    "fedyogi": {"lr": 0.1},
    "fedadagrad": {"lr": 0.1},
    "feddyn": {},
    "fednova": {},
    "scaffold": {"lr": 3.0},
}


def statistics(folder: Path, strategy: str, settings: dict[str, Any], lr: float) -> list[np.ndarray[Any, Any]]:
    """Run four rounds, in which sites take steps of different numbers; give the mean and the variance."""
    ran = go(
        folder / strategy,
        hub("world", *SITES, rounds=4, strategy={"kind": strategy, **settings}),
        {"kind": "ward_tasks:Deep", "dropout": 0.0},
        training={"lr": lr, "batch_size": 6, "local_epochs": 2},
    )
    assert ran.summary["nodes"]["world"]["accuracy"] is not None, "predictions are numbers"
    return [tensors(ran.folder)[name] for name in STATISTICS]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_momentum_and_the_like_are_for_what_is_trained(tmp_path: Path, strategy: str) -> None:
    """Where no weight moves, they are the same under every strategy."""
    averaged = statistics(tmp_path, "fedavg", {}, 1e-12)
    for mine, mean in zip(statistics(tmp_path, strategy, STRATEGIES[strategy], 1e-12), averaged, strict=True):
        np.testing.assert_allclose(mine, mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", [*STRATEGIES, "centered_clipping", "median", "norm_bounding"])
def test_a_variance_is_never_negative(tmp_path: Path, strategy: str) -> None:
    settings = {"num_byzantine": 0, "radius": 0.1} if strategy == "centered_clipping" else STRATEGIES.get(strategy, {})
    _, variance = statistics(tmp_path, strategy, settings, 0.05)
    assert variance.min() > 0.0


def test_a_rule_that_carries_over_takes_their_median() -> None:
    layout = Layout.of({"w": ((2,), "float32"), "var": ((2,), "float32")}, buffers=["var"])
    rule = load("strategy", "centered_clipping")(num_byzantine=0, radius=1.0)
    deltas = np.array([[1, 0, -0.2, 0.1], [0, 1, -0.3, 0.2], [1, 1, 9.0, 0.3]], np.float32)
    state = {"center": np.array([0, 0, -0.9, 0], np.float32)}
    change = reduced("world", rule, deltas, np.full(3, 1 / 3), state, layout)
    assert change[2:].tolist() == [np.float32(-0.2), np.float32(0.2)] and change[0] > 0.0
    model, _ = stepped("world", rule, np.ones(4, np.float32), change, state, layout)
    assert np.array_equal(model, 1 + change)
