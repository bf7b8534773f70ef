"""Partition: the run and a hub do not hear each other for a while; what was said arrives afterwards, in its order.

Connections of Ray resend what was lost, so that to both sides a partition is silence. One that outlasts the hub's lease
makes the run take a fresh aggregator; what the old one says when the way is open again counts no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from hierfl.fault import MESSAGE, Message, positive

__all__ = ["Partition"]


@dataclass(frozen=True)
class Partition:
    """Holds up all that the run says to a hub, from the nth update of a round on, and all that the hub answers."""

    at: ClassVar[Mapping[str, Sequence[str]]] = {"hub": ("before_accept",)}
    strikes: ClassVar[str] = MESSAGE
    own_process: ClassVar[bool] = False

    after_s: float = 3.0
    """Seconds after which they hear each other again, above 0."""

    def __post_init__(self) -> None:
        positive("after_s", self.after_s)

    def strike(self, struck: Message) -> None:
        """Let it happen."""
        struck.cut_off(self.after_s)
