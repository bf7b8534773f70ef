"""Global random numbers for one site at a time: dropout and the like draw from generators of the whole process.

Torch's, NumPy's and Python's global generators are seeded before a site's code runs. Workers that are processes have
them to themselves. Workers that are threads of one process share them: the first site runs alone, and if it drew from
one, all sites run one at a time; if it did not, they run side by side, and a later draw is an error, not a difference.
Who is first need not come to an end for that: one that is stuck and has drawn nothing holds the others up for a while.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from hierfl.errors import HierflError

__all__ = ["Chance", "SharedChance"]

FIRST_S = 60.0
"""Seconds for which others wait for the first site; if it has not drawn by then, it is taken for one that does not."""

NEIGHBOURS_S = 60.0
"""Seconds for which a thread that sees a late draw waits for the others, one of which may be about to fail."""

T = TypeVar("T")


@dataclass(slots=True)
class _First:
    """The first run: its thread, the generators as it found them, when it began, and whether it was seen to draw."""

    thread: int
    seeded: tuple[Any, ...]
    since_s: float
    draws: bool = False


class Chance:
    """For a process with one worker: seed, then run."""

    def run(self, seed: int, work: Callable[[], T], *, checked: bool = True) -> T:
        """Run `work` with the global generators seeded; `checked` says that it is a site's training."""
        _seed(seed)
        return work()

    def check(self, *, failed: bool = False) -> None:
        """Nobody else draws from this process's generators."""


class SharedChance(Chance):
    """For the threads of one process; one object for all of them."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._at_work: set[int] = set()
        self._draws: bool | None = None
        self._rest: tuple[Any, ...] = ()
        self._first: _First | None = None

    def run(self, seed: int, work: Callable[[], T], *, checked: bool = True) -> T:
        """Run `work` alone or beside others, as its first run showed it can."""
        with self._lock:
            self._wait_for_first()
            if not checked or self._draws:
                return self._alone(seed, work, checked)
            if self._draws is None:
                _seed(seed)
                self._first = _First(threading.get_ident(), _states(), time.monotonic())
            else:
                self._at_work.add(threading.get_ident())
            first = self._first
        return work() if first is None else self._learn(first, work)

    def check(self, *, failed: bool = False) -> None:
        """Make sure that nobody drew who must not. Errors: HierflError for a late draw.

        Call it once after runs and before results leave: one look costs as much as a small site's step. `failed`: a run
        of this thread failed; what it drew is put back, for its error says more than a late draw would. Only a second
        look counts, when no other thread builds a model, which draws but puts the generators back, or may still fail.
        """
        with self._lock:
            self._at_work.discard(threading.get_ident())
            if failed and self._draws is False:
                _restore(self._rest)
            self._lock.notify_all()
        if self._draws is not False or _states() == self._rest:
            return
        with self._lock:
            self._lock.wait_for(lambda: not self._at_work or _states() == self._rest, NEIGHBOURS_S)
            if _states() != self._rest:
                raise HierflError(
                    "this task draws from a global random generator in some rounds only (as making a layer does); set"
                    " runtime.num_workers: 1, or draw from a generator of your own"
                )

    def _alone(self, seed: int, work: Callable[[], T], checked: bool) -> T:
        """Run with seeded generators while no other thread does."""
        kept = _states() if not checked else ()
        _seed(seed)
        result = work()
        if not checked:
            _restore(kept)
        return result

    def _learn(self, first: _First, work: Callable[[], T]) -> T:
        """Run as the first, and learn from that whether `work` draws, unless the others had to go on before."""
        has_ended = False
        try:
            result = work()
            has_ended = True
            return result
        finally:
            with self._lock:
                if self._first is first:
                    self._first = None
                    if has_ended:
                        self._rest = _states()
                        self._draws = self._rest != first.seeded
                    self._lock.notify_all()

    def _wait_for_first(self) -> None:
        """Let the first site end; where it takes too long, go by what it has drawn so far. The lock is held."""
        while (first := self._first) is not None and first.thread != threading.get_ident():
            left_s = first.since_s + FIRST_S - time.monotonic()
            if self._lock.wait_for(lambda: self._first is not first, max(0.0, left_s) if not first.draws else None):
                continue
            first.draws = _states() != first.seeded
            if not first.draws:
                self._rest, self._draws, self._first = first.seeded, False, None
                self._at_work.add(first.thread)
                self._lock.notify_all()


def _seed(seed: int) -> None:
    """Seed the three global generators; torch.manual_seed costs 2 ms a call where no CUDA was ever used."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _states() -> tuple[Any, ...]:
    """Give the three generators' states as values that compare."""
    numpy_state: Any = np.random.get_state(legacy=True)
    kind, keys, *rest = numpy_state
    return torch.get_rng_state().numpy().tobytes(), (kind, keys.tobytes(), *rest), random.getstate()


def _restore(states: tuple[Any, ...]) -> None:
    """Put the three generators back."""
    torch_state, (kind, keys, *rest), python_state = states
    torch.set_rng_state(torch.from_numpy(np.frombuffer(torch_state, np.uint8).copy()))
    numpy_state: Any = (kind, np.frombuffer(keys, np.uint32), *rest)
    np.random.set_state(numpy_state)
    random.setstate(python_state)
