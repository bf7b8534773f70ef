"""How a piece of work is measured: contenders take turns (A-B-A-B), medians count, ratios are taken turn by turn.

On a shared machine single figures wander; contenders that run one right after the other meet much the same weather, so
the median of each turn's ratio to the raw loop says more than the ratio of two medians. What takes milliseconds takes
turns with the raw loop within one process (`contenders.in_turns`), and tells the ratio itself.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

__all__ = ["GIB", "Case", "Row", "Sample", "Size", "Work", "in_words", "machine", "measure", "table"]

GIB = 2**30


@dataclass(frozen=True)
class Size:
    """How long to measure. `quick`: tiny, only to see that all of it works; its figures mean nothing."""

    quick: bool = False
    turns: int = 3

    def pick(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True)
class Sample:
    """One turn of one contender: the median seconds of its repetitions, or the peak of its memory.

    `ratio`: of a contender that takes turns with the work's first in one process, what it took there beside that one.
    """

    seconds: float | None = None
    peak_bytes: int | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class Case:
    """One contender of a work. `limit_ratio` is to the work's first case, `limit_bytes` a peak.

    `limit_s` was set on a machine on which the first case took `first_s`: on a slower one the same ratio holds instead.

    `run(memory)` gives one turn; with `memory` only the peak counts of it, and only cases with `memory` are asked.
    """

    contender: str
    run: Callable[[bool], Sample]
    limit_s: float | None = None
    first_s: float | None = None
    limit_ratio: float | None = None
    limit_bytes: int | None = None
    memory: bool = False


@dataclass(frozen=True)
class Work:
    """Cases that do the same; the first is what the others are compared with. A long one may bound its turns."""

    name: str
    what: str
    cases: Sequence[Case]
    max_turns: int = 100


@dataclass(frozen=True)
class Row:
    """What one case took: medians over the turns; `turns` holds each turn's seconds."""

    work: str
    what: str
    contender: str
    seconds: float
    ratio: float
    peak_bytes: int | None
    limits: Mapping[str, float] = field(default_factory=dict)
    turns: Sequence[float] = ()

    @property
    def held(self) -> bool | None:
        """Whether all limits hold; None where there is none."""
        if not self.limits:
            return None
        found = {"ratio": self.ratio, "peak_bytes": self.peak_bytes or 0}
        fast = self.seconds <= self.limits.get("seconds", math.inf) or self.held_as_ratio
        return fast and all(found[name] <= limit for name, limit in self.limits.items() if name in found)

    @property
    def held_as_ratio(self) -> bool:
        """Whether the limit in seconds is missed, and kept as the ratio that it was on the machine where it was set."""
        missed = self.seconds > self.limits.get("seconds", math.inf)
        return missed and self.ratio <= self.limits.get("ratio of seconds", 0.0)


def measure(work: Work, turns: int, say: Callable[[str], None]) -> Iterator[Row]:
    """Let the cases take turns; yield a row for each."""
    taken: list[list[float]] = [[] for _ in work.cases]
    ratios: list[list[float]] = [[] for _ in work.cases]
    turns = min(turns, work.max_turns)
    for turn in range(turns):
        for case, seconds, own in zip(work.cases, taken, ratios, strict=True):
            say(f"{work.name}: {case.contender}, turn {turn + 1} of {turns}")
            sample = case.run(False)
            assert sample.seconds is not None
            seconds.append(sample.seconds)
            own.append(sample.seconds / taken[0][turn] if sample.ratio is None else sample.ratio)
    for case, seconds, own in zip(work.cases, taken, ratios, strict=True):
        peak = None
        if case.memory:
            say(f"{work.name}: {case.contender}, memory")
            peak = case.run(True).peak_bytes
        scaled = case.limit_s / case.first_s if case.limit_s and case.first_s else None
        limits = {
            "seconds": case.limit_s,
            "ratio of seconds": scaled,
            "ratio": case.limit_ratio,
            "peak_bytes": case.limit_bytes,
        }
        yield Row(
            *(work.name, work.what, case.contender, statistics.median(seconds), statistics.median(own), peak),
            {name: limit for name, limit in limits.items() if limit is not None},
            seconds,
        )


def machine() -> dict[str, str]:
    """Describe the machine in general words, and the versions that matter."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    names = ["hierfl", "numpy", "ray", "torch", *(["llvmlite"] if find_spec("llvmlite") else [])]
    packages = {name: metadata.version(name) for name in names}
    return {
        "machine": f"{cores} core{'s' * (cores != 1)} of an {_processor()}, {gib:.0f} GiB",
        "python": platform.python_version(),
        **packages,
    }


def in_words(said: Mapping[str, str]) -> str:
    """Write what `machine` said, and what was added to it, as one line."""
    return ", ".join(value if key == "machine" else f"{key} {value}" for key, value in said.items())


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Draw rows as a Markdown table whose columns stand below each other."""
    cells = [header, ["---"] * len(header), *rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    )


def _processor() -> str:
    """Name the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
