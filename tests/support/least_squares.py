"""Least squares with gradients written by hand, in float64, beside the same federation by hierfl."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from small_runs import go, site, tensors
from ward_tasks import lines

__all__ = [
    "EAST",
    "LR",
    "NORTH",
    "RING",
    "SHIFTS",
    "SIZES",
    "SOUTH",
    "START",
    "WEST",
    "Models",
    "Weights",
    "close",
    "gossip",
    "local",
    "mean",
    "trained",
]

Weights = NDArray[np.float64]
Models = Mapping[str, Weights]
START = np.array([0.5, 0.5])
LR = 0.2
SIZES = {"north": 4, "south": 12, "east": 7, "west": 5}
SHIFTS = {"north": 0.0, "south": 1.0, "east": -2.0, "west": 0.5}
RING = {"north": ("west", "south"), "south": ("north", "east"), "east": ("south", "west"), "west": ("east", "north")}
NORTH, SOUTH, EAST, WEST = (site(name, n=SIZES[name], shift=SHIFTS[name]) for name in SIZES)


def local(w: Weights, name: str, steps: int = 1, lr: float = LR, mu: float = 0.0) -> Weights:
    """A site's training: `steps` of gradient descent on all of its samples, and FedProx's pull."""
    x, y = (part.astype(np.float64) for part in lines(name, SIZES[name], SHIFTS[name]))
    first = w
    for _ in range(steps):
        w = w - lr * (x.T @ (x @ w - y) / len(y) + mu * (w - first))
    return w


def mean(models: Mapping[str, Weights], weights: Mapping[str, float]) -> Weights:
    """sum_k N_k / N * w_k."""
    total = sum(weights[name] for name in models)
    return sum((weights[name] / total * w for name, w in models.items()), start=np.zeros(2))


def gossip(models: Models, neighbours: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int] = SIZES) -> Models:
    """x_i <- sum_j W_ij z_j, with W_ij = n_j / max(N_i, N_j) and N of a member and its neighbours."""
    around = {i: sizes[i] + sum(sizes[j] for j in others) for i, others in neighbours.items()}
    mixed = {}
    for i, others in neighbours.items():
        row = {j: sizes[j] / max(around[i], around[j]) for j in others}
        mixed[i] = (1 - sum(row.values())) * models[i] + sum(part * models[j] for j, part in row.items())
    return mixed


def trained(folder: Path, root: dict[str, Any], steps: int = 1, **top: Any) -> Weights:
    """The same federation by hierfl."""
    training = {"optimizer": "sgd", "lr": LR, "batch_size": None, "local_steps": steps}
    ran = go(folder, root, "ward_tasks:Lines", training=training, **top)
    found: Weights = tensors(ran.folder)["weight"][0].astype(np.float64)
    return found


def close(found: Weights, expected: Weights) -> bool:
    return bool(np.abs(found - expected).max() < 2e-6) and bool(np.abs(found - START).max() > 0.05)
