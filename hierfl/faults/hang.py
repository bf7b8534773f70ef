"""Hang: the process stops (SIGSTOP) and goes on later as if nothing had been, as on a machine that swaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from hierfl.fault import PROCESS, Process, positive, steps

__all__ = ["Hang"]


@dataclass(frozen=True)
class Hang:
    """Stops the process in which a hub's aggregator, a site's worker or the run is; it goes on after `after_s`."""

    at: ClassVar[Mapping[str, Sequence[str]]] = steps(hub="after_accept", site="training", run="after_accept")
    strikes: ClassVar[str] = PROCESS
    own_process: ClassVar[bool] = True

    after_s: float = 3.0
    """Seconds after which it goes on (SIGCONT), above 0."""

    def __post_init__(self) -> None:
        positive("after_s", self.after_s)

    def strike(self, struck: Process) -> None:
        """Let it happen."""
        struck.hang(self.after_s)
