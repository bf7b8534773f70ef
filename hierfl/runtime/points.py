"""Where a hub or a worker says which step it has reached, so that faults can happen there; else nothing does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hierfl.fault import Fault, Moment
from tiers.messages import Command

__all__ = ["NO_POINTS", "Claims", "NoPoints", "Points"]


class Points(Protocol):
    """Hears of the steps of one process."""

    def along(self, node: str, commands: Sequence[Command]) -> Iterable[Command]:
        """Give a hub's commands one by one, with its steps between them."""

    def reached(self, node: str, step: str, round_number: int | None = None) -> None:
        """A node has reached a step of a round, counted from 0; None: of the one that `along` has seen opened."""

    def over(self, node: str, serving: Any) -> Any:
        """Give what serves a hub, or something that lies in its place."""


@dataclass(frozen=True)
class NoPoints:
    """Does nothing."""

    def along(self, node: str, commands: Sequence[Command]) -> Iterable[Command]:
        """Give them as they are."""
        return commands

    def reached(self, node: str, step: str, round_number: int | None = None) -> None:
        """Let it go on."""

    def over(self, node: str, serving: Any) -> Any:
        """Give it as it is."""
        return serving


NO_POINTS = NoPoints()


class Claims(Protocol):
    """Says whether a fault is to happen, once for each time that it may."""

    def claim(self, fault: Fault, moment: Moment) -> bool:
        """Write down that a fault happens now; False if it has happened as often as it may."""
