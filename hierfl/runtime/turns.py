"""The order of a worker's calls where a second thread takes those that go past what the first is at work on.

Calls begin in the order of their tickets, each after the calls that went past it had been made before it. One that has
not begun can be taken back, and then is passed over: so nothing is ever done both here and where it went instead.
"""

from __future__ import annotations

import threading
from collections.abc import Collection

__all__ = ["NONE", "Turns"]

NONE = -1
"""The ticket of no call."""


class Turns:
    """Two threads ask: one begins calls, the other goes past. Tickets grow from call to call."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._begun = NONE
        self._passed = NONE
        self._taken: set[int] = set()

    def begin(self, ticket: int, after: int = NONE) -> bool:
        """Begin a call once that of the ticket `after` has gone past; False if it was taken back."""
        with self._changed:
            self._changed.wait_for(lambda: self._passed >= after)
            self._begun = ticket
            is_taken = ticket in self._taken
            self._taken.discard(ticket)
            return not is_taken

    def take_back(self, tickets: Collection[int]) -> tuple[int, ...]:
        """Take back the calls among these that have not begun; return which."""
        with self._changed:
            found = tuple(ticket for ticket in tickets if ticket > self._begun)
            self._taken.update(found)
            return found

    def passed(self, ticket: int) -> None:
        """A call that went past is over."""
        with self._changed:
            self._passed = ticket
            self._changed.notify_all()
