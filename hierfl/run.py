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
from hierfl.config.schema import RunConfig
from hierfl.errors import DataError, HierflError, OutputError
from hierfl.learning.optimizers import try_out
from hierfl.learning.standardise import Moments
from hierfl.learning.state import Layout
from hierfl.learning.stopping import Progress, advance
from hierfl.learning.task import Standardised
from hierfl.monitor.cross_site import Matrix, write_matrix
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
from hierfl.reopen import Reopened, reopened
from hierfl.rundir import RunDir
from hierfl.runtime.driver import Driver, Handle
from hierfl.runtime.engine import Engine
from hierfl.runtime.foresight import check_needs
from hierfl.runtime.opening import closing, crew_of, open_driver
from hierfl.runtime.remembered import Remembered
from hierfl.runtime.specs import worker_spec
from hierfl.runtime.survey import samples_of
from hierfl.summary import idle_nodes, idle_time, of_fairness, of_nodes, of_round, of_schedule, on_all_data, simulated
from hierfl.voice import Voice, closed_on_error

__all__ = ["cross_site", "evaluate", "export", "go_on", "resume", "run"]

STOPPING = "stopping: what is being trained comes to its end; Ctrl-C once more does not wait for it"


def run(
    config: RunConfig, monitors: Sequence[Monitor] = (), opened: Callable[[RunConfig, Path], Driver] = open_driver
) -> Mapping[str, Any]:
    """Run a federation to its end; return its summary, as in summary.json.

    `opened`: opens the runtime, given the run's folder. Errors: HierflError; KeyboardInterrupt after a clean stop, the
    last commit kept.
    """
    with closed_on_error(monitors):
        _try_out(config)
        folder = RunDir.create(config)
    return _carry_out(Reopened(folder, config, None), monitors, opened)


def resume(
    run_dir: Path, overrides: Sequence[str] = (), monitors: Sequence[Monitor] = (), *, code_dir: Path | None = None
) -> Mapping[str, Any]:
    """Go on with a run from its newest checkpoint; without overrides to the bits that an unbroken run has.

    Errors: as of `run`; `reopened` says what is refused, and what `code_dir` is.
    """
    with reopened(run_dir, overrides, code_dir, to_train=True) as left:
        return go_on(left, monitors)


def go_on(
    left: Reopened, monitors: Sequence[Monitor] = (), opened: Callable[[RunConfig, Path], Driver] = open_driver
) -> Mapping[str, Any]:
    """Go on with a run that was reopened; its folder stays as it is until a round begins. As `run`."""
    with closed_on_error(monitors):
        _try_out(left.config)
    return _carry_out(left, monitors, opened)


def evaluate(run_dir: Path, monitors: Sequence[Monitor] = (), *, code_dir: Path | None = None) -> Mapping[str, Scalars]:
    """Measure a run's newest checkpoint at every site; return the metrics by path, hubs rolled up."""
    with _measuring(run_dir, monitors, code_dir) as (engine, rounds, model):
        return engine.fine_tune(rounds, model, engine.evaluate(rounds, model))


def cross_site(run_dir: Path, monitors: Sequence[Monitor] = (), *, code_dir: Path | None = None) -> Matrix:
    """Measure a run's model, and those that its sites keep, at every site; keep the figures in the run's folder."""
    with _measuring(run_dir, monitors, code_dir) as (engine, rounds, model):
        matrix = Matrix(rounds, engine.cross_site(rounds, model))
    write_matrix(run_dir, matrix)
    return matrix


def export(run_dir: Path, path: Path, monitors: Sequence[Monitor] = (), *, code_dir: Path | None = None) -> int:
    """Write a run's newest model, adapters merged, to a file; return the rounds that it has done. Needs no data."""
    with _measuring(run_dir, monitors, code_dir, with_sites=False) as (engine, rounds, model):
        layout, whole = engine.merged(model)
        checkpoint.save_model(path, layout, engine.driver.get(whole))
    return rounds


@contextlib.contextmanager
def _measuring(
    run_dir: Path, monitors: Sequence[Monitor], code_dir: Path | None, *, with_sites: bool = True
) -> Iterator[tuple[Engine, int, Handle]]:
    """Give workers that know a run's newest checkpoint, how many rounds it has done, and its model."""

    def emit(record: Record) -> None:
        for monitor in monitors:
            monitor.on(record)

    with reopened(run_dir, (), code_dir) as left:
        config, saved = left.config, left.saved
        if saved is None:
            raise OutputError(f"{run_dir} has no checkpoint yet; `hierfl resume {run_dir}` starts its first round")
        for warning in left.warnings:
            emit(Notice(0.0, "warning", "", warning))
        with closing(open_driver(config, run_dir)) as driver:
            crew = crew_of(config, driver, driver.start(worker_spec(config), num_hubs=0), emit)
            engine = Engine(config, driver, crew, emit, time.time())
            if with_sites:
                engine.describe()
            crew.prepare(saved.layout, saved.scale)
            crew.keeper.restore(Remembered.of(saved, config.federation, driver).sites)
            yield engine, saved.rounds_done, driver.put(saved.model)


