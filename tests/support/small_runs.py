"""Whole runs in the local runtime: a federation of a few wards, written to a test's folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hierfl.config import from_mapping
from hierfl.lifecycle import run
from hierfl.monitor.records import Record

__all__ = ["Copied", "Listener", "Ran", "config_of", "copied_live", "events", "go", "hub", "site", "tensors"]


def site(name: str, **settings: Any) -> dict[str, Any]:
    """A site; `weight`, `role` and `training` are its settings, all else goes to its data."""
    own = {key: settings.pop(key) for key in ("weight", "role", "training") if key in settings}
    return {"name": name, **own, **({"data": settings} if settings else {})}


def hub(name: str, *members: str | dict[str, Any], **settings: Any) -> dict[str, Any]:
    """A hub over sites (by name) and hubs."""
    return {"name": name, **settings, "members": [site(m) if isinstance(m, str) else m for m in members]}


@dataclass
class Listener:
    """A monitor that keeps what it hears, and raises `stop` when it hears `until`'s round."""

    heard: list[Record] = field(default_factory=list)
    until: tuple[type, int] | None = None
    stop: BaseException = field(default_factory=KeyboardInterrupt)
    closed: int = 0

    def on(self, record: Record) -> None:
        self.heard.append(record)
        if self.until and isinstance(record, self.until[0]) and record.round_number == self.until[1]:
            raise self.stop

    def close(self) -> None:
        self.closed += 1

    def of(self, kind: type) -> list[Any]:
        return [record for record in self.heard if isinstance(record, kind)]


def copied_live(folder: Path, to: Path) -> Path:
    """Copy a run's folder while the run goes on: what another thread clears away meanwhile is not looked for again."""
    for _ in range(100):
        try:
            return Path(shutil.copytree(folder, to))
        except shutil.Error:
            shutil.rmtree(to)
    raise AssertionError(f"{folder} does not stand still")


class Copied(Listener):
    """Copies the run's folder at a moment, as if the process had been killed then; `then` happens right after."""

    def __init__(self, runs: Path, when: Callable[[Record], bool], then: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.runs, self.when, self.then = runs, when, then
        self.copy = runs.parent / "copy"

    def on(self, record: Record) -> None:
        super().on(record)
        if self.when(record):
            [folder] = self.runs.iterdir()
            copied_live(folder, self.copy)
            self.then()


@dataclass(frozen=True)
class Ran:
    """A run's summary and folder."""

    summary: Mapping[str, Any]
    monitor: Listener

    @property
    def digest(self) -> str:
        return str(self.summary["model_digest"])

    @property
    def folder(self) -> Path:
        return Path(self.summary["run_dir"])


def config_of(
    folder: Path, root: Mapping[str, Any], task: Any = "ward_tasks:Wards", overrides: Sequence[str] = (), **top: Any
) -> Any:
    """A configuration for the local runtime on one worker, without TensorBoard."""
    return from_mapping(
        {
            "name": "trial",
            "task": task if isinstance(task, Mapping) else {"kind": task},
            "training": {"lr": 0.1, "batch_size": 4, "local_epochs": 1},
            "federation": {"rounds": 2, **root},
            "runtime": {"kind": "local", "num_workers": 1},
            "output": {"dir": str(folder), "tensorboard": False},
            **top,
        },
        overrides,
    )


def go(folder: Path, root: Mapping[str, Any], *args: Any, until: tuple[type, int] | None = None, **top: Any) -> Ran:
    """Run it to its end."""
    monitor = Listener(until=until)
    return Ran(run(config_of(folder, root, *args, **top), [monitor]), monitor)


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return dict(load_file(folder / "model.safetensors"))


def foreseen(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, int]]:
    """Give the steps by site that engines are told from now on, by which they foresee durations."""
    from hierfl.runtime.engine import Engine

    told: list[Mapping[str, int]] = []
    set_up = Engine.set_up

    def heard(
        engine: Engine, layout: Any, num_samples: Any, steps: Mapping[str, int], *given: Any, **named: Any
    ) -> None:
        told.append(steps)
        set_up(engine, layout, num_samples, steps, *given, **named)

    monkeypatch.setattr(Engine, "set_up", heard)
    return told
