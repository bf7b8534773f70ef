"""A run, as the paper tells it (Rieke et al. 2020, Algorithm 1): rounds over the tree, each round's model committed.

describe the sites; standardise; for each round: train down the tree and add up; evaluate; commit
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hierfl import checkpoint
from hierfl.checkpoint import Checkpoint
from hierfl.config.schema import RunConfig, Runtime
from hierfl.errors import DataError, HierflError, OutputError
from hierfl.learning.optimizers import try_out
from hierfl.learning.standardise import Moments
from hierfl.learning.state import Layout, ModelState
from hierfl.learning.stopping import Progress, advance
from hierfl.learning.task import Standardised
from hierfl.monitor.gpus import GpuTime
from hierfl.monitor.records import (
    Evaluated,
    Monitor,
    NodeChanged,
    Notice,
    Record,
    RoundCommitted,
    RunEnded,
    RunStarted,
    Scalars,
)
from hierfl.monitor.words import finite
from hierfl.rundir import RunDir
from hierfl.runtime.crew import Crew
from hierfl.runtime.driver import Driver, Handle, Seat
from hierfl.runtime.engine import Engine
from hierfl.runtime.estimates import Estimates
from hierfl.runtime.foresight import check_needs
from hierfl.runtime.gate import gate_of
from hierfl.runtime.remembered import Remembered
from hierfl.runtime.seats import declared_devices
from hierfl.runtime.specs import worker_spec
from hierfl.runtime.survey import samples_of
from hierfl.summary import idle_time, of_nodes, of_round, of_schedule

__all__ = ["evaluate", "resume", "run"]


def run(config: RunConfig, monitors: Sequence[Monitor] = (), *, resume_from: Path | None = None) -> Mapping[str, Any]:
    """Run a federation to its end; return its summary, as in summary.json, with "run_dir" and "status".

    `resume_from`: the folder of a run to go on with. Errors: HierflError; KeyboardInterrupt after a clean stop, the
    last commit kept.
    """
    started_s = time.time()
    try_out({path: settings.training for path, settings in config.sites.items()})
    folder = RunDir.open(resume_from) if resume_from is not None else RunDir.create(config)
    voice = _Voice(folder, config, monitors)
    try:
        with _closing(_open_driver(config.runtime, config.name)) as driver:
            summary = _Run(config, folder, voice, driver, started_s).go()
    except KeyboardInterrupt:
        voice.end(started_s, "interrupted", {})
        raise
    except HierflError as error:
        voice.emit(Notice(time.time() - started_s, "error", "", str(error)))
        voice.end(started_s, "failed", {"error": str(error)})
        raise
    except OSError as error:
        voice.end(started_s, "failed", {"error": str(error)})
        raise OutputError(f"{error.filename or folder.path}: {error.strerror or error}") from error
    finally:
        voice.close()
    return {**summary, "run_dir": str(folder.path)}


def resume(run_dir: Path, overrides: Sequence[str] = (), monitors: Sequence[Monitor] = ()) -> Mapping[str, Any]:
    """Go on with a run from its newest checkpoint, to the bits that an unbroken run has."""
    from hierfl.config import load

    folder = RunDir.open(run_dir)
    return run(load(folder.config, overrides), monitors, resume_from=folder.path)


def evaluate(run_dir: Path) -> Mapping[str, Scalars]:
    """Measure a run's newest checkpoint at every site; return the metrics by path, hubs rolled up."""
    from hierfl.config import load

    folder = RunDir.open(run_dir)
    config = load(folder.config)
    saved = _newest(folder)
    with _closing(_open_driver(config.runtime, config.name)) as driver:
        crew = _crew(config, driver, driver.start(worker_spec(config), num_hubs=0), _unheard)
        engine = Engine(config, driver, crew, _unheard, time.time())
        engine.describe()
        crew.prepare(saved.layout, saved.scale)
        return engine.evaluate(saved.rounds_done, driver.put(saved.model))


@dataclass
class _Commit:
    """The newest model that the root has published."""

    rounds_done: int
    model: Handle
    remembered: Remembered
    progress: Progress
    saved: bool


