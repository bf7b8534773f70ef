"""Patience with the other end of a call: gRPC waits for it without end, and heeds nothing else while it waits."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

__all__ = ["Patience"]


class Patience:
    """Calls `give_up` once nothing was heard for `silence_s`, in a thread of its own, while its `with` lasts.

    `first_s`: how long to wait for the first word, where that is another time.
    """

    def __init__(self, silence_s: float, give_up: Callable[[], object], first_s: float | None = None) -> None:
        self._silence_s = silence_s
        self._give_up = give_up
        self._until_s = time.monotonic() + (silence_s if first_s is None else first_s)
        self._end_s = math.inf
        self._is_over = False
        self._turn = threading.Condition()
        self._thread = threading.Thread(target=self._watch, name="patience", daemon=True)

    def heard(self) -> None:
        """Something has come."""
        self._until_s = time.monotonic() + self._silence_s

    def at_most(self, left_s: float) -> None:
        """Wait for so long from now on, whatever is heard."""
        with self._turn:
            self._end_s = min(self._end_s, time.monotonic() + left_s)
            self._turn.notify()

    def __enter__(self) -> Patience:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._turn:
            self._is_over = True
            self._turn.notify()

    def _watch(self) -> None:
        with self._turn:
            while not self._is_over and (left_s := min(self._until_s, self._end_s) - time.monotonic()) > 0:
                self._turn.wait(min(left_s, self._silence_s))
            if self._is_over:
                return
        self._give_up()
