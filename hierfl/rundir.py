"""A run's folder: its configuration, where it comes from, logs, checkpoints, model and summary."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from hierfl import durable
from hierfl.best import BEST
from hierfl.config.schema import RunConfig
from hierfl.errors import OutputError

__all__ = ["SPOOL", "Origin", "RunDir", "saved_config"]

PACKAGES = ("hierfl", "torch", "numpy", "ray", "pyarrow", "omegaconf")
OPTIONAL = ("llvmlite",)

CONFIG, ORIGIN, SUMMARY = "config.yaml", "origin.json", "summary.json"
FAULTY = "-faults"
"""What the folder's name says of a run in which faults are injected."""
SPOOL = "link"
"""The folder within a run's own, or a member's, where updates lie while they come over links."""
AMENDED, REFUSED, LOCK = "amend.json", "amend-refused.json", ".amend.lock"


@dataclass(frozen=True)
class Origin:
    """Where a run comes from: the configuration's folder, and the one that it was started in; relative paths count
    from the second, own modules are looked for in both.
    """

    config_dir: Path
    working_dir: Path

    @classmethod
    def of(cls, config: RunConfig) -> Origin:
        """Give the origin of a run that this process begins."""
        here = Path.cwd()
        return cls(here if config.folder is None else config.folder.resolve(), here)

    def moved(self, to: Path) -> Origin:
        """Give the origin once the folder that the run was started in, or the configuration's, has become `to`."""
        if self.config_dir.is_relative_to(self.working_dir):
            beside = to / self.config_dir.relative_to(self.working_dir)
            if beside.is_dir():
                return Origin(beside, to)
        return Origin(to, to)


