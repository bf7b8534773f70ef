"""What a caller in Python is told of a run: the screen, or a call after each round; warnings go to Python's log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, TypeAlias

from hierfl.monitor.records import Evaluated, Monitor, Notice, Record, RoundCommitted, RunStarted, Scalars
from hierfl.monitor.whereabouts import Whereabouts

if TYPE_CHECKING:
    from hierfl.config.schema import RunConfig

__all__ = ["LOG", "AfterRound", "Caller"]

AfterRound: TypeAlias = Callable[[int, Mapping[str, Scalars]], object]
"""Is called with the number of rounds done and the metrics of every node by path, none where they were not measured."""

LOG = logging.getLogger("hierfl")

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Caller(Whereabouts):
    """Tells the caller of a run as much as was asked for; knows where the run is, and whether it `has_begun` now."""

    def __init__(self, progress: bool | AfterRound = False) -> None:
        super().__init__()
        self._progress = progress
        self._measured: Mapping[str, Scalars] = {}

    def monitors(self, config: RunConfig) -> list[Monitor]:
        """Give the monitors of a run: this one, and the screen where it is wanted."""
        if self._progress is not True:
            return [self]
        from hierfl.monitor.screen import screen

        return [screen(config), self]

    def on(self, record: Record) -> None:
        """Take one record."""
        super().on(record)
        if isinstance(record, RunStarted) and self.run_dir is not None:
            self.run_dir = self.run_dir.absolute()
        elif isinstance(record, Notice) and self._progress is not True:
            where = f"{record.node}: " if record.node else ""
            LOG.log(_LEVELS[record.level], "%s%s", where, record.message)
        elif isinstance(record, Evaluated):
            self._measured = record.metrics
        elif isinstance(record, RoundCommitted):
            measured, self._measured = self._measured, {}
            if callable(self._progress):
                self._progress(record.round_number, deepcopy(measured))  # the record's own go on to the summary

    def advice(self) -> str:
        """Say how to go on; empty where the run has not begun."""
        return self.story(f"hierfl.resume({str(self.run_dir)!r})")
