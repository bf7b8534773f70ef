"""The times that open rounds wait for. Seconds are the caller's, of any clock that never goes back."""

from __future__ import annotations

import math

from tiers.messages import SetTimer, TimeUp

__all__ = ["Timers"]


class Timers:
    """At most one round of a hub is open, and a hub's timers are those of that round."""

    def __init__(self) -> None:
        self._due: dict[str, list[tuple[float, SetTimer]]] = {}

    def set(self, hub: str, timer: SetTimer, opened_s: float) -> None:
        """Remember a timer of a round that was opened at `opened_s`."""
        self._due.setdefault(hub, []).append((opened_s + timer.after_s, timer))

    def drop(self, hub: str) -> None:
        """Forget a hub's timers: its round is over."""
        self._due.pop(hub, None)

    def left_s(self, now_s: float) -> float:
        """Give the seconds until the next timer is due; infinity if there is none."""
        return max(0.0, min((due_s for timers in self._due.values() for due_s, _ in timers), default=math.inf) - now_s)

    def ring(self, now_s: float) -> list[tuple[str, TimeUp]]:
        """Give what is due, by hub, in the order of time; each once."""
        rung = sorted(
            ((due_s, hub, timer) for hub, timers in self._due.items() for due_s, timer in timers if due_s <= now_s),
            key=lambda one: one[0],
        )
        for due_s, hub, timer in rung:
            self._due[hub].remove((due_s, timer))
        return [(hub, TimeUp(timer.round_number, timer.after_s)) for _, hub, timer in rung]
