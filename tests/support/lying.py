"""A strategy whose hub can be told to lie, or to hang: the first replica to take its step obeys, once.

An order is a file in `folder`: `lie-flip`, `lie-drop`, `lie-double`, `lie-stale`, `lie-fail` or `lie-hang`. Whoever
renames it obeys; `lied-flip` then holds who that was, and from `then-flip` on it is the next one's turn.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hierfl.errors import UpdateRefused
from hierfl.learning.local import LocalRule, Objective
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.learning.strategy import State, Strategy, Vector

__all__ = ["LIES", "Lying"]

LIES = ("flip", "drop", "double", "stale")


@dataclass(frozen=True)
class Lying:
    """Federated averaging over whole updates. `hang_s`: how long it hangs."""

    linear: ClassVar[bool] = False

    folder: str = ""
    hang_s: float = 30.0
    weights: str = "samples"

    def objective(self) -> LocalRule:
        return Objective()

    def inherited(self) -> Strategy:
        return FedAvg(weights=self.weights)

    def init(self, model: Vector) -> State:
        return {}

    def broadcast(self, model: Vector, state: State) -> Vector:
        return model

    def shortage(self, num_members: int) -> str:
        return ""

    def promise(self, num_members: int) -> str:
        return "nothing"

    def reduce(self, deltas: Vector, weights: Any, state: State) -> Vector:
        weights = np.array(weights)
        if self._told("drop"):
            weights[0] = 0.0
        if self._told("double"):
            weights[0] *= 2.0
        mean: Vector = (weights[:, None] * deltas).sum(axis=0).astype(deltas.dtype)
        return mean

    def step(self, model: Vector, delta: Vector, state: State, share: float = 1.0) -> tuple[Vector, State]:
        after: Vector = model + delta
        if self._told("flip"):
            after.view(np.uint8)[0] ^= 1
        if self._told("fail"):
            raise UpdateRefused("this machine has no memory left")
        if self._told("hang"):
            time.sleep(self.hang_s)
        return (model.copy() if self._told("stale") else after), state

    def _told(self, what: str) -> bool:
        if not self.folder:
            return False
        order = Path(self.folder) / f"lie-{what}"
        try:
            order.rename(order.with_name(f"lied-{what}"))
        except FileNotFoundError:
            return False
        order.with_name(f"lied-{what}").write_text(str(os.getpid()))
        for then in order.parent.glob("then-*"):
            then.rename(then.with_name(then.name.replace("then", "lie")))
        return True


def tell(folder: Path, *what: str) -> Sequence[Path]:
    """Give orders."""
    found = [folder / f"lie-{one}" for one in what]
    for order in found:
        order.touch()
    return found
