"""What a person is told of a round that did not wait for all: who was late, and what counted that came late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hierfl.monitor.records import Notice, RoundClosed

__all__ = ["lateness"]

NAMED = 3
"""Members that are named on one line."""


def lateness(closed: RoundClosed) -> Iterator[Notice]:
    """Say it in notices; nothing of a round in which nobody was late."""
    if closed.late:
        yield Notice(closed.time_s, "info", closed.node, f"closes without {_few(closed.late)}: {closed.reason}")
    for member, counts in list(closed.carried.items())[:NAMED]:
        yield Notice(closed.time_s, "info", f"{closed.node}/{member}", counts)
    if len(closed.carried) > NAMED:
        more = f"{len(closed.carried) - NAMED:,} more late updates count"
        yield Notice(closed.time_s, "info", closed.node, more)


def _few(names: Sequence[str]) -> str:
    """Name a few, and count the rest."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