class _Run:
    """One run, from its first call to a worker to its summary."""

    def __init__(self, config: RunConfig, folder: RunDir, voice: _Voice, driver: Driver, started_s: float) -> None:
        self.config = config
        self.folder = folder
        self.voice = voice
        self.driver = driver
        self.started_s = started_s
        seats = driver.start(worker_spec(config), len(config.federation.hubs))
        self.crew = _crew(config, driver, seats, voice.emit, started_s)
        check_needs(self.crew.estimates, config.sites, self.crew.prospects)
        self.idle = idle_time(config, self.crew, voice.emit)
        self.gpus = GpuTime()
        voice.listen(self.idle, self.gpus)
        self.engine = Engine(config, driver, self.crew, voice.emit, started_s)
        self.metrics: Mapping[str, Scalars] = {}
        self.num_samples: dict[str, int] = {}
        self.scale: Any = None

    def go(self) -> Mapping[str, Any]:
        """Set up, run the rounds, commit; an interruption keeps the last commit."""
        layout, commit = self._set_up()
        startup_s = self._now()
        status = "finished"
        try:
            for number in range(commit.rounds_done, self._rounds()):
                commit, reason = self._round(number, commit, layout)
                if reason is not None:
                    status = "stopped early"
                    said = f"stops after round {number + 1}: {reason}"
                    self.voice.emit(Notice(self._now(), "info", self._root(), said))
                    break
        except BaseException:
            with contextlib.suppress(HierflError):  # what ended the run is the better story
                if commit.saved:
                    self.crew.estimates.save()
                else:
                    self._save(commit, layout)
            raise
        return self._finish(commit, layout, status, startup_s)

    def _set_up(self) -> tuple[Layout, _Commit]:
        """Build the model, count the sites' samples, standardise, make the hubs."""
        layout, first = self.engine.initial()
        saved = self._saved(layout)
        inventory = self.engine.describe()
        self.num_samples = samples_of(self.config.federation, inventory)
        self.scale = saved.scale if saved is not None else self._standardisation(self.engine.moments())
        self.crew.prepare(layout, self.scale)
        steps = {
            path: settings.training.num_steps(self.num_samples[path]) for path, settings in self.config.sites.items()
        }
        commit = _Commit(0, first, Remembered(), Progress(), saved=True)
        if saved is not None:
            model, remembered = self.driver.put(saved.model), Remembered.of(saved, self.config.federation, self.driver)
            commit = _Commit(saved.rounds_done, model, remembered, saved.progress, saved=True)
        self.engine.set_up(layout, self.num_samples, steps, commit.remembered)
        self._tell_started(layout, commit.rounds_done)
        return layout, commit

    def _round(self, number: int, last: _Commit, layout: Layout) -> tuple[_Commit, str | None]:
        """Run, measure and commit one round; return the commit and the reason to stop, if there is one."""
        begun = time.perf_counter()
        model = self.engine.round(number, last.model)
        done = number + 1
        commit = _Commit(done, model, last.remembered, last.progress, saved=False)
        reason = None
        every = self.config.evaluation.every
        if every and (done % every == 0 or done == self._rounds()):
            self.metrics = self.engine.evaluate(done, model)
            self.voice.emit(Evaluated(self._now(), done, self.metrics))
            metric = self.config.stopping.metric
            value = finite(self.metrics[self._root()].get(metric)) if metric else None
            if done % every == 0:  # a measurement only for the end must not count when the run is taken up again
                commit.progress, reason = advance(self.config.stopping, last.progress, value)
        commit.remembered = self.engine.remember()
        folder = None
        if done % self.config.output.checkpoint_every == 0 or done == self._rounds() or reason is not None:
            folder = self._save(commit, layout)
        spent_s = time.perf_counter() - begun
        busy, place = 1.0 - self.idle.last().idle, str(folder) if folder else None
        figures = of_round(self.idle)
        self.voice.emit(RoundCommitted(self._now(), done, self._rounds(), spent_s, busy, place, *figures))
        return commit, reason

    def _save(self, commit: _Commit, layout: Layout) -> Path:
        """Write a checkpoint, and what was learned on the way to it."""
        states, hubs = commit.remembered.fetched(self.driver)
        model = self.driver.get(commit.model)
        content = Checkpoint(
            *(commit.rounds_done, self.config.federation.epoch, self.config.seed, layout, model, states),
            *(self.scale, commit.progress, hubs),
        )
        commit.saved = True
        saved = checkpoint.save(self.folder.path, content, self.config.output.keep)
        self.crew.estimates.save()
        return saved

    def _finish(self, commit: _Commit, layout: Layout, status: str, startup_s: float) -> Mapping[str, Any]:
        """Write the model and the summary."""
        self.engine.end()
        model: ModelState = self.driver.get(commit.model)
        checkpoint.save_model(self.folder.model, layout, model)
        self.crew.estimates.save()
        summary = {
            "name": self.config.name,
            "seed": self.config.seed,
            "status": status,
            "rounds": commit.rounds_done,
            "rounds_planned": self._rounds(),
            "model_digest": model.digest(layout),
            "num_parameters": layout.num_floats,
            "wall_s": round(self._now(), 3),
            "startup_s": round(startup_s, 3),
            "runtime": self.driver.kind,
            "nodes": of_nodes(self.config.federation, self.metrics, self.num_samples),
            **of_schedule(self.idle, self.crew.estimates, self.gpus),
            "versions": self.folder.versions(),
        }
        self.folder.write_summary(summary)
        self.voice.emit(RunEnded(self._now(), status, {**summary, "run_dir": str(self.folder.path)}))
        return summary

    def _saved(self, layout: Layout) -> Checkpoint | None:
        """Read the checkpoint to go on from. Errors: OutputError if it is of another model."""
        if not self.folder.resumed:
            return None
        newest = checkpoint.latest(self.folder.path)
        if newest is None:
            return None
        saved = checkpoint.load(newest)
        difference = saved.layout.difference(layout)
        if difference:
            raise OutputError(f"checkpoint {newest} is of another model than the task builds now: {difference}")
        if saved.rounds_done >= self._rounds():
            raise OutputError(
                f"{self.folder.path} has done its {saved.rounds_done} rounds;"
                f" to go on, ask for more: federation.rounds={saved.rounds_done + 10}"
            )
        return saved

    def _standardisation(self, moments: Moments) -> Any:
        """Give the federation's mean and deviation where the task asks for them. Errors: DataError."""
        task = self.config.task
        if not isinstance(task, Standardised) or task.standardise != "federated":
            return None
        try:
            return moments.mean_and_std()
        except DataError as error:
            raise DataError(f"{self._root()}: {error}") from error

    def _tell_started(self, layout: Layout, rounds_done: int) -> None:
        """Say what the run has, and who has nothing to train on."""
        self.voice.emit(
            RunStarted(
                *(self._now(), self.config.name, str(self.folder.path), self.driver.kind, self.crew.workers),
                *(self._rounds(), rounds_done + 1, layout.num_floats, self.num_samples),
                *(self.started_s, self.driver.link.cluster if self.driver.link is not None else ""),
                {worker: device.name for worker, device in self.crew.devices.items()},
            )
        )
        present = {path for path, item in self.engine.inventories.items() if item.error is None}
        nodes = self.config.federation
        empty = [
            path for path in nodes.nodes if self.num_samples[path] == 0 and (path in present or path in nodes.hubs)
        ]
        for path in empty:
            self.voice.emit(NodeChanged(self._now(), path, "skipped", rounds_done + 1))
            self.voice.emit(Notice(self._now(), "warning", path, "has no training samples and is not trained"))

    def _rounds(self) -> int:
        return self.config.federation.root.rounds

    def _root(self) -> str:
        return self.config.federation.root.name

    def _now(self) -> float:
        return time.time() - self.started_s