def _carry_out(
    left: Reopened, monitors: Sequence[Monitor], opened: Callable[[RunConfig, Path], Driver]
) -> Mapping[str, Any]:
    """Run the rounds that are left; whatever ends them leaves a summary."""
    config, folder = left.config, left.folder
    with closed_on_error(monitors):
        voice = Voice(folder, config, monitors, _spent_s(left))
    try:
        if not folder.resumed:
            voice.open()
        with closing(opened(config, folder.path)) as driver:
            return _Run(left, voice, driver).go()
    except KeyboardInterrupt:
        voice.end("interrupted")
        raise
    except OSError as error:
        voice.end("failed", error=str(error))
        raise OutputError(f"{error.filename or folder.path}: {error.strerror or error}") from error
    except Exception as error:
        voice.end("failed", error=str(error) if isinstance(error, HierflError) else repr(error))
        raise
    finally:
        voice.close()


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

    def __init__(self, left: Reopened, voice: Voice, driver: Driver) -> None:
        self.left = left
        self.config = config = left.config
        self.folder = left.folder
        self.saved = left.saved
        self.voice = voice
        self.driver = driver
        voice.facts["runtime"] = driver.kind
        seats = driver.start(worker_spec(config), len(config.federation.hubs))
        self.crew = crew_of(config, driver, seats, voice.emit, voice.started_s)
        check_needs(self.crew.estimates, config.sites, self.crew.prospects)
        self.idle = idle_time(config, self.crew, voice.emit)
        self.gpus = GpuTime()
        voice.listen(self.idle, self.gpus)
        self.engine = Engine(config, driver, self.crew, voice.emit, voice.started_s)
        self.metrics: Mapping[str, Scalars] = {}
        self.num_samples: dict[str, int] = {}
        self.scale: Any = None
        self.committed = False

    def go(self) -> Mapping[str, Any]:
        """Set up, run the rounds, commit; an interruption keeps the last commit."""
        layout, commit = self._set_up()
        self.voice.facts["startup_s"] = round(self._now(), 3)
        status = "finished"
        try:
            for number in range(commit.rounds_done, self._rounds()):
                commit, reason = self._round(number, commit, layout)
                if reason is not None:
                    status = "stopped early"
                    said = f"stops after round {number + 1}: {reason}"
                    self.voice.emit(Notice(self._now(), "info", self._root(), said))
                    break
        except BaseException as end:
            with contextlib.suppress(HierflError, OSError):  # what ended the run is the better story
                if isinstance(end, KeyboardInterrupt) and self.driver.kind == "local":  # threads cannot be ended
                    self.voice.emit(Notice(self._now(), "info", self._root(), STOPPING))
                if commit.saved:
                    self.crew.estimates.save()
                else:
                    self._save(commit, layout)
            self._tell_facts()
            raise
        return self._finish(commit, layout, status)

    def _set_up(self) -> tuple[Layout, _Commit]:
        """Build the model, count the sites' samples, standardise, make the hubs."""
        layout, first = self.engine.initial()
        self._check_model(layout)
        saved = self.saved
        inventory = self.engine.describe()
        self.num_samples = samples_of(self.config, inventory)
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
        self.voice.facts["num_parameters"] = layout.num_floats
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
            metric = self.config.stopping.metric
            value = finite(self.metrics[self._root()].get(metric)) if metric else None
            if done % every == 0:  # a measurement only for the end must not count when the run is taken up again
                commit.progress, reason = advance(self.config.stopping, last.progress, value)
            if self._tunes(done, reason):
                self.metrics = self.engine.fine_tune(done, model, self.metrics)
            self.voice.emit(Evaluated(self._now(), done, self.metrics))
        commit.remembered = self.engine.remember()
        folder = None
        if done % self.config.output.checkpoint_every == 0 or done == self._rounds() or reason is not None:
            folder = self._save(commit, layout)
        spent_s = time.perf_counter() - begun
        self.committed = True
        busy, place = 1.0 - self.idle.last().idle, str(folder) if folder else None
        figures = of_round(self.idle)
        self.voice.emit(RoundCommitted(self._now(), done, self._rounds(), spent_s, busy, place, *figures))
        return commit, reason

    def _tunes(self, done: int, reason: str | None) -> bool:
        """Say whether sites make the model their own after this round."""
        tuning = self.config.evaluation.fine_tune
        return tuning is not None and (tuning.at == "every" or reason is not None or done == self._rounds())

    def _save(self, commit: _Commit, layout: Layout) -> Path:
        """Write a checkpoint, and what was learned on the way to it."""
        model = self.driver.get(commit.model)
        content = Checkpoint(
            *(commit.rounds_done, self.config.federation.epoch, self.config.seed, layout, model),
            scale=self.scale,
            progress=commit.progress,
            wall_s=self.voice.before_s + self._now(),
            **commit.remembered.fetched(self.driver),
        )
        commit.saved = True
        saved = checkpoint.save(self.folder.path, content, self.config.output.keep)
        self.crew.estimates.save()
        return saved

    def _finish(self, commit: _Commit, layout: Layout, status: str) -> Mapping[str, Any]:
        """Write the model and the summary."""
        self.engine.end()
        if self.config.baseline == "local" and self.metrics:
            matrix = Matrix(commit.rounds_done, self.engine.cross_site(commit.rounds_done, commit.model))
            write_matrix(self.folder.path, matrix)
            self.voice.facts["on_all_data"] = on_all_data(matrix, self._root())
        whole: tuple[Layout, Handle] = layout, commit.model
        if self.config.lora is not None:
            whole = self.engine.merged(commit.model)
            self.voice.facts["lora"] = {"base_digest": layout.base, "num_parameters": whole[0].num_floats}
        checkpoint.save_model(self.folder.model, whole[0], self.driver.get(whole[1]))
        self.crew.estimates.save()
        self._tell_facts()
        summary = self.voice.summary(status)
        self.folder.write_summary(summary)
        self.voice.emit(RunEnded(self._now(), status, summary))
        return summary

    def _tell_facts(self) -> None:
        """Let the summary know how the nodes fared and how the devices were used, as far as there was a round."""
        self.voice.facts["nodes"] = of_nodes(self.config, self.metrics, self.num_samples)
        if self.metrics:
            self.voice.facts.update(of_fairness(self.config, self.metrics))
        if self.committed:
            self.voice.facts.update(of_schedule(self.idle, self.crew.estimates, self.gpus))

    def _check_model(self, layout: Layout) -> None:
        """Refuse a checkpoint of another model than the task builds now. Errors: OutputError."""
        difference = self.saved.layout.difference(layout) if self.saved is not None else None
        if difference:
            raise OutputError(
                f"the checkpoint of {self.folder.path} is of another model than the task builds now: {difference}"
            )

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
        """Say what the run has, who has nothing to train on, and what a person should know of a run taken up again."""
        kept = None
        if self.folder.resumed:
            kept = self.folder.keep_config(self.config)
            checkpoint.set_aside(self.folder.path, rounds_done)
            self.voice.open()
        self.voice.emit(
            RunStarted(
                *(self._now(), self.config.name, str(self.folder.path), self.driver.kind, self.crew.workers),
                *(self._rounds(), rounds_done + 1, layout.num_floats, self.num_samples),
                *(self.voice.started_s, self.driver.link.cluster if self.driver.link is not None else ""),
                {worker: device.name for worker, device in self.crew.devices.items()},
                [path for path, hub in self.config.federation.hubs.items() if hub.topology.sequential],
            )
        )
        for path, level, what in simulated(self.config):
            self.voice.emit(Notice(self._now(), level, path, what))
        for path, level, why in idle_nodes(self.config, self.engine.inventories, self.num_samples):
            self.voice.emit(NodeChanged(self._now(), path, "skipped", rounds_done + 1))
            self.voice.emit(Notice(self._now(), level, path, why))
        for warning in self.left.warnings:
            self.voice.emit(Notice(self._now(), "warning", "", warning))
        if kept is not None:
            said = f"from round {rounds_done + 1} on: {' '.join(self.left.overrides)}; {kept} held before"
            self.voice.emit(Notice(self._now(), "info", "", said))

    def _rounds(self) -> int:
        return self.config.federation.root.rounds

    def _root(self) -> str:
        return self.config.federation.root.name

    def _now(self) -> float:
        return self.voice.now()


def _try_out(config: RunConfig) -> None:
    """Find what is wrong with the optimizers before anything is written. Errors: ConfigError."""
    try_out({path: settings.training for path, settings in config.sites.items()})


def _spent_s(left: Reopened) -> float:
    """Give the seconds that earlier processes took, as far as they were written down."""
    if not left.folder.resumed:
        return 0.0
    said = left.folder.summary()
    told_s = float(said.get("wall_s_total", said.get("wall_s", 0.0)))
    return max(told_s, left.saved.wall_s if left.saved is not None else 0.0)
