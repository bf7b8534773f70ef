"""A worker's thread: it does what it is given one by one, and can be told to end in the middle of it."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeAlias

from hierfl.runtime.baton import interrupt
from hierfl.runtime.cores import Sleeper

__all__ = ["Ended", "WorkerThread"]

_Call: TypeAlias = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Ended(BaseException):
    """Nobody waits any more for what this thread is at."""


class WorkerThread:
    """Does calls in their order. Nothing in it keeps the process from ending, though it hang for ever.

    `over`: called after each of them, unless what came of it is wanted together with what comes of the next; `waits`:
    the thread that sleeps until it is called.
    """

    def __init__(self, name: str, over: Callable[[], None] = lambda: None, waits: Sleeper | None = None) -> None:
        self._over = over
        self._waits = waits
        self._sleeper = Sleeper()
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._joins: deque[bool] = deque()
        self._is_ending = False
        self._is_busy = False
        self._thread = threading.Thread(target=self._go, name=name, daemon=True)
        self._thread.start()

    def submit(
        self, method: Callable[..., Any], *arguments: Any, joins: bool = False, near: bool = False
    ) -> Future[Any]:
        """Let it call a method after all that it was given before; until then it can be cancelled.

        `joins`: what comes of it is wanted together with what comes of the call before, if that is not over. `near`:
        the caller is about to sleep, and leaves its core to it.
        """
        future: Future[Any] = Future()
        if near:
            self._sleeper.call()
        self._joins.append(joins)
        self._calls.put((future, method, arguments))
        return future

    def end(self) -> None:
        """Let it begin nothing more, and leave off what it is at."""
        self._is_ending = True
        self._calls.put(None)
        if self._is_busy and self._thread.ident is not None:
            interrupt(self._thread.ident, Ended)

    def join(self, timeout_s: float) -> bool:
        """Wait until it has ended; False if it does not."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _go(self) -> None:
        try:
            while (call := self._next()) is not None and not self._is_ending:
                future, method, arguments = call
                self._joins.popleft()
                if future.set_running_or_notify_cancel():
                    self._is_busy = True
                    self._do(future, method, arguments)
                    self._is_busy = False
                if not (self._joins and self._joins[0]):
                    if self._waits is not None and not self._joins:
                        self._waits.call()
                    self._over()
        except Ended:
            pass

    def _next(self) -> _Call | None:
        """Wait for the next call."""
        with self._sleeper.asleep():
            return self._calls.get()

    def _do(self, future: Future[Any], method: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            result = method(*arguments)
        except Ended:
            raise
        except BaseException as error:  # whoever waits for it is told
            future.set_exception(error)
        else:
            future.set_result(result)
