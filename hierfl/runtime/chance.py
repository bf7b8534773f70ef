"""Global random numbers for one site at a time: dropout and the like draw from generators of the whole process.

Torch's, NumPy's and Python's global generators are seeded before a site's code runs. Workers that are processes have
them to themselves. Workers that are threads of one process share them: the first site runs alone, and if it drew from
one, all sites run one at a time; if it did not, they run side by side, and a later draw is an error, not a difference.

Who is first need not come to an end for that: if it has drawn nothing for a while, the others go on beside it. And a
site that hangs while it runs alone does not hold the others up for ever: they go on without it (`baton`), and should it
go on later, it runs anew from its beginning when it has its turn, to the same bits.
"""

from __future__ import annotations

import ctypes
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch

from hierfl.errors import HierflError
from hierfl.learning.seeds import seed_globally
from hierfl.runtime.baton import LOOK_S, PATIENCE_S, Baton, Hold, Interrupted

__all__ = ["Chance", "SharedChance", "surroundings"]

TWISTER_BYTES = 624 * 4 + 4
"""A Mersenne twister's state in NumPy: its words, and its place among them."""

FIRST_S = 60.0
"""Seconds for which others wait for the first site; if it has not drawn by then, it is taken for one that does not."""

NEIGHBOURS_S = 60.0
"""Seconds for which a thread that sees a late draw waits for the others, one of which may be about to fail."""

LATE_DRAW = (
    "this task draws from a global random generator, but not at the first site that trained: at some sites or in some"
    " steps only (augmentation at one site, noise in predict(), random_split in data(), a layer that is made on the"
    " way). Workers that are threads share these generators and had begun to train side by side; set"
    " runtime.num_workers: 1, or draw from a generator of your own (random_split(..., generator=torch.Generator()"
    ".manual_seed(seed)))"
)
SURVIVED = (
    "this task draws from a global random generator, hung, and then went on beside others although it was interrupted:"
    " something in it catches every exception (`except:`, `except BaseException:`); let it catch Exception, or set"
    " runtime.num_workers: 1"
)

T = TypeVar("T")


@dataclass(slots=True)
class _First:
    """The first run: its turn, the generators' marks as it found them, when it began, and if it was seen to draw."""

    hold: Hold
    seeded: tuple[Any, ...]
    since_s: float
    draws: bool = False


class Chance:
    """For a process with one worker: seed, then run."""

    def run(self, seed: int, work: Callable[[], T], *, checked: bool = True) -> T:
        """Run `work` with the global generators seeded; `checked` says that it is a site's training.

        Errors: Interrupted where such a site hung, and has to begin anew.
        """
        seed_globally(seed)
        return work()

    def check(self, *, failed: bool = False) -> None:
        """Nobody else draws from this process's generators."""

    def waited_s(self) -> float:
        """Give the seconds for which this thread has waited for others, and count anew."""
        return 0.0