class _Voice:
    """Tells every monitor; files first, so that what a person saw is on disk."""

    def __init__(self, folder: RunDir, config: RunConfig, monitors: Sequence[Monitor]) -> None:
        from hierfl.monitor.files import JsonLines

        self.folder = folder
        self._ended = False
        self._monitors: list[Monitor] = [JsonLines(folder.path)]
        if config.output.tensorboard:
            from hierfl.monitor.tensorboard import TensorBoard

            self._monitors.append(TensorBoard(folder.path, config))
        self._monitors.extend(monitors)

    def listen(self, *monitors: Monitor) -> None:
        """Tell more monitors from now on, before the others."""
        self._monitors[:0] = monitors

    def emit(self, record: Record) -> None:
        """Tell a record."""
        self._ended = self._ended or isinstance(record, RunEnded)
        for monitor in self._monitors:
            monitor.on(record)

    def end(self, started_s: float, status: str, said: Mapping[str, Any]) -> None:
        """Tell an end before the run's time, and leave it in the summary."""
        if self._ended:
            return
        summary = {"status": status, "run_dir": str(self.folder.path), **said}
        with contextlib.suppress(OutputError, OSError):
            self.folder.write_summary({**summary, "wall_s": round(time.time() - started_s, 3)})
        self.emit(RunEnded(time.time() - started_s, status, summary))

    def close(self) -> None:
        """Finish files and the screen."""
        for monitor in self._monitors:
            monitor.close()


def _open_driver(runtime: Runtime, name: str) -> Driver:
    """Open the runtime that the configuration names, for a run of this name."""
    if runtime.kind == "local":
        from hierfl.runtime.local import LocalDriver

        return LocalDriver(runtime)
    from hierfl.runtime.ray_actors import RayDriver

    return RayDriver(runtime, name)


@contextlib.contextmanager
def _closing(driver: Driver) -> Iterator[Driver]:
    """Close the driver whatever happens."""
    try:
        yield driver
    finally:
        driver.close()


def _crew(
    config: RunConfig, driver: Driver, seats: Sequence[Seat], emit: Callable[[Record], None], started_s: float = 0.0
) -> Crew:
    """Gather the workers under the dispatch policy; the longest chain goes first by default."""
    from scheduler.policies.chain_first import ChainFirst

    runtime = config.runtime
    estimates = Estimates.open(config.task_kind, Path(runtime.estimates) if runtime.estimates else None)
    return Crew(
        *(driver, seats, runtime.policy or ChainFirst()),
        preaggregate=runtime.preaggregate,
        sites=config.sites,
        estimates=estimates,
        declared=declared_devices(runtime),
        gate=gate_of(driver.link, emit, started_s),
    )


def _newest(folder: RunDir) -> Checkpoint:
    """Read the newest checkpoint. Errors: OutputError if there is none."""
    newest = checkpoint.latest(folder.path)
    if newest is None:
        raise OutputError(f"{folder.path} has no checkpoint yet; `hierfl resume {folder.path}` starts its first round")
    return checkpoint.load(newest)


def _unheard(record: Record) -> None:
    """Drop a record."""
