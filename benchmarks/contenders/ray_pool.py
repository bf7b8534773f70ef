"""What one writes on Ray in an afternoon: two long-lived actors, flat NumPy vectors, float32 sums in the driver.

Variants: "per site" hands up each site's model, "pre-aggregated" one weighted sum per actor.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from benchmarks.contenders.setting import Setting, answer, setting

NUM_ACTORS = 2

Vector = NDArray[np.float32]


class Pool:
    """One actor of the pool, with a model and the data of the sites that it has seen."""

    def __init__(self, work: Setting) -> None:
        import torch

        from benchmarks.contenders import raw_loop

        torch.manual_seed(0)
        self.work = work
        self.model = work.task.model()
        self._data: dict[str, tuple[Any, ...]] = {}
        self._step = raw_loop.train

    def first(self) -> Vector:
        """Give the model as it was built."""
        return self._read()

    def train(self, model: Vector, site: str) -> Vector:
        """Train one site from a model; give its model."""
        import torch

        if site not in self._data:
            self._data[site] = self.work.task.data(site).train.tensors  # type: ignore[attr-defined]
        at = 0
        with torch.no_grad():
            for parameter in self.model.parameters():
                values = model[at : at + parameter.numel()]
                parameter.copy_(torch.from_numpy(values.copy()).view_as(parameter))
                at += parameter.numel()
        self._step(self.work, self.model, self._data[site])
        return self._read()

    def train_many(self, model: Vector, sites: list[str]) -> Vector:
        """Train sites and add them up."""
        total = np.zeros_like(model)
        for site in sites:
            total += self.work.num_samples * self.train(model, site)
        return total

    def _read(self) -> Vector:
        return np.concatenate([parameter.detach().numpy().ravel() for parameter in self.model.parameters()])


def main() -> None:
    work = setting()
    ray.init("local", num_cpus=NUM_ACTORS, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    actors: list[Any] = [ray.remote(Pool).options(num_cpus=1).remote(work) for _ in range(NUM_ACTORS)]
    model: Vector = ray.get(actors[0].first.remote())
    run = _pre_aggregated if work.variant == "pre-aggregated" else _per_site
    seconds = []
    for _ in range(work.rounds):
        begun = time.perf_counter()
        model = run(work, actors, model)
        seconds.append(time.perf_counter() - begun)
    ray.shutdown()
    answer(seconds=work.counted(seconds))


def _per_site(work: Setting, actors: list[Any], model: Vector) -> Vector:
    """Ask for one site at a time; add up as they come."""
    place = ray.put(model)
    waiting = [actors[number % NUM_ACTORS].train.remote(place, site) for number, site in enumerate(work.names)]
    total, weight = np.zeros_like(model), 0
    while waiting:
        ready, waiting = ray.wait(waiting)
        total += work.num_samples * ray.get(ready[0])
        weight += work.num_samples
        del ready
    return total / np.float32(weight)


def _pre_aggregated(work: Setting, actors: list[Any], model: Vector) -> Vector:
    """Ask each actor for the sum of its share of the sites."""
    place = ray.put(model)
    sums = [actor.train_many.remote(place, list(work.names[number::NUM_ACTORS])) for number, actor in enumerate(actors)]
    total: Vector = np.add(*(ray.get(part) for part in sums))
    return np.divide(total, np.float32(work.sites * work.num_samples))


if __name__ == "__main__":
    main()
