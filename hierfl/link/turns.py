"""Whose update comes now: few members send at a time, so that a hub's memory does not grow with their number.

An update on its way takes memory where it comes faster than the hub can take it. So a few members send, and the next
one begins when one of them has ended, or comes so slowly that it is no burden: whoever has a narrow line, or has
stalled, keeps nobody waiting.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["AT_ONCE", "Turns"]

AT_ONCE = 2
"""One is on its way while the other one's last chunks are hashed and written."""

SPAN_S = 0.5
SWIFT_BYTES = 8 << 20
"""Who sends less in a span is slow."""


@dataclass
class _Sender:
    """Who has its turn: how much has come since a span began, and whether the one before was slow."""

    since_s: float
    num_bytes: int = 0
    is_slow: bool = False

    def judge(self, now_s: float) -> None:
        """Begin another span where one is over."""
        if now_s - self.since_s >= SPAN_S:
            self.is_slow = self.num_bytes < SWIFT_BYTES
            self.since_s, self.num_bytes = now_s, 0


class Turns:
    """The turns of a hub's members; safe among threads. `now`: seconds, never back."""

    def __init__(self, at_once: int = AT_ONCE, now: Callable[[], float] = time.monotonic) -> None:
        self._at_once = at_once
        self._now = now
        self._lock = threading.Lock()
        self._sending: dict[str, _Sender] = {}
        self._waiting: dict[str, Callable[[], None]] = {}

    def ask(self, who: str, go: Callable[[], None]) -> bool:
        """Say whether a member may send now. If not it waits, and `go` is called once it may: by some thread that holds
        no lock but its own.
        """
        with self._lock:
            if who not in self._sending:
                if self._waiting or not self._has_room():
                    self._waiting.setdefault(who, go)
                    return False
                self._sending[who] = _Sender(self._now())
            return True

    def moved(self, who: str, num_bytes: int) -> None:
        """So much of an update has come."""
        with self._lock:
            sender = self._sending.get(who)
            if sender is not None:
                sender.num_bytes += num_bytes
        self.look()

    def leave(self, who: str) -> None:
        """A member sends and wants nothing any more."""
        self.forget(who)
        self.look()

    def forget(self, who: str) -> None:
        """As `leave`, by who holds a lock of its own: it calls `look` once it does not."""
        with self._lock:
            self._sending.pop(who, None)
            self._waiting.pop(who, None)

    def give_back(self, who: str) -> None:
        """A member does not use its turn; if it waits anew it goes on waiting. Who calls this calls `look` then."""
        with self._lock:
            self._sending.pop(who, None)

    def look(self) -> None:
        """Let those begin who have waited longest, where there is room."""
        let: list[Callable[[], None]] = []
        with self._lock:
            while self._waiting and self._has_room():
                who = next(iter(self._waiting))
                let.append(self._waiting.pop(who))
                self._sending[who] = _Sender(self._now())
        for go in let:
            go()

    def _has_room(self) -> bool:
        now_s = self._now()
        for sender in self._sending.values():
            sender.judge(now_s)
        return sum(not sender.is_slow for sender in self._sending.values()) < self._at_once
