"""What the root has published last, and the checkpoint that is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hierfl.checkpoint import NO_MODEL, Checkpoint
from hierfl.config.schema import RunConfig
from hierfl.learning.stopping import Progress
from hierfl.runtime.driver import Driver, Handle
from hierfl.runtime.remembered import Remembered

__all__ = ["Published"]


@dataclass
class Published:
    """The newest model of the root, after `rounds_done` rounds, and what goes with it; `saved`: in a checkpoint.

    `best`: the file of the best model so far by the metric of early stopping, if there is one.
    """

    rounds_done: int
    model: Handle
    remembered: Remembered
    progress: Progress
    saved: bool
    best: Path | None = None

    @classmethod
    def of(cls, saved: Checkpoint, config: RunConfig, driver: Driver) -> Published:
        """Take what a checkpoint has, as far as it is true of the federation as it is now."""
        remembered = Remembered.of(saved, config, driver)
        best = saved.best if saved.progress.best_round else None
        return cls(saved.rounds_done, driver.put(saved.model), remembered, saved.progress, saved=True, best=best)

    def content(self, run: Mapping[str, Any]) -> Checkpoint:
        """Make the checkpoint, without vectors. `run`: what it says of the run, by its fields."""
        return Checkpoint(
            rounds_done=self.rounds_done,
            model=NO_MODEL,
            progress=self.progress,
            best=self.best,
            distances=self.remembered.distances,
            **run,
        )
