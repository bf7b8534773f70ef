"""A small validated configuration made by hand, and a stand-in for what runs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hierfl.config.schema import (
    Arithmetic,
    Evaluation,
    HubSettings,
    Output,
    RunConfig,
    Runtime,
    SiteSettings,
    Stopping,
    Training,
)
from hierfl.errors import DataError
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.monitor.records import Monitor, RoundCommitted, RunEnded, RunStarted
from tiers.federation import Federation, Hub, Site


@dataclass(frozen=True)
class CountingTask:
    """Knows its sites; the one called "dark" has no file."""

    def sites(self) -> Sequence[str]:
        return []

    def num_samples(self, site: str, scale: int = 1) -> tuple[int, int]:
        if site == "dark":
            raise DataError("site 'dark': there is no file dark.parquet")
        return 10 * scale, 3 * scale


def config_of(root: Hub, keys: dict[str, str] | None = None, sources: dict[str, dict[str, Any]] | None = None) -> Any:
    federation = Federation(root)
    return RunConfig(
        name="trial",
        seed=0,
        task=CountingTask(),  # type: ignore[arg-type]
        task_kind="counting",
        federation=federation,
        hubs={path: HubSettings(FedAvg()) for path in federation.hubs},
        sites={
            path: SiteSettings(Training(), (keys or {}).get(path, site.name), (sources or {}).get(path, {}))
            for path, site in federation.sites.items()
        },
        evaluation=Evaluation(),
        stopping=Stopping(),
        arithmetic=Arithmetic(),
        runtime=Runtime(kind="local"),
        output=Output(),
        resolved={},
    )


def small(*extra: Site) -> Any:
    us = Hub("us", (Site("cleveland"), Site("long_beach"), *extra), rounds=2)
    return config_of(
        Hub("world", (us, Site("budapest")), rounds=15),
        keys={"world/budapest": "bp"},
        sources={"world/us/cleveland": {"scale": 5}},
    )


class FakeRun(ModuleType):
    """Stands for `hierfl.lifecycle`: tells its monitors of two committed rounds, then ends as it is asked to."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__("hierfl.lifecycle")
        self.run_dir = run_dir
        self.end: BaseException | None = None
        self.early: BaseException | None = None
        self.committed = 2
        self.chatter = "chatter of the run"
        self.calls: list[tuple[Any, ...]] = []

    def run(self, config: Any, monitors: Sequence[Monitor] = ()) -> dict[str, Any]:
        self.calls.append(("run", config))
        return self._go(monitors)

    def go_on(self, left: Any, monitors: Sequence[Monitor]) -> dict[str, Any]:
        self.calls.append(("resume", left.folder.path, list(left.overrides)))
        return self._go(monitors)

    def evaluate(
        self, run_dir: Path, monitors: Sequence[Monitor], code_dir: Path | None, overrides: Sequence[str]
    ) -> dict[str, Any]:
        self.calls.append(("evaluate", run_dir, *overrides))
        return {"world": {"num_test": 16, "auc": 0.91}, "world/us": {"num_test": 3, "auc": None}}

    def _go(self, monitors: Sequence[Monitor]) -> dict[str, Any]:
        print(self.chatter)
        if self.early is not None:
            for monitor in monitors:
                monitor.on(RunEnded(0.1, "interrupted", {"run_dir": str(self.run_dir)}))
            raise self.early
        records: list[Any] = [RunStarted(0.0, "trial", str(self.run_dir), "local", ["w0"], 15, 0, 7, {"world": 1})]
        records += [RoundCommitted(1.0, n + 1, 15, 0.5, 0.9, "somewhere") for n in range(self.committed)]
        for record in records:
            for monitor in monitors:
                monitor.on(record)
        if self.end is not None:
            raise self.end
        return {"run_dir": str(self.run_dir), "status": "finished", "model_digest": "c0ffee"}


def install(patch: pytest.MonkeyPatch, run: FakeRun, config: Any) -> None:
    """Put the fakes in the place of the modules that the commands import."""
    import sys

    import hierfl
    import hierfl.checkpoint
    import hierfl.config
    import hierfl.reopen

    patch.setitem(sys.modules, "hierfl.lifecycle", run)
    patch.setattr(hierfl, "lifecycle", run, raising=False)
    patch.setattr(hierfl.config, "load", lambda path, overrides=(): config)
    patch.setattr(hierfl.reopen, "reopened", _left(config))
    patch.setattr(hierfl.checkpoint, "latest", lambda run_dir: run_dir / "checkpoint-2" if run.committed else None)


def _left(config: Any) -> Any:
    """Make what takes a run up again without a look into its folder."""
    from hierfl.reopen import Reopened
    from hierfl.rundir import RunDir

    @contextlib.contextmanager
    def reopened(run_dir: Path, overrides: Sequence[str], code_dir: Path | None, *, to_train: bool) -> Iterator[Any]:
        assert to_train
        yield Reopened(RunDir.open(run_dir), config, None, tuple(overrides))

    return reopened
