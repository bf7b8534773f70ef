"""The best model by the metric of early stopping: it goes with the checkpoint that says which round it is of.

    best.safetensors                                that of the newest checkpoint
    checkpoints/round-000015/best.safetensors       that of this one, the same file for as long as it is the best
                .best-000017.3.safetensors          what process 3 has found since, in round 17

A round that is in no checkpoint may never have been: its model becomes the run's best with the first that has it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from hierfl import durable
from hierfl.commits import FOLDER
from hierfl.errors import OutputError

__all__ = ["BEST", "EARLIER", "Best", "is_kept", "link"]

BEST = "best.safetensors"
EARLIER = "earlier-best.safetensors"
"""What was the best before the run was measured otherwise."""


@dataclass(frozen=True)
class Best:
    """Where a run's best model lies; `writer`: the number of this process."""

    run_dir: Path
    writer: int

    def found(self, rounds_done: int, before: Path | None) -> Path:
        """Give the file for a better model, of a round that is in no checkpoint yet; the one `before` is the best until
        that round has ended. Errors: OutputError.
        """
        folder = self.run_dir / FOLDER
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made: {error.strerror or error}") from error
        self._drop(f"*.best-*.{self.writer}.safetensors*", before)
        return folder / f".best-{rounds_done:06d}.{self.writer}.safetensors"

    def committed(self, checkpoint: Path) -> Path | None:
        """Let the best model of a checkpoint that was just written be the run's; give its file there, if it has one.

        Errors: OutputError.
        """
        kept = checkpoint / BEST
        if not kept.exists():
            return None
        self._publish(kept)
        self._drop(f"*.best-*.{self.writer}.safetensors*")
        return kept

    def take_up(self, kept: Path | None) -> str:
        """Go on with that of the checkpoint that the run goes on from, if it has any; say what became of another one.

        Errors: OutputError.
        """
        self._drop("*.best-*.safetensors*")  # of processes that were killed
        here = self.run_dir / BEST
        if kept is not None:
            self._publish(kept)
        elif here.exists():
            try:
                here.replace(here.with_name(EARLIER))
            except OSError as error:
                raise OutputError(f"{here} cannot be renamed: {error.strerror or error}") from error
            return f"{BEST} was of another metric, or of a round that does not count: it is {EARLIER} now"
        return ""

    def _publish(self, kept: Path) -> None:
        """Put a checkpoint's in the place of the run's."""
        here = self.run_dir / BEST
        if here.exists() and here.samefile(kept):
            return
        partial = here.with_name(f".{BEST}.{self.writer}.partial")
        try:
            partial.unlink(missing_ok=True)
            link(kept, partial)
            partial.replace(here)
            durable.flush(here.parent)
        except OSError as error:
            raise OutputError(f"the model cannot be written to {here}: {error.strerror or error}") from error

    def _drop(self, pattern: str, but: Path | None = None) -> None:
        """Drop what was found and is of no use any more."""
        for file in (self.run_dir / FOLDER).glob(pattern):
            if file != but:
                with contextlib.suppress(OSError):
                    file.unlink()


def is_kept(file: Path | None) -> bool:
    """Say whether a best model lies in a checkpoint."""
    return file is not None and file.name == BEST


def link(file: Path, to: Path) -> None:
    """Let a file that is never written to again have another name, too; its content, where a disk has no links.

    Errors: OSError.
    """
    try:
        os.link(file, to)
    except OSError:
        shutil.copyfile(file, to)
        with to.open("rb") as copy:
            os.fsync(copy.fileno())
