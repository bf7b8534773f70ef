"""Whole runs against loops that a reader can follow: least squares with gradients written by hand, in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from least_squares import EAST, LR, NORTH, SHIFTS, SIZES, SOUTH, START, WEST, Weights, close, local, mean, trained
from small_runs import hub, site
from ward_tasks import lines


@pytest.mark.parametrize("width", [32, 64])
def test_one_full_step_of_fedavg_is_one_step_on_the_pooled_data(width: int, tmp_path: Path) -> None:
    data = [lines(name, SIZES[name], SHIFTS[name]) for name in SIZES]
    x, y = (np.concatenate([part[i] for part in data]).astype(np.float64) for i in (0, 1))
    w = START
    for _ in range(3):
        w = w - LR * x.T @ (x @ w - y) / len(y)
    root = hub("world", NORTH, SOUTH, hub("down", EAST, WEST), rounds=3)
    assert close(trained(tmp_path, root, arithmetic={"width": width}), w)


@pytest.mark.parametrize(
    ("weights", "numbers"),
    [("samples", SIZES), ("uniform", dict.fromkeys(SIZES, 1)), ("given", {"north": 1, "south": 0.25, "east": 3.5})],
)
def test_members_are_weighed_as_the_strategy_says(weights: str, numbers: Mapping[str, float], tmp_path: Path) -> None:
    names = ("north", "south", "east")
    w = START
    for _ in range(2):
        w = mean({name: local(w, name, steps=3) for name in names}, numbers)
    members = [dict(member) for member in (NORTH, SOUTH, EAST)]
    if weights == "given":
        members = [{**member, "weight": numbers[member["name"]]} for member in members]
    root = hub("world", *members, strategy={"kind": "fedavg", "weights": weights})
    assert close(trained(tmp_path, root, steps=3), w)


def test_uniform_weights_in_a_tree_weigh_hubs_not_sites(tmp_path: Path) -> None:
    """Each member of the root counts alike, whatever stands below it: no raw sum is passed up here."""
    w = START
    for _ in range(2):
        up = mean({name: local(w, name) for name in ("north", "south", "east")}, dict.fromkeys(SIZES, 1))
        w = 0.5 * up + 0.5 * local(w, "west")
    root = hub("world", hub("up", NORTH, SOUTH, EAST), WEST, strategy={"kind": "fedavg", "weights": "uniform"})
    assert close(trained(tmp_path, root), w)


def test_fedprox_pulls_sites_towards_the_model_they_were_sent(tmp_path: Path) -> None:
    w = START
    for _ in range(2):
        w = mean({name: local(w, name, steps=5, mu=0.7) for name in SIZES}, SIZES)
    root = hub("world", hub("up", NORTH, SOUTH), EAST, WEST, strategy={"kind": "fedprox", "mu": 0.7})
    assert close(trained(tmp_path, root, steps=5), w)


def test_training_may_differ_by_node(tmp_path: Path) -> None:
    w = START
    for _ in range(2):
        models = {
            "north": local(w, "north", 2, lr=0.1),
            "south": local(w, "south", 4, lr=0.1),
            "east": local(w, "east"),
        }
        w = mean(models, SIZES)
    up = hub("up", NORTH, {**SOUTH, "training": {"local_steps": 4}}, training={"lr": 0.1, "local_steps": 2})
    assert close(trained(tmp_path, hub("world", up, EAST)), w)


def rounds_of(w: Weights, names: Sequence[str], rounds: int, step: Any) -> Weights:
    """An inner hub: `rounds` of its own from the model that it was sent."""
    for _ in range(rounds):
        w = step(w, mean({name: local(w, name, steps=2) for name in names}, SIZES) - w)
    return w


@pytest.mark.parametrize("width", [32, 64])
def test_kappa_rounds_and_server_optimisers_at_two_tiers(width: int, tmp_path: Path) -> None:
    """HierFAVG's kappa (Liu et al. 2020): `up` does 3 rounds with momentum for each of the root's with FedAdam.

    Both hubs keep their own state from round to round of the root.
    """
    velocity, m, v, tau = np.zeros(2), np.zeros(2), np.full(2, 1e-6), 1e-3

    def momentum(w: Weights, delta: Weights) -> Weights:
        nonlocal velocity
        velocity = 0.5 * velocity + delta
        return w + velocity

    def average(w: Weights, delta: Weights) -> Weights:
        return w + delta

    w = START
    for _ in range(4):
        models = {
            "up": rounds_of(w, ("north", "south"), 3, momentum),
            "down": rounds_of(w, ("east", "west"), 2, average),
        }
        delta = mean(models, {"up": 16, "down": 12}) - w
        m = 0.9 * m + 0.1 * delta
        v = 0.99 * v + 0.01 * delta**2
        w = w + np.array([0.3 * m[i] / (math.sqrt(v[i]) + tau) for i in (0, 1)])
    root = hub(
        "world",
        hub("up", NORTH, SOUTH, rounds=3, strategy={"kind": "fedavgm", "momentum": 0.5}),
        hub("down", EAST, WEST, rounds=2),
        rounds=4,
        strategy={"kind": "fedadam", "lr": 0.3},
    )
    found = trained(tmp_path, root, steps=2, arithmetic={"width": width})
    assert np.abs(found - w).max() < 2e-5
    assert np.abs(found - START).max() > 0.05


def test_a_hub_that_is_given_up_counts_for_nothing(tmp_path: Path) -> None:
    """The mean is over those who reported: a lost member's weight is not in the divisor."""
    w = START
    for _ in range(2):
        w = mean({name: local(w, name) for name in ("north", "east")}, SIZES)
    broken = site("south", n=12, shift=float("nan"))
    root = hub("world", NORTH, EAST, hub("up", broken), on_failure="continue", quorum=0.5)
    assert close(trained(tmp_path, root), w)
