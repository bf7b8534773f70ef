"""Stops: Ctrl-C, SIGTERM of a batch system or a container, and a closed terminal end a command cleanly.

The first signal counts: the exit code is 128 and its number (130, 143, 129), whatever it meets on its way. Code in
between makes other things of it: Ray turns every stop into a plain KeyboardInterrupt, or puts an exit of its own in the
place of a handler; a finalizer swallows it; generated classes in an import let Python end by the signal itself, if it
is a plain KeyboardInterrupt that meets them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, NoReturn

__all__ = ["KEEPS_RAY_OUT", "Leaving", "Stopped", "Stops", "heard", "is_stop", "leaving", "recur", "unbroken"]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

KEEPS_RAY_OUT = "RAY_DISABLE_FAILURE_SIGNAL_HANDLER"
"""The variable without which Ray's library, once loaded, takes SIGTERM for a crash: it prints a stack and aborts."""

SAME_S = 1.0
"""Seconds within which another signal is the same stop: a terminal and a wrapper may both send one."""

AGAIN_S = 0.05
"""Seconds after which a stop that was swallowed comes again."""


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end; whatever ends cleanly on Ctrl-C ends so on this."""


class Stops:
    """What a command does on a signal that asks it to end, from its first line to its last; the handler itself.

    The first raises `Stopped` where the main thread is. Ctrl-C once more raises again: it cuts short what the first one
    waits for. A signal that was ignored when the command began (nohup, a shell's background) stays so.

    `is_told`: the user has been told of the stop; `is_over`: the command has its exit code, and nothing changes that.
    """

    any_has_heard: ClassVar = False
    """Whether there was a stop in this process, whoever heard it."""

    def __init__(self) -> None:
        self.heard: signal.Signals | None = None
        self.is_told = False
        self.is_over = False
        self._raised_s = 0.0
        self._shows_unraisable: Callable[[Any], object] = sys.unraisablehook

    @classmethod
    def listen(cls) -> Stops:
        """Hear the signals from now on. Must be called in the main thread, before Ray is imported."""
        os.environ.setdefault(KEEPS_RAY_OUT, "1")
        stops = cls()
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, stops)
        sys.unraisablehook = stops._raise_again
        return stops

    def __call__(self, number: int, frame: object) -> None:
        """Raise Stopped, if this is a new stop."""
        now_s = time.monotonic()
        if self.is_over:
            return
        if self.heard is None:
            self.heard, Stops.any_has_heard = signal.Signals(number), True
            if number != signal.SIGINT and number != signal.SIGTERM:
                _let_go_of_the_terminal()
        elif number != signal.SIGINT or now_s - self._raised_s < SAME_S:
            return
        self._raised_s = now_s
        raise Stopped

    def close(self) -> None:
        """Hear no more, in Python's own end too."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    @property
    def exit_code(self) -> int:
        """Give 128 and the signal's number, as a shell counts."""
        return 128 + (self.heard or signal.SIGINT)

    @property
    def cause(self) -> str:
        """Name what was heard, as a person knows it."""
        return self.heard.name if self.heard not in (None, signal.SIGINT) else "Ctrl-C"

    def _raise_again(self, unraisable: Any) -> None:
        """Send a stop once more that met a finalizer, where Python prints what is raised and goes on."""
        if self.heard is None or not isinstance(unraisable.exc_value, Stopped):
            self._shows_unraisable(unraisable)
            return
        number, self.heard = self.heard, None
        again = threading.Timer(AGAIN_S, signal.pthread_kill, (threading.main_thread().ident, number))
        again.daemon = True
        again.start()


def heard() -> Stops:
    """Give what the process has heard: of its handler, or nothing yet where a library's user has another."""
    for number in SIGNALS:
        handler = signal.getsignal(number)
        if isinstance(handler, Stops):
            return handler
    return Stops()


def is_stop(error: BaseException) -> bool:
    """Say whether a stop ends what this error ends, whatever the stop became on its way."""
    return isinstance(error, KeyboardInterrupt) or heard().heard is not None


def recur() -> None:
    """Raise a stop anew that was heard and swallowed on its way, as modules made by Cython do while they are loaded.

    To be called in the main thread's work, where nobody goes on after a stop; before every round. Errors: Stopped.
    """
    if not Stops.any_has_heard:
        return
    stops = heard()
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and stops.heard is not None and not stops.is_over:
        raise Stopped


@contextlib.contextmanager
def unbroken() -> Iterator[None]:
    """Put stops off while something runs that must not be cut short, and takes seconds at most.

    A first one is raised afterwards; after a stop, more of them are nothing new.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stops, late = heard(), list[int]()
    taken = [number for number in SIGNALS if callable(signal.getsignal(number))]
    try:
        with _handled(taken, lambda number, frame: late.append(number)):
            yield
    finally:
        if late and stops.heard is None:
            signal.raise_signal(late[0])


class Leaving(threading.Event):
    """Set by the first signal, for a command that leaves in its own time; another signal ends it at once."""

    def __init__(self) -> None:
        super().__init__()
        self._stops, self._number = heard(), signal.SIGINT

    def __call__(self, number: int, frame: object) -> None:
        """Take a signal, as its handler."""
        self._number = signal.Signals(number)
        if self.is_set():
            self.end()
        self.set()

    def end(self) -> NoReturn:
        """End the command as a stop does, by raising it."""
        self._stops.heard, Stops.any_has_heard = self._number, True
        raise Stopped


@contextlib.contextmanager
def leaving() -> Iterator[Leaving]:
    """Give what Ctrl-C and SIGTERM set meanwhile, in place of raising a stop."""
    asked = Leaving()
    with _handled((signal.SIGINT, signal.SIGTERM), asked):
        yield asked


@contextlib.contextmanager
def _handled(numbers: Iterable[signal.Signals], taking: Callable[[int, Any], object]) -> Iterator[None]:
    """Let signals be taken otherwise meanwhile."""
    before = {number: signal.getsignal(number) for number in numbers}
    for number in before:
        signal.signal(number, taking)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _let_go_of_the_terminal() -> None:
    """Speak to nobody where the terminal is gone: writing to it would be an error."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            if os.isatty(stream.fileno()):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
