"""Replies that come in another order than that in which they were made."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from typing import TypeVar

__all__ = ["in_turn"]

Reply = TypeVar("Reply", bound=Hashable)


def in_turn(sent: Iterable[tuple[Reply, Hashable | None]], come: Collection[Reply]) -> tuple[list[Reply], list[Reply]]:
    """Give the replies that may be read now, and those that have come but wait for an earlier one, in order.

    `sent`: the replies that are outstanding, in the order of their calls, each with the line in which it stands: a
    process that does one thing after the other answers in that order, though an answer may overtake another one on its
    way. None: it stands in no line. `come`: those that are there.
    """
    now: list[Reply] = []
    early: list[Reply] = []
    late: set[Hashable] = set()
    for reply, line in sent:
        if reply in come:
            (early if line in late else now).append(reply)
        elif line is not None:
            late.add(line)
    return now, early
