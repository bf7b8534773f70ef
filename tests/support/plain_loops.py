"""Pieces of plain loops for three wards, in float64: what papers' algorithms are written in, without a federation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ward_tasks import Wards

from hierfl.learning.seeds import derive

__all__ = ["FULL", "LR", "STEPS", "WARDS", "Loop", "Params", "minus", "same"]

WARDS: dict[str, int] = {"north": 9, "south": 14, "east": 11}
LR, STEPS = 0.2, 3
FULL = {"lr": LR, "batch_size": None, "local_steps": STEPS}
Params = list[torch.Tensor]


class Loop:
    """The papers' pieces in float64: models as lists of tensors, gradients of whole wards, weights n_k / n."""

    def __init__(self) -> None:
        self.task = Wards()
        self.data = {name: self.task.data(name, n=n).train.tensors for name, n in WARDS.items()}
        self.weights = {name: n / sum(WARDS.values()) for name, n in WARDS.items()}
        torch.manual_seed(derive(0, "model"))
        self.net = self.task.model().double()

    def start(self) -> Params:
        return [parameter.detach().clone() for parameter in self.net.parameters()]

    def gradient(self, model: Params, ward: str) -> Params:
        net = copy.deepcopy(self.net)
        for parameter, value in zip(net.parameters(), model, strict=True):
            parameter.data.copy_(value)
        x, y = self.data[ward]
        self.task.loss(net, (x.double(), y)).backward()
        return [parameter.grad for parameter in net.parameters()]

    def local(
        self,
        model: Params,
        ward: str,
        add: Callable[[Params], Params] | None = None,
        steps: int = STEPS,
        lr: float = LR,
    ) -> Params:
        w = [value.clone() for value in model]
        for _ in range(steps):
            more = add(w) if add else [torch.zeros_like(value) for value in w]
            w = [a - lr * (g + m) for a, g, m in zip(w, self.gradient(w, ward), more, strict=True)]
        return w

    def mean(self, by_ward: dict[str, Params]) -> Params:
        return [sum(self.weights[k] * values[i] for k, values in by_ward.items()) for i in range(2)]  # type: ignore[misc]


def minus(a: Params, b: Params) -> Params:
    return [x - y for x, y in zip(a, b, strict=True)]


def same(found: dict[str, Any], expected: Params) -> None:
    for name, value in zip(("weight", "bias"), expected, strict=True):
        np.testing.assert_allclose(found[name], value.numpy(), atol=1e-6)
