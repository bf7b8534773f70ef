"""Delay: the node is slow at a step, as over a poor line or on a busy machine; it hears and does all else in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from hierfl.fault import PROCESS, Process, positive, steps

__all__ = ["Delay"]


@dataclass(frozen=True)
class Delay:
    """Waits at a step: a site's update comes late, a hub's answer too."""

    at: ClassVar[Mapping[str, Sequence[str]]] = steps(hub="before_accept", site="trained", run="before_accept")
    strikes: ClassVar[str] = PROCESS
    own_process: ClassVar[bool] = False

    after_s: float = 3.0
    """Seconds after which it goes on, above 0."""

    def __post_init__(self) -> None:
        positive("after_s", self.after_s)

    def strike(self, struck: Process) -> None:
        """Let it happen."""
        struck.delay(self.after_s)
