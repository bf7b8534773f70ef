"""Where a run writes, and up to where it has come: what is told of it once something has ended it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hierfl.monitor.records import Record

__all__ = ["Whereabouts"]


@dataclass
class Whereabouts:
    """A monitor that remembers the run's folder; `has_begun`: the run has, in this process."""

    run_dir: Path | None = None
    has_begun: bool = False

    def on(self, record: Record) -> None:
        """Take one record."""
        from hierfl.monitor.records import RunEnded, RunStarted

        if isinstance(record, RunEnded) and self.run_dir is None and "run_dir" in record.summary:
            self.run_dir = Path(record.summary["run_dir"])  # it has ended before it began
        if isinstance(record, RunStarted):
            self.run_dir, self.has_begun = Path(record.run_dir), True

    def close(self) -> None:
        """Hold nothing, close nothing."""

    def committed(self) -> Path | None:
        """Find the run's last commit."""
        from hierfl.checkpoint import latest

        return latest(self.run_dir) if self.run_dir is not None else None

    def story(self, way: str) -> str:
        """Say how to go on, `way` of a run that has begun or has a commit; empty where there is none."""
        if self.run_dir is None:
            return ""
        commit = self.committed()
        if commit is None:
            what = f"no round was committed yet; what happened is in {self.run_dir}"
            return f"{what}; go on with: {way}" if self.has_begun else what
        return f"the last commit is {commit}; go on with: {way}"
