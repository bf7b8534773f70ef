"""Every time of a link follows from one: the deadline, how long a member may be silent before its work is given up; and
how a moment is written, for people.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime

__all__ = ["Times", "moment"]


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds, from `deadline_s`."""

    deadline_s: float

    @property
    def beat_s(self) -> float:
        """Say something at least so often."""
        return min(5.0, self.deadline_s / 20)

    @property
    def silence_s(self) -> float:
        """Take a connection for cut after so long without a word; the member then dials anew."""
        return 3 * self.beat_s

    @property
    def farewell_s(self) -> float:
        """Wait at most so long until the other side has heard a farewell."""
        return max(1.0, self.beat_s)

    def back_off_s(self, attempt: int, chance: random.Random) -> float:
        """Wait so long before dialling for the n-th time in a row: twice as long each time, up to three beats.

        A part is drawn, so that the members of a hub that comes back do not all dial at once (Brooker 2015, "full
        jitter").
        """
        ceiling = min(self.silence_s, self.beat_s / 10 * 2.0 ** min(attempt, 16))
        return ceiling * (0.5 + 0.5 * chance.random())


def moment(when: datetime) -> str:
    """Write a moment, given in UTC, to the second: a certificate may hold for minutes."""
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"
