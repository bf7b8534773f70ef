"""hierfl's `local` and the raw loop in turns, some rounds each, in one process: both meet the same weather.

Where cores are shared, rounds of milliseconds take twice as long in one second as in the next, and two processes, one
after the other, differ by more than what is to be measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch

from benchmarks.contenders.engine import Clock, carry_out
from benchmarks.contenders.raw_loop import loop
from benchmarks.contenders.setting import Setting, answer, setting
from hierfl.monitor.records import Record

SKIPPED = 2
"""First turns that do not count: caches are cold, and the scheduler tries what is fastest."""

SETTLING = 2
"""First rounds of the raw loop's turn that do not count: its tensors are in no cache."""


class InTurns(Clock):
    """A monitor that lets the raw loop take a turn after every `turn` rounds; between two rounds nothing else goes on.

    `raw`: takes the loop's turn, and gives the median seconds of its rounds. `own`, `beside`: by turn, the median
    seconds of hierfl's rounds and of the loop's after them.
    """

    def __init__(self, turn: int, raw: Callable[[], float]) -> None:
        super().__init__()
        self.turn = turn
        self.raw = raw
        self.own: list[float] = []
        self.beside: list[float] = []

    def on(self, record: Record) -> None:
        super().on(record)
        if len(self.times) > self.turn:
            self.own.append(statistics.median(later - earlier for earlier, later in pairwise(self.times)))
            self.beside.append(self.raw())
            self.times = [time.perf_counter()]

    def ratios(self) -> list[float]:
        """Give hierfl's turns that count, each over the mean of the loop's turns before and after it."""
        around = [statistics.mean(pair) for pair in pairwise(self.beside)]
        return [own / raw for own, raw in zip(self.own[1:], around, strict=True)][SKIPPED - 1 :]


def main() -> None:
    work = setting()
    turns = InTurns(work.turn, raw_turn(work))
    summary = carry_out(work, turns)
    ratios = turns.ratios()
    answer(seconds=turns.own[SKIPPED:], ratio=statistics.median(ratios), ratios=ratios, digest=summary["model_digest"])


def raw_turn(work: Setting) -> Callable[[], float]:
    """Give what takes the raw loop's turn, on as many threads as torch takes where nobody says."""
    threads, one_round = torch.get_num_threads(), loop(work)

    def turn() -> float:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        times = [time.perf_counter()]
        for _ in range(SETTLING + work.turn):
            one_round()
            times.append(time.perf_counter())
        torch.set_num_threads(before)
        return statistics.median(later - earlier for earlier, later in pairwise(times[SETTLING:]))

    return turn


if __name__ == "__main__":
    main()
