"""A run's folder: its configuration, logs, checkpoints, model and summary."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from hierfl.config.schema import RunConfig
from hierfl.errors import OutputError

__all__ = ["RunDir"]

PACKAGES = ("hierfl", "torch", "numpy", "ray", "pyarrow", "omegaconf")


@dataclass(frozen=True)
class RunDir:
    """The folder of one run; `resumed` says that it was there before."""

    path: Path
    resumed: bool = False

    @classmethod
    def create(cls, config: RunConfig) -> RunDir:
        """Make a new folder, of its own even for runs of one second. Errors: OutputError if it cannot be written."""
        from hierfl.config import write

        stamp = time.strftime("%Y%m%d-%H%M%S")
        base = Path(config.output.dir)
        number = 1
        try:
            while True:
                path = base / (f"{config.name}-{stamp}" + (f"-{number}" if number > 1 else ""))
                try:
                    path.mkdir(parents=True)
                    break
                except FileExistsError:
                    if not path.is_dir():
                        raise
                    number += 1
            (path / "config.yaml").write_text(write(config.resolved), encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"output.dir {str(base)!r} cannot be written: {error.strerror or error}; set output.dir to a folder"
                " that you may write to"
            ) from error
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Open a run's folder. Errors: OutputError if it is none, or may not be written."""
        if not (path / "config.yaml").is_file():
            raise OutputError(f"{path} is not a run's folder: it has no config.yaml")
        if not os.access(path, os.W_OK):
            raise OutputError(f"{path} cannot be written; its owner must allow it")
        return cls(path, resumed=True)

    @property
    def config(self) -> Path:
        """Give the resolved configuration's path."""
        return self.path / "config.yaml"

    @property
    def model(self) -> Path:
        """Give the final model's path."""
        return self.path / "model.safetensors"

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, whole or not at all. Errors: OutputError."""
        partial = self.path / ".summary.json.partial"
        try:
            partial.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
            os.replace(partial, self.path / "summary.json")
        except OSError as error:
            raise OutputError(f"{self.path}/summary.json cannot be written: {error.strerror or error}") from error

    @staticmethod
    def versions() -> dict[str, str]:
        """List the versions that made the run."""
        return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}
