"""Kill: the process ends with SIGKILL, as a machine without memory or power ends it; nothing is tidied up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from hierfl.errors import ConfigError
from hierfl.fault import PROCESS, Process, steps

__all__ = ["Kill"]


@dataclass(frozen=True)
class Kill:
    """Ends the process in which a hub's aggregator, a site's worker or the run is."""

    at: ClassVar[Mapping[str, Sequence[str]]] = steps(hub="before_accept", site="training", run="after_accept")
    strikes: ClassVar[str] = PROCESS
    own_process: ClassVar[bool] = False

    after_s: float = 0.0
    """Seconds for which it goes on with its work before it ends."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.after_s) and self.after_s >= 0):
            raise ConfigError(f"after_s is {self.after_s}; at least 0")

    def strike(self, struck: Process) -> None:
        """Let it happen."""
        struck.kill(self.after_s)
