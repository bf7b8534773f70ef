"""FedAvg as a loop in one process: copy the model, train, add up, average. No engine, nothing exact, nothing kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn import Module

from benchmarks.contenders.setting import KEPT_SITES, LR, Setting, answer, setting

__all__ = ["loop", "train"]


def main() -> None:
    work = setting()
    if work.threads:
        torch.set_num_threads(work.threads)
    one_round = loop(work)
    seconds = []
    for _ in range(work.rounds):
        begun = time.perf_counter()
        one_round()
        seconds.append(time.perf_counter() - begun)
    answer(seconds=work.counted(seconds))


def loop(work: Setting) -> Callable[[], None]:
    """Give what does a round of the loop, from the model that the one before has left."""
    torch.manual_seed(0)
    model, local = work.task.model(), work.task.model()
    return partial(_round, work, model, local, _batches(work))


def _batches(work: Setting) -> Callable[[str], tuple[Any, ...]]:
    """Give what gives a site's data: from memory if the sites are few."""

    def make(site: str) -> tuple[Any, ...]:
        return work.task.data(site).train.tensors  # type: ignore[attr-defined, no-any-return]

    if work.sites > KEPT_SITES:
        return make
    kept = {site: make(site) for site in work.names}
    return kept.__getitem__


def _round(work: Setting, model: Module, local: Module, batch: Callable[[str], tuple[Any, ...]]) -> None:
    """Do one round."""
    sums = [torch.zeros_like(parameter) for parameter in model.parameters()]
    weight = 0
    for site in work.names:
        data = batch(site)
        local.load_state_dict(model.state_dict())
        train(work, local, data)
        with torch.no_grad():
            for total, parameter in zip(sums, local.parameters(), strict=True):
                total.add_(parameter, alpha=work.num_samples)
        weight += work.num_samples
    with torch.no_grad():
        for total, parameter in zip(sums, model.parameters(), strict=True):
            parameter.copy_(total / weight)


def train(work: Setting, local: Module, data: tuple[Any, ...]) -> None:
    """Take the local steps, each on all of a site's samples."""
    optimizer = torch.optim.SGD(local.parameters(), lr=LR)
    for _ in range(work.local_steps):
        optimizer.zero_grad()
        work.task.loss(local, data).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


if __name__ == "__main__":
    main()
