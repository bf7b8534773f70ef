"""Aggregation: a hub adds 8 partial sums of 100 MB, on one thread and on all that it takes; a site encodes 100 MB."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.common import Case, Sample, Size, Work
from benchmarks.processes import watch

LIMIT_S = 0.06
READ_S = 0.04
"""What reading took where the limit was set."""


def works(size: Size) -> Iterator[Work]:
    yield _work(
        *(size, "sum", "aggregation, 8 x 100 MB"),
        {
            "read only": "read them once (bandwidth)",
            "float32": "float32 weighted sum, NumPy",
            "exact": "hierfl",
            "threads": "hierfl, all threads that a hub takes",
            "fresh": "hierfl, in fresh memory (a run's first round)",
        },
        {"limit_s": LIMIT_S, "first_s": READ_S},
    )
    yield _work(
        *(size, "encode", "encoding, 100 MB"),
        {
            "copy": "copy them once",
            "float32": "float32 weighted sum, NumPy",
            "exact": "hierfl",
            "numpy": "hierfl without llvmlite",
        },
        {},
    )


def _work(size: Size, work: str, name: str, kernels: dict[str, str], limits: dict[str, Any]) -> Work:
    """Read one process' answer as several contenders: they take turns inside it."""
    asked = {"work": work, "size": size.pick(25_000_000, 100_000), "parts": 8, "turns": size.pick(9, 2)}
    command = [sys.executable, "-m", "benchmarks.contenders.kernels", json.dumps(asked)]
    said: dict[str, list[float]] = {}

    def runner(kernel: str) -> Callable[[bool], Sample]:
        def run(memory: bool) -> Sample:
            if kernel == first:
                said.update(json.loads(watch(command)[0])["seconds"])
            return Sample(statistics.median(said[kernel]))

        return run

    first = next(iter(kernels))
    return Work(
        *(name, "s"),
        [Case(title, runner(kernel), **(limits if kernel == "exact" else {})) for kernel, title in kernels.items()],
    )
