"""One session of a control stream: a nonce that the hub draws, and a number on every message of either side.

A message of another session, a repeated one, or one out of order is refused, whoever brings it.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from hierfl.errors import LinkError
from hierfl.link._wire import link_pb2 as wire

__all__ = ["NONCE_BYTES", "Session", "Stamps"]

NONCE_BYTES = 16


class Session:
    """A control stream that is open. `say`: sends a message; `end`: closes it, for a reason.

    `number`: of the process at the other end among those that may serve the member, which count in one `line`;
    `is_refused`: its answer to what it was asked was refused, which is the end of that question.
    """

    def __init__(
        self,
        instance: str,
        say: Callable[[wire.HubSays], None],
        end: Callable[[str], None],
        number: int = 0,
        line: str = "",
    ) -> None:
        self.instance = instance
        self.say = say
        self.end = end
        self.number = number
        self.line = line
        self.is_refused = False


class Stamps:
    """Marks what goes out, and checks what comes in. `nonce`: empty until the hub's welcome has brought it."""

    def __init__(self, nonce: bytes = b"") -> None:
        self.nonce = nonce
        self._sent = 0
        self._heard = 0

    def mark(self, message: Any) -> Any:
        """Put the session's nonce and the next number on a message."""
        self._sent += 1
        message.nonce, message.sequence = self.nonce, self._sent
        return message

    def skip(self) -> None:
        """Count a first message that was checked by itself."""
        self._heard += 1

    def check(self, message: Any) -> None:
        """Errors: LinkError unless a message is this session's next one."""
        if message.sequence != self._heard + 1:
            raise LinkError(f"message {message.sequence} of a session, where {self._heard + 1} comes next")
        if not hmac.compare_digest(message.nonce, self.nonce):
            raise LinkError("a message of another session")
        self._heard += 1