class SharedChance(Chance):
    """For the threads of one process; one object for all of them. `patience_s`: how long one that has the generators
    to itself may stand still; twice as long each time that it did so for nothing.
    """

    def __init__(self, patience_s: float = PATIENCE_S, look_s: float = LOOK_S) -> None:
        self._baton = Baton(look_s)
        self._changed = self._baton.changed
        self._at_work: set[int] = set()
        self._draws: bool | None = None
        self._rest: tuple[Any, ...] = ()
        self._still: tuple[Any, ...] = ()
        """What the generators are, and their marks, as long as nobody draws."""
        self._first: _First | None = None
        self._patience_s = patience_s
        self._patient_s: dict[int, float] = {}
        self._waited_s: dict[int, float] = {}
        self._is_spoiled = False

    def run(self, seed: int, work: Callable[[], T], *, checked: bool = True) -> T:
        """Run `work` alone or beside others, as its first run showed it can."""
        while not checked or self._draws is not False:
            hold = self._wait(checked)
            if hold is None:
                break
            try:
                return self._alone(hold, seed, work, checked)
            except Interrupted:
                self._patient_s[hold.thread] = 2 * hold.patience_s
                if checked:
                    raise
        with self._changed:
            self._at_work.add(threading.get_ident())
        return work()

    def check(self, *, failed: bool = False) -> None:
        """Make sure that nobody drew who must not. Errors: HierflError for a late draw.

        Call it once after runs and before results leave: one look costs as much as a small site's step. `failed`: a run
        of this thread failed; what it drew is put back, for its error says more than a late draw would. Only a second
        look counts, when no other thread builds a model, which draws but puts the generators back, or may still fail.
        """
        with self._changed:
            self._at_work.discard(threading.get_ident())
            self._patient_s.pop(threading.get_ident(), None)
            if failed and self._draws is False:
                self._baton.wait()
                _restore(self._rest)
            self._changed.notify_all()
        if self._is_spoiled:
            raise HierflError(SURVIVED)
        if self._draws is not False or _marks() == self._still:
            return
        with self._changed:
            self._baton.wait()
            self._changed.wait_for(
                lambda: self._baton.is_free and (not self._at_work or _marks() == self._still), NEIGHBOURS_S
            )
            self._baton.wait()
            if _marks() != self._still:
                raise HierflError(LATE_DRAW)

    def waited_s(self) -> float:
        """Give the seconds for which this thread has waited for its turn, and count anew."""
        return self._waited_s.pop(threading.get_ident(), 0.0)

    def _wait(self, checked: bool) -> Hold | None:
        """Wait for the generators; None if they need not be waited for: nobody draws."""
        thread, began_s = threading.get_ident(), time.monotonic()
        hold = self._baton.take(
            self._patient_s.get(thread, self._patience_s), unless=lambda: self._goes_beside() and checked
        )
        self._waited_s[thread] = self._waited_s.get(thread, 0.0) + time.monotonic() - began_s
        return hold

    def _goes_beside(self) -> bool:
        """Say whether it is known that nobody draws; where the first site takes too long, go by what it has drawn."""
        first = self._first
        if first is None or self._draws is not None or first.draws or not self._baton.has(first.hold):
            return self._draws is False
        if time.monotonic() - first.since_s < FIRST_S:
            return False
        states = _states()  # before the look: what is drawn meanwhile is seen
        first.draws = _marks() != first.seeded
        if not first.draws:
            self._rest, self._still, self._draws = states, first.seeded, False
            self._at_work.add(first.hold.thread)
            self._baton.let_go(first.hold)
        return not first.draws

    def _alone(self, hold: Hold, seed: int, work: Callable[[], T], checked: bool) -> T:
        """Run with seeded generators while no other thread does, and learn whether `work` draws."""
        kept = _states() if not checked else ()
        if kept:
            hold.undo = partial(_restore, kept)
        try:
            seed_globally(seed)
            if checked and self._draws is None:
                self._first = _First(hold, _marks(), time.monotonic())
            result = work()
        except Interrupted:
            raise
        except BaseException:
            self._end(hold)
            raise
        with self._changed:
            self._is_spoiled |= hold.is_lost and self._draws is not False  # it has gone on to its end all the same
            if self._draws is None and checked and self._baton.has(hold):
                assert self._first is not None
                self._rest, self._still = _states(), _marks()
                self._draws = self._still != self._first.seeded
            self._end(hold)
        return result

    def _end(self, hold: Hold) -> None:
        """A turn is over. Errors: Interrupted if it was taken away."""
        with self._changed:
            if self._baton.has(hold):
                hold.undo()
            self._baton.give_back(hold)


def surroundings() -> Callable[[], None]:
    """Give what puts back what a run changes in a process that is not its own alone: the generators, torch's number of
    threads, and what it was told of kernels.
    """
    states, cudnn, threads = _states(), torch.backends.cudnn, torch.get_num_threads()
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    said = _kernels()
    kernels = cudnn.benchmark, cudnn.deterministic

    def put_back() -> None:
        _restore(states)
        if on_gpus:
            torch.cuda.set_rng_state_all(on_gpus)
        if _kernels() != said:  # to say it loads torch's compiler
            torch.use_deterministic_algorithms(said[0], warn_only=said[1])
        cudnn.benchmark, cudnn.deterministic = kernels
        torch.set_num_threads(threads)

    return put_back


def _kernels() -> tuple[bool, bool]:
    """Say whether torch is to use deterministic kernels, and only to warn where it has none."""
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _marks() -> tuple[Any, ...]:
    """Give values that differ from before once anybody has drawn from one of the three generators.

    NumPy takes 50 us to tell its state as Python has it: a Mersenne twister's is read where it lies.
    """
    random_numbers: Any = np.random  # its stubs leave this one out
    bits = random_numbers.get_bit_generator()
    is_twister = type(bits) is np.random.MT19937  # it is, unless the task has put another in its place
    numbers = ctypes.string_at(bits.ctypes.state_address, TWISTER_BYTES) if is_twister else b""
    return torch.get_rng_state().numpy().tobytes(), numbers, random.getstate()


def _states() -> tuple[Any, ...]:
    """Give what `_restore` puts the three generators back to."""
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
