"""The two loops over a large vector that a round is made of, a hub's sum and a site's encoding: on one thread each.

The sum is taken once more by as many threads as a hub has for it.

Everything is timed in this one process, in turns; the answer holds each kernel's seconds by name.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.contenders.setting import answer
from hierfl.learning import blocks, quantise
from hierfl.learning.ring import Accumulator, Grid, PartialSum
from hierfl.learning.state import Layout, ModelState

WEIGHT = 32
NO_INTS = np.zeros(0, np.int64)


def main() -> None:
    asked = json.loads(sys.argv[1])
    size, parts, turns = int(asked["size"]), int(asked["parts"]), int(asked["turns"])
    kernels = _sums(size, parts) if asked["work"] == "sum" else _encoding(size)
    taken: dict[str, list[float]] = {name: [] for name in kernels}
    for turn in range(turns + 1):
        for name, kernel in kernels.items():
            begun = time.perf_counter()
            kept = kernel()
            seconds = time.perf_counter() - begun
            del kept
            if turn:  # the first turn warms up
                taken[name].append(seconds)
    answer(seconds=taken)


def _sums(size: int, parts: int) -> dict[str, Callable[[], Any]]:
    """Sum `parts` vectors. The limit of the machine is to read them all once."""
    random = np.random.default_rng(0)
    layout, grid = Layout.of({"w": ((size,), "float32")}), Grid(32, 8.0, parts * WEIGHT)
    sums = [PartialSum(random.integers(-9999, 9999, size, np.int32), NO_INTS, WEIGHT) for _ in range(parts)]
    models = [part.floats.astype(np.float32) for part in sums]

    def read() -> list[Any]:
        return [part.floats.max() for part in sums]

    earlier = np.zeros(size, np.int32)

    def exact(memory: Any = None, num_threads: int = 1) -> PartialSum:
        blocks.THREADS = num_threads
        total = Accumulator(grid, layout, memory)
        for part in sums:
            total.add_sum(part)
        return total.total()

    def weighted() -> Any:
        total = np.zeros(size, np.float32)
        for model in models:
            total += np.float32(1 / parts) * model
        return total

    many = blocks.THREADS
    return {
        "read only": read,
        "exact": lambda: exact(earlier),
        "threads": lambda: exact(earlier, many),
        "fresh": exact,
        "float32": weighted,
    }


def _encoding(size: int) -> dict[str, Callable[[], Any]]:
    """Encode one site's change and add it to a running sum, as a worker does for each of its sites."""
    random = np.random.default_rng(0)
    layout, grid = Layout.of({"w": ((size,), "float32")}), Grid(32, 8.0, 2**40)
    start = ModelState(random.standard_normal(size, np.float32), NO_INTS)
    local = ModelState(start.floats + np.float32(0.01), NO_INTS)
    target, mean, total = np.zeros(size, np.float32), np.zeros(size, np.float32), Accumulator(grid, layout)

    units, (factor, _) = np.zeros(size, np.int32), grid.scale(WEIGHT)

    def weighted() -> None:
        np.add(mean, np.float32(1 / WEIGHT) * local.floats, out=mean)

    return {
        "copy": lambda: np.copyto(target, local.floats),
        "exact": lambda: total.add_update(local, start, WEIGHT),
        "numpy": lambda: quantise.by_numpy(units, local.floats, start.floats, factor, 1, grid.clip),
        "float32": weighted,
    }


if __name__ == "__main__":
    main()
