"""A run, as the paper tells it (Rieke et al. 2020, Algorithm 1): rounds over the tree, begun, taken up again, measured.

The rounds themselves are in `rounds`.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hierfl import checkpoint, commits
from hierfl.checkpoint import Checkpoint
from hierfl.config.membership import epoch_of, epochs
from hierfl.config.schema import RunConfig
from hierfl.errors import ConfigError, Fenced, HierflError, OutputError, Overtaken
from hierfl.journal import Lead, leading
from hierfl.monitor.afterwards import log_matrix
from hierfl.monitor.cross_site import Matrix, check_measured, write_matrix
from hierfl.monitor.records import Monitor, Notice, Scalars
from hierfl.monitor.words import few
from hierfl.own_models import of_site
from hierfl.predict import said_of, thresholds_after
from hierfl.reopen import Reopened, check_model, reopened, try_out
from hierfl.rounds import Amended, Rounds
from hierfl.rundir import RunDir
from hierfl.runtime.apart import models_apart
from hierfl.runtime.driver import Handle
from hierfl.runtime.engine import Engine
from hierfl.runtime.opening import Opened, closing, crew_of, open_driver, store_of
from hierfl.runtime.remembered import Remembered
from hierfl.runtime.specs import worker_spec
from hierfl.stops import is_stop
from hierfl.voice import Voice, closed_on_error, emit_to

__all__ = ["cross_site", "evaluate", "export", "go_on", "resume", "run"]


def run(config: RunConfig, monitors: Sequence[Monitor] = (), opened: Opened = open_driver) -> Mapping[str, Any]:
    """Run a federation to its end; return its summary, as in summary.json.

    `opened`: opens the runtime. Errors: HierflError; KeyboardInterrupt after a clean stop, the last commit kept.
    """
    with closed_on_error(monitors):
        try_out(config)
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


def go_on(left: Reopened, monitors: Sequence[Monitor] = (), opened: Opened = open_driver) -> Mapping[str, Any]:
    """Go on with a run that was reopened; as `run`.

    Its folder stays as it is until a round begins, but for the number of this process in the journal.
    """
    return _carry_out(left, monitors, opened)


def evaluate(
    run_dir: Path, monitors: Sequence[Monitor] = (), *, code_dir: Path | None = None, overrides: Sequence[str] = ()
) -> Mapping[str, Scalars]:
    """Measure a run's newest checkpoint at every site; return the metrics by path, hubs rolled up.

    `overrides` hold for this measurement alone: other data at a site. Errors: ConfigError for one of another run.
    """
    with _measuring(run_dir, monitors, code_dir, overrides=overrides) as (engine, _, saved, model):
        return engine.fine_tune(saved.rounds_done, model, engine.evaluate(saved.rounds_done, model))


def cross_site(
    run_dir: Path, monitors: Sequence[Monitor] = (), *, code_dir: Path | None = None, metric: str | None = None
) -> Matrix:
    """Measure a run's model, those of its hubs and sites, and those that sites keep, at every site.

    The figures are kept in the run's folder. Where each site trains alone there are no models but the sites' own.

    Errors: ConfigError where sites have a privacy mechanism, or the run has not measured the `metric` that is to be
    shown, before anything is loaded.
    """
    if metric is not None:
        check_measured(metric, RunDir(run_dir).summary().get("nodes", {}))
    with _measuring(run_dir, monitors, code_dir, check=partial(_check_free, run_dir)) as (engine, config, saved, model):
        rounds, found = saved.rounds_done, dict(engine.cross_site(saved.rounds_done, model))
        if config.baseline is None:
            for path, own in models_apart(config, engine, saved, found):
                found[path] = engine.measure(rounds, engine.driver.put(own))
        matrix = Matrix(rounds, {path: found[path] for path in config.federation.nodes if path in found}, config.better)
    write_matrix(run_dir, matrix)
    log_matrix(run_dir, matrix)
    return matrix


def export(
    run_dir: Path, path: Path, monitors: Sequence[Monitor] = (), *, code_dir: Path | None = None, site: str = ""
) -> tuple[int, str]:
    """Write a run's newest model, or the one that a site uses itself, adapters merged, to a file; needs no data.

    Return the rounds that the model has done, and the digest of what was read, the checkpoint's `model_digest`.
    Errors: ConfigError for a site that has no model of its own; OutputError for a file that cannot be written.
    """
    folder = run_dir.resolve()  # what follows is done in the folder that the run was started in
    with _measuring(run_dir, monitors, code_dir, with_sites=False) as (engine, config, saved, model):
        _check_folder(path)
        own = of_site(config, saved.sites, site) if site else ()
        layout, whole = engine.merged(model, *own)
        thresholds = thresholds_after(config, folder, saved.rounds_done, *own[:1])
        missing = [label for label, at in thresholds.items() if at is None]
        if config.evaluation.operating_point is not None and (missing or not thresholds):
            of = f" for {few(missing)}" if any(missing) else ""
            said = (
                f"has no threshold{of} of this model after round {saved.rounds_done}: it was not measured, or none"
                " could be chosen; predictions are told apart at one half"
            )
            emit_to(monitors)(Notice(0.0, "warning", config.federation.root.name, said))
        digest = saved.model.digest(saved.layout)
        about = said_of(config, saved, digest, site, thresholds)
        checkpoint.save_model(path, layout, engine.driver.get(whole), about)
        return saved.rounds_done, digest


def _check_folder(file: Path) -> None:
    """Errors: OutputError where a file's folder is not there, which is the command's mistake."""
    try:
        os.stat(os.path.join(file.parent, ""))
    except OSError as error:
        said = f"the model cannot be written to {file}: {error.strerror or error}"
        raise OutputError(said).misnamed(error) from error


@contextlib.contextmanager
def _measuring(
    run_dir: Path,
    monitors: Sequence[Monitor],
    code_dir: Path | None,
    *,
    with_sites: bool = True,
    overrides: Sequence[str] = (),
    check: Callable[[RunConfig], None] = lambda config: None,
) -> Iterator[tuple[Engine, RunConfig, Checkpoint, Handle]]:
    """Give workers that know a run's newest checkpoint, its configuration, the checkpoint and its model.

    `check`: raises for a configuration of which that is not wanted.
    """
    emit = emit_to(monitors)
    with reopened(run_dir, overrides, code_dir) as left:
        saved = left.saved
        if saved is None:
            if left.config.only_tells:
                said = "nothing has been trained, sites have told of their records"
                raise OutputError(f"{run_dir}: {said}; `hierfl resume {run_dir} statistics.only=false` trains")
            raise OutputError(f"{run_dir} has no checkpoint yet; `hierfl resume {run_dir}` starts its first round")
        config = epoch_of(epochs(left.config), saved.rounds_done).config
        check(config)
        for warning in left.warnings:
            emit(Notice(0.0, "warning", "", warning))
        with closing(open_driver(config, run_dir)) as driver:
            crew = crew_of(config, driver, driver.start(worker_spec(config), len(config.federation.hubs)), emit)
            engine = Engine(config, driver, crew, emit, time.time())
            check_model(run_dir, saved, engine.initial()[0])
            if with_sites:
                engine.describe()
            crew.prepare(saved.layout, saved.scale)
            crew.keeper.restore(Remembered.of(saved, config, driver).sites)
            yield engine, config, saved, driver.put(saved.model)


def _check_free(run_dir: Path, config: RunConfig) -> None:
    """Errors: ConfigError where a round more, which makes the models of sites and hubs, would be paid for by nobody."""
    private = [path for path, site in config.sites.items() if site.trains and site.privacy is not None]
    if private:
        more = f" and {len(private) - 1} more" if len(private) > 1 else ""
        raise ConfigError(
            f"{private[0]}{more}: privacy: for --cross-site sites train a round more, and epsilon counts the run's own"
            f" alone; `hierfl evaluate {run_dir}` measures the federation's model at every site, and trains nothing"
        )


def _carry_out(left: Reopened, monitors: Sequence[Monitor], opened: Opened) -> Mapping[str, Any]:
    """Run the rounds that are left, under one configuration after the other where the run is amended."""
    with contextlib.ExitStack() as stack:
        while True:
            try:
                return _leg(left, monitors, opened)
            except Amended:
                address = left.config.runtime.address
                before, left = left, stack.enter_context(reopened(left.folder.path, to_train=True))
                left = replace(left, needs_number=before.needs_number, at_once=True)
                if left.config.runtime.address is None:  # of the Ray that it shares with others, if it does
                    runtime = replace(left.config.runtime, address=address)
                    left = replace(left, config=replace(left.config, runtime=runtime))


def _leg(left: Reopened, monitors: Sequence[Monitor], opened: Opened) -> Mapping[str, Any]:
    """Run the rounds that are left under one configuration; whatever ends them leaves a summary, unless another process
    leads them now. Errors: Amended, Fenced.
    """
    config, folder = left.config, left.folder
    with closed_on_error(monitors):
        voice = Voice(folder, config, monitors, _spent_s(left))
    is_over = True
    try:
        if not folder.resumed:
            voice.open()
        at_once, holds = left.at_once or not folder.resumed, partial(_hold, left)
        lease_s = config.redundancy.lease_s
        leads = leading(store_of(config, folder.path), lease_s, Amended, at_once=at_once, holds=holds)
        with leads as lead, closing(opened(config, folder.path, lead)) as driver:
            return Rounds(left, voice, driver, lead).go()
    except Amended:
        is_over = False
        raise
    except Overtaken:
        voice.let_go()  # it has not begun, and has nothing to tell of the run
        raise
    except Fenced as error:
        voice.let_go()
        voice.end("fenced", error=str(error))
        raise
    except (Exception, KeyboardInterrupt) as error:
        if is_stop(error):
            voice.end("interrupted")
        else:
            voice.end("failed", error=str(error) if isinstance(error, HierflError | OSError) else repr(error))
        if isinstance(error, OSError):
            raise OutputError(f"{error.filename or folder.path}: {error.strerror or error}") from error
        raise
    finally:
        voice.close(is_over=is_over)


def _hold(left: Reopened, lead: Lead) -> None:
    """See that nobody has gone on with a run before it is this process's, nor before it was. Errors: Overtaken,
    OutputError.
    """
    if not left.folder.resumed or lead.store is None:
        return
    if lead.failure and left.needs_number:
        raise OutputError(
            f"the journal of {left.folder.path} cannot be written: {lead.failure}; others may lead the run"
        )
    if not lead.is_taken:
        _try_folder(left.folder.path)
    try:
        fenced = commits.void(left.folder.path, lead.store.writers()) if lead.is_taken else []
    except OSError:
        return  # it is said that the journal cannot be read
    if fenced or commits.stamp(left.folder.path) != left.stamp:
        said = f"{left.folder.path} has gone on while it was being taken up; take it up once more"
        way = "leave it to that one, change it as it goes on (`hierfl amend`), or wait for its end (--standby)"
        other = lead.other()
        raise Overtaken(said + (f", or, if {other}, is at work on it, {way}" if other else ""))


def _try_folder(run_dir: Path) -> None:
    """Find that a run's folder cannot be written before whoever leads it is fenced. Errors: OutputError."""
    try:
        with tempfile.TemporaryFile(dir=run_dir) as file:
            file.write(b"0")
            file.flush()
    except OSError as error:
        why = error.strerror or str(error)
        raise OutputError(f"{run_dir} cannot be written: {why}; whoever leads the run goes on with it") from error


def _spent_s(left: Reopened) -> float:
    """Give the seconds that earlier processes took, as far as they were written down."""
    if not left.folder.resumed:
        return 0.0
    said = left.folder.summary()
    told_s = float(said.get("wall_s_total", said.get("wall_s", 0.0)))
    return max(told_s, left.saved.wall_s if left.saved is not None else 0.0)
