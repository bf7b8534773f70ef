"""A baton for threads: one has it at a time, and one that does not move loses it to who waits.

A thread cannot be ended. But it can be made to raise an exception as soon as it runs Python again, and that is soon
enough: a thread that has stood at the same place without using the processor is caught there before it does anything
else. What it was at is to be done anew, once it has the baton again.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LOOK_S", "PATIENCE_S", "USED_S", "Baton", "Hold", "Interrupted", "interrupt"]

PATIENCE_S = 30.0
"""Seconds for which a thread may stand still with the baton, while others wait for it."""

LOOK_S = 1.0
USED_S = 0.01
"""How often those who wait look, and how much of the processor's time is a move, though it ends where it began."""


class Interrupted(BaseException):
    """The baton was taken from this thread, which did not move: begin anew. No `Exception`, so that users' code that
    survives everything does not survive this.
    """


def interrupt(thread: int, error: type[BaseException] | None) -> None:
    """Let a thread (its ident) raise an exception as soon as it runs Python again; None takes that back."""
    raised = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)


def _places(thread: int) -> tuple[Any, ...]:
    """Say where a thread is: every frame's place in its code."""
    frame, places = sys._current_frames().get(thread), []
    while frame is not None:
        places.append((id(frame), frame.f_lasti))
        frame = frame.f_back
    return tuple(places)


def _used_s(thread: int) -> float:
    """Give what a thread has used of the processor; 0 where that is not told (macOS)."""
    clock = getattr(time, "pthread_getcpuclockid", None)
    return 0.0 if clock is None else time.clock_gettime(clock(thread))


@dataclass(eq=False)
class Hold:
    """A thread's time with the baton. `undo`: what who takes it away does first; `is_lost`: it was taken away.

    `since_s`: when it was seen to have moved last, with its `places` then, and what it had `used_s` of the processor.
    """

    thread: int
    patience_s: float
    since_s: float
    undo: Callable[[], None] = lambda: None
    places: tuple[Any, ...] = ()
    used_s: float = 0.0
    is_lost: bool = False


@dataclass
class Baton:
    """One for all threads; `changed` is its lock, and is told whenever it is given back."""

    look_s: float = LOOK_S
    now: Callable[[], float] = time.monotonic
    changed: threading.Condition = field(default_factory=threading.Condition)
    _hold: Hold | None = None

    @property
    def is_free(self) -> bool:
        """Whether nobody has it."""
        return self._hold is None

    def has(self, hold: Hold) -> bool:
        """Say whether this thread has it still."""
        return self._hold is hold

    def wait(self, until: Callable[[], bool] = lambda: False) -> None:
        """Wait until nobody has it, or something holds; the lock must be held. Who does not move loses it."""
        while self._hold is not None and not until():
            if self._hold is not None:  # `until` may let it go
                self.changed.wait(self.look_s)
                self.look()

    def take(self, patience_s: float, *, unless: Callable[[], bool] = lambda: False) -> Hold | None:
        """Wait for it and take it; None as soon as `unless` holds."""
        with self.changed:
            self.wait(unless)
            if unless():
                return None
            self._hold = Hold(threading.get_ident(), patience_s, self.now())
            return self._hold

    def give_back(self, hold: Hold) -> None:
        """Let others have it, if it was not let go before. Errors: Interrupted if it was taken away."""
        with self.changed:
            if hold.is_lost:
                interrupt(hold.thread, None)
                raise Interrupted
            self.let_go(hold)

    def let_go(self, hold: Hold) -> None:
        """Let others have it, whatever the one who has it goes on with; the lock must be held."""
        if self._hold is hold:
            self._hold = None
            self.changed.notify_all()

    def look(self) -> None:
        """See whether who has it moves; take it away if that has not been so for long."""
        hold, now_s = self._hold, self.now()
        if hold is None:
            return
        places, used_s = _places(hold.thread), _used_s(hold.thread)
        if places != hold.places or used_s - hold.used_s > USED_S:
            hold.places, hold.used_s, hold.since_s = places, used_s, now_s
        elif now_s - hold.since_s >= hold.patience_s:
            interrupt(hold.thread, Interrupted)
            hold.undo()
            hold.is_lost, self._hold = True, None
            self.changed.notify_all()