@dataclass(frozen=True)
class RunDir:
    """The folder of one run; `resumed` says that it was there before."""

    path: Path
    resumed: bool = False

    @classmethod
    def create(cls, config: RunConfig) -> RunDir:
        """Make a new folder, of its own even for runs of one second. Errors: OutputError if it cannot be written."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        base = config.output.folder
        number = 1
        try:
            while True:
                path = base / (
                    f"{config.name}{FAULTY if config.faults else ''}-{stamp}" + (f"-{number}" if number > 1 else "")
                )
                try:
                    path.mkdir(parents=True)
                    durable.flush(base)
                    break
                except FileExistsError:
                    if not path.is_dir():
                        raise
                    number += 1
            made = cls(path)
            made._describe(config)
        except OSError as error:
            raise OutputError(
                f"output.dir {str(base)!r} cannot be written: {error.strerror or error}; set output.dir to a folder"
                " that you may write to"
            ) from error
        return made

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Open a run's folder. Errors: OutputError if it is none, or may not be written."""
        saved_config(path)
        if not os.access(path, os.W_OK):
            raise OutputError(f"{path} cannot be written; its owner must allow it")
        return cls(path, resumed=True)

    @property
    def config(self) -> Path:
        """Give the resolved configuration's path."""
        return self.path / CONFIG

    @property
    def model(self) -> Path:
        """Give the final model's path."""
        return self.path / "model.safetensors"

    @property
    def best(self) -> Path:
        """Give the path of the best model by the metric of early stopping."""
        return self.path / BEST

    @property
    def has_model(self) -> bool:
        """Say whether the final model was written, here or where its members have it."""
        return self.model.exists() or self.model.with_suffix(".json").exists()

    @property
    def is_served(self) -> bool:
        """Say whether other institutions serve members of the run."""
        return (self.path / SPOOL).is_dir()

    def origin(self) -> Origin | None:
        """Tell where the run comes from; None where its folder does not say. Errors: OutputError."""
        said = self._read(ORIGIN)
        if not said:
            return None
        try:
            return Origin(Path(said["config_dir"]), Path(said["working_dir"]))
        except (KeyError, TypeError) as error:
            raise OutputError(f"{self.path / ORIGIN} is damaged: {error!r}; delete it and give --code-dir") from error

    def first_code(self) -> str:
        """Give the digest of the task's code as the run began; empty where that is not known. Errors: OutputError."""
        return str(self._read(ORIGIN).get("task_code", ""))

    def summary(self) -> Mapping[str, Any]:
        """Read summary.json; empty where there is none. Errors: OutputError."""
        return self._read(SUMMARY)

    @cached_property
    def _amended(self) -> str:
        return str(self.path / AMENDED)

    def amendments(self) -> list[str]:
        """List the overrides that were left for the run to take in (`hierfl amend`). Errors: OutputError."""
        if not os.path.exists(self._amended):  # asked before every round, and hardly ever there
            return []
        said = self._read(AMENDED)
        words = [str(word) for word in said.get("overrides", ())]
        taken = said.get("taken", {})
        return words[taken["count"] :] if taken and taken["config"] == _digest(self._config_text()) else words

    def amend(self, overrides: Sequence[str]) -> list[str]:
        """Leave overrides for the run, behind those that are there; return all. Errors: OutputError."""
        with self._amending():
            words = [*self.amendments(), *overrides]
            self._leave(words)
        return words

    def drop_amendments(self, count: int, *, refused: bool = False) -> None:
        """Drop the first overrides that were left: they hold now, or were refused. Errors: OutputError."""
        with self._amending():
            words = self.amendments()
            if words and refused:
                self._write(REFUSED, json.dumps({"overrides": words[:count]}, indent=2) + "\n")
            self._leave(words[count:])

    def keep_config(self, config: RunConfig, num_amendments: int = 0) -> str | None:
        """Let a configuration hold from now on; return the name under which another one before it is kept.

        `num_amendments`: those at the front that are in it. They are dropped in the moment in which it takes the other
        one's place: whenever the process ends, they hold once. Errors: OutputError.
        """
        from hierfl.config import write

        kept, text = None, write(config.resolved)
        with self._amending():
            before = self._config_text()
            if before != text:
                number = 1
                while (self.path / f"config-{number}.yaml").exists():
                    number += 1
                kept = f"config-{number}.yaml"
                self._write(kept, before)
            words = self.amendments()
            self._leave(words, {"count": num_amendments, "config": _digest(text)} if num_amendments else {})
            self._describe(config)
            self._leave(words[num_amendments:])
        return kept

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, whole or not at all. Errors: OutputError."""
        try:
            self._write(SUMMARY, json.dumps(summary, indent=2) + "\n")
        except OSError as error:
            raise OutputError(f"{self.path}/summary.json cannot be written: {error.strerror or error}") from error

    @staticmethod
    def versions() -> dict[str, str]:
        """List the versions that made the run."""
        found = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
        for name in OPTIONAL:
            with contextlib.suppress(metadata.PackageNotFoundError):
                found[name] = _version(name)
        return found

    @contextlib.contextmanager
    def _amending(self) -> Iterator[None]:
        """Change what was left while no other process does. Errors: OutputError."""
        try:
            with (self.path / LOCK).open("w") as lock:
                with contextlib.suppress(OSError):  # a file system without locks
                    fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise OutputError(f"{error.filename or self.path} cannot be written: {error.strerror or error}") from error

    def _leave(self, words: Sequence[str], taken: Mapping[str, Any] | None = None) -> None:
        """Write what is left for the run; no file where there is nothing."""
        if words:
            said = {"overrides": list(words), **({"taken": taken} if taken else {})}
            self._write(AMENDED, json.dumps(said, indent=2) + "\n")
        else:
            (self.path / AMENDED).unlink(missing_ok=True)

    def _config_text(self) -> str:
        return self.config.read_text(encoding="utf-8")

    def _describe(self, config: RunConfig) -> None:
        """Write the configuration, and where it comes from."""
        from hierfl.config import write
        from hierfl.provenance import task_code

        origin = Origin.of(config)
        said = {"config_dir": str(origin.config_dir), "working_dir": str(origin.working_dir)}
        said["task_code"] = task_code(config)
        self._write(ORIGIN, json.dumps(said, indent=2) + "\n")
        self._write(CONFIG, write(config.resolved))

    def _write(self, name: str, text: str) -> None:
        """Write a file, whole or not at all, also where the machine dies."""
        durable.put(self.path / name, text)

    def _read(self, name: str) -> dict[str, Any]:
        """Read a JSON object; empty where there is no file."""
        path = self.path / name
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise OutputError(f"{path} cannot be read: {error}; delete it to go on without it") from error
        return found if isinstance(found, dict) else {}


@cache
def _version(package: str) -> str:
    """Look a version up once: what is installed anew does not change what this process has imported."""
    return metadata.version(package)


def _digest(text: str) -> str:
    """Tell one configuration from another."""
    return hashlib.sha256(text.encode()).hexdigest()


def saved_config(run_dir: Path) -> Path:
    """Find a run's own configuration, which makes its folder a run's. Errors: OutputError."""
    saved = run_dir / CONFIG
    if not saved.is_file():
        what = f"has no {CONFIG}" if run_dir.is_dir() else "is a file" if run_dir.exists() else "does not exist"
        raise OutputError(
            f"{run_dir} {what}: not the folder of a run, which `hierfl run` prints when it ends{_nearby(run_dir)}"
        ).misnamed()
    return saved


def _nearby(place: Path) -> str:
    """Name the newest run in a folder, or beside what is not there, if there is any."""
    folder = place if place.is_dir() else place.parent
    found = [*folder.glob(f"*/{CONFIG}"), *folder.glob(f"runs/*/{CONFIG}")]
    return f"; the newest here is {max(found, key=lambda path: path.stat().st_mtime).parent}" if found else ""
