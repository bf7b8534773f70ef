"""The rounds of a run, from its first call to a worker to its summary: each one's model is measured and committed.

describe the sites; standardise; for each round: train down the tree and add up; evaluate; commit
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hierfl import checkpoint, commits
from hierfl.best import Best, is_kept
from hierfl.budget import Cost, check_budget, costs, counted_on, keep_counts, paid, with_spent
from hierfl.config.membership import epoch_of, epochs, still_known
from hierfl.errors import ConfigError, HierflError
from hierfl.journal import Lead
from hierfl.learning.standardise import wanted_scale
from hierfl.learning.state import Layout
from hierfl.learning.stopping import Progress, advance, lacking
from hierfl.monitor.absent import Absent
from hierfl.monitor.afterwards import log_matrix
from hierfl.monitor.cross_site import Matrix, write_matrix
from hierfl.monitor.gpus import GpuTime
from hierfl.monitor.records import (
    Evaluated,
    Notice,
    RoundCommitted,
    RunEnded,
    RunStarted,
    Scalars,
)
from hierfl.monitor.words import finite
from hierfl.provenance import task_code
from hierfl.published import Published
from hierfl.reopen import Reopened, check_model, goal_of, reopened
from hierfl.runtime.driver import Driver, Handle
from hierfl.runtime.engine import Engine
from hierfl.runtime.foresight import check_needs
from hierfl.runtime.injection import Injection
from hierfl.runtime.jobs import Inventory
from hierfl.runtime.opening import crew_of
from hierfl.runtime.recorder import Recorder
from hierfl.runtime.remembered import Remembered
from hierfl.runtime.specs import worker_spec
from hierfl.runtime.survey import as_told, patients_of, samples_of
from hierfl.stops import recur
from hierfl.summary import (
    changed,
    idle_time,
    of_best,
    of_epochs,
    of_fairness,
    of_nodes,
    of_round,
    of_schedule,
    on_all_data,
    unloaded,
)
from hierfl.told import begun, keep_statistics
from hierfl.voice import Voice

__all__ = ["Amended", "Rounds"]

STOPPING = "stopping: what is being trained is left off; Ctrl-C once more does not wait for that"


class Amended(Exception):
    """The run is to go on under another configuration, from the commit that was just written."""


class Rounds:
    """One run, from its first call to a worker to its summary."""

    def __init__(self, left: Reopened, voice: Voice, driver: Driver, lead: Lead) -> None:
        self.left, self.voice, self.lead = left, voice, lead
        voice.leads = lead.leads
        self.config = config = left.config
        self.folder, self.saved = left.folder, left.saved
        self.faults = Injection(config, left.folder.path, voice.emit, voice.facts, voice.started_s)
        self.driver = driver = self.faults.over(driver)
        voice.facts |= {"runtime": driver.kind, "task_code": task_code(config), "rounds_planned": self._rounds()}
        seats = driver.start(worker_spec(config), len(config.federation.hubs))
        self.crew = crew_of(config, driver, seats, voice.emit, voice.started_s)
        check_needs(self.crew.estimates, config.sites, self.crew.prospects)
        self.idle = idle_time(config, self.crew, voice.emit)
        self.gpus, self.absent, self.committed = GpuTime(), Absent(), False
        voice.listen(self.idle, self.gpus, self.absent)
        self.epochs, self.best = epochs(config), Best(left.folder.path, lead.epoch)
        done = left.saved.rounds_done if left.saved is not None else 0
        has_stopped = left.saved is not None and left.saved.progress.reason is not None
        self.epoch = epoch_of(self.epochs, done if has_stopped else 1 + done)
        self.journal = Recorder(config, driver, self.crew.keeper, lead, done)
        self.engine = self._engine()
        self.metrics: Mapping[str, Scalars] = {}
        self.num_samples: dict[str, int] = {}
        self.costs: dict[str, Cost] = {}
        self.scale: Any = None

    def go(self) -> Mapping[str, Any]:
        """Set up, run the rounds, commit; an interruption keeps the last commit, and the journal what came after."""
        try:
            return self._go()
        finally:
            self.journal.close()

    def _go(self) -> Mapping[str, Any]:
        layout, commit = self._set_up()
        self.voice.facts["startup_s"] = round(self.voice.spent_s(), 3)
        reason = commit.progress.reason  # it had stopped early, and was killed before its end
        try:
            for number in range(commit.rounds_done, self._rounds()) if reason is None else ():
                self._take_in(commit, layout)
                self._enter(number, commit, layout)
                commit, committed = self._round(number, commit, layout)
                self.voice.emit(committed)  # who hears of it may raise, and what it was told is kept
                reason = commit.progress.reason
                if wrong := self._lacking():
                    raise wrong
                if reason is not None:
                    said = f"stops after round {number + 1}: {reason}"
                    self.voice.emit(Notice(self._now(), "info", self._root(), said))
                    break
            else:
                self._take_in(commit, layout)  # more rounds, perhaps
        except BaseException as end:
            with contextlib.suppress(HierflError, OSError):  # what ended the run is the better story
                # Threads take a while to leave off.
                if isinstance(end, KeyboardInterrupt) and self.driver.kind == "local":
                    self.voice.emit(Notice(self._now(), "info", self._root(), STOPPING))
            with contextlib.suppress(HierflError):
                if commit.saved:
                    self.crew.estimates.save()
                else:
                    self._save(commit, layout)
            self._tell_facts(commit)
            raise
        return self._finish(commit, layout, "finished" if reason is None else "stopped early")

    def _set_up(self) -> tuple[Layout, Published]:
        """Build the model, count the samples, standardise; claim the run, now that it can go on; make the hubs."""
        layout, first = self.engine.initial()
        saved = self.saved
        if saved is not None:
            check_model(self.folder.path, saved, layout, self.left.warnings)
        self.engine.describe()
        moments = self.engine.moments()
        self.engine.compare()
        if saved is not None:
            self.scale = saved.scale
        elif not self.config.only_tells:
            self.scale = wanted_scale(self.config.task, moments, self._root())
        if self.scale is not None:  # who uses the model elsewhere needs it
            self.voice.facts["standardised"] = {
                name: values.tolist() for name, values in zip(("mean", "std"), self.scale, strict=True)
            }
        self.crew.prepare(layout, self.scale)
        self.journal.take_up(self._under_way())
        commit = Published(0, first, Remembered(), Progress(), saved=True)
        if saved is not None:
            commit = Published.of(saved, self.epoch.config, self.driver)
        if saved is None or saved.epoch == self.epoch.number:
            commit.remembered = replace(commit.remembered, hubs=self.journal.recalled(commit.remembered.hubs))
        self._make_hubs(layout, commit.remembered)
        self.voice.facts["num_parameters"] = layout.num_floats
        self._tell_started(layout, commit)
        if saved is not None and saved.epoch != self.epoch.number:
            self._tell_changed()
        return layout, commit

    def _under_way(self) -> Path | None:
        """Say where the checkpoint has rounds of hubs that are to go on: of these members, with a round of the root."""
        saved = self.saved
        if saved is None or saved.epoch != self.epoch.number:
            return None
        has_ended = saved.rounds_done >= self._rounds() or saved.progress.reason is not None
        return None if has_ended else saved.under_way

    def _make_hubs(self, layout: Layout, remembered: Remembered) -> None:
        """Make the hubs of the tree as it is now; who is not there has no samples."""
        config = self.epoch.config
        there = samples_of(config, self.engine.inventories)
        self.num_samples = {**dict.fromkeys(self.config.federation.nodes, 0), **there}
        units = counted_on(config, there, patients_of(self.engine.inventories))
        check_budget(config, units)
        self.costs = costs(self.config, keep_counts(self.folder.path, costs(config, units)))
        steps = {path: site.training.num_steps(units[path] or 0) for path, site in config.sites.items()}
        self.engine.set_up(layout, there, steps, remembered)
        self.voice.facts.update(of_epochs(self.epochs, self.epoch))

    def _take_in(self, commit: Published, layout: Layout) -> None:
        """Look for what was left for the run; what cannot be is refused by name. Errors: Amended, Stopped."""
        recur()
        if not (words := self.folder.amendments()):
            return
        if not commit.saved:
            self._save(commit, layout)
        try:
            with reopened(self.folder.path, to_train=True):
                pass
        except HierflError as error:
            self.folder.drop_amendments(len(words), refused=True)
            said = f"refused to take in {' '.join(words)}: {error}; the run goes on as it was"
            self.voice.emit(Notice(self._now(), "warning", self._root(), said))
            return
        self.engine.end("the run is amended")
        raise Amended

    def _enter(self, number: int, commit: Published, layout: Layout) -> None:
        """Let sites join and leave before a round, counted from 0; what hubs and sites that stay remember goes on."""
        epoch = epoch_of(self.epochs, number + 1)
        if epoch is self.epoch:
            return
        if (epoch.left or epoch.renewed) and not commit.saved:
            self._save(commit, layout)  # who leaves for good is not asked for these rounds again
        self.engine.end("the members change", stops=True)
        known, self.epoch = still_known(self.engine.inventories, self.config, self.epoch, epoch), epoch
        self.engine = self._engine(known)
        self.engine.describe()
        self.engine.compare()
        self._make_hubs(layout, commit.remembered.within(epoch.config, commit.rounds_done, self.driver))
        self._tell_changed()

    def _engine(self, known: Mapping[str, Inventory] | None = None) -> Engine:
        """Make what runs the rounds over the tree as it is now. `known`: what its sites have told already."""
        emit, since_s, flush = self.voice.emit, self.voice.started_s, self.voice.flush
        return Engine(self.epoch.config, self.driver, self.crew, emit, since_s, known, self.journal, flush)

    def _tell_changed(self) -> None:
        """Say who joins and leaves with the round that comes."""
        for record in changed(self.epoch, self._told_samples(), self._now()):
            self.voice.emit(record)
        self._tell_statistics()

    def _lacking(self) -> ConfigError | None:
        """Say what is wrong where training is to stop by what is not measured."""
        return lacking(self.config.stopping, self.metrics.get(self._root(), {}), self.config.evaluation.auc)

    def _round(self, number: int, last: Published, layout: Layout) -> tuple[Published, RoundCommitted]:
        """Run, measure and commit one round, and say so; its progress has the reason to stop, if there is one."""
        begun = time.perf_counter()
        model = self.engine.round(number, last.model)
        done = number + 1
        commit = replace(last, rounds_done=done, model=model, progress=replace(last.progress, reason=None), saved=False)
        every = self.config.evaluation.every
        if every and (done % every == 0 or done == self._rounds()):
            self.metrics = self.engine.evaluate(done, model)
            found, stopping = self.metrics[self._root()], self.config.stopping
            # A measurement only for the end must not count when the run is taken up again.
            if done % every == 0 and self._lacking() is None:
                value = finite(found.get(stopping.metric or ""))
                commit.progress = advance(stopping, commit.progress, value, self.config.better, done)
                if commit.progress.best_round == done and self.config.federation.root.topology.has_centre:
                    self.journal.check()
                    commit.best = self.best.found(done, last.best)
                    self.engine.write_model(commit.best, *self._whole(layout, model))
            self._tell_measured(commit)
        commit.remembered = self.engine.remember(done)
        self.journal.check()
        folder = None
        is_last = done == self._rounds() or commit.progress.reason is not None
        if is_last or done % self.config.output.checkpoint_every == 0 or self.journal.is_full:
            folder = self._save(commit, layout)
        spent_s = time.perf_counter() - begun
        self.committed = True
        busy, place = 1.0 - self.idle.last().idle, str(folder) if folder else None
        return commit, RoundCommitted(self._now(), done, self._rounds(), spent_s, busy, place, *of_round(self.idle))

    def _tell_measured(self, commit: Published) -> None:
        """Tell how a model does that was just measured, and where it is wanted now how what sites make of it does."""
        done, tuning = commit.rounds_done, self.config.evaluation.fine_tune
        is_last = done >= self._rounds() or commit.progress.reason is not None
        if tuning is not None and (is_last or tuning.at == "every"):
            self.metrics = self.engine.fine_tune(done, commit.model, self.metrics)
        self.metrics = with_spent(self.metrics, self.costs, done)
        self.voice.emit(Evaluated(self._now(), done, self.metrics))

    def _save(self, commit: Published, layout: Layout) -> Path:
        """Write a checkpoint, and what was learned on the way to it."""
        epoch, wall_s = epoch_of(self.epochs, commit.rounds_done).number, self.voice.before_s + self.voice.spent_s()
        run = {"epoch": epoch, "seed": self.config.seed, "goal": goal_of(self.config.resolved), "layout": layout}
        content = commit.content({**run, "scale": self.scale, "wall_s": wall_s, "writer": self.lead.epoch})
        commit.saved = True
        self.journal.check()
        self.faults.reached("before_checkpoint", commit.rounds_done - 1)
        keep = self.config.output.keep
        saved = self.engine.save(self.folder.path, content, commit.model, commit.remembered, keep)
        commit.best = self.best.committed(saved)
        self.faults.reached("after_checkpoint", commit.rounds_done - 1)
        self.journal.rotate(commit.rounds_done, saved / checkpoint.UNDER_WAY)
        self.crew.estimates.save()
        return saved

    def _finish(self, commit: Published, layout: Layout, status: str) -> Mapping[str, Any]:
        """Write the model and the summary; a run that was killed just before measures its model first."""
        if not self.committed and self.config.evaluation.every and not self.config.only_tells:
            self.metrics = self.engine.evaluate(commit.rounds_done, commit.model)
            self._tell_measured(commit)
        self.engine.end()
        self.faults.end()
        if self.config.baseline == "local" and self.metrics:
            matrix = Matrix(
                commit.rounds_done, self.engine.cross_site(commit.rounds_done, commit.model), self.config.better
            )
            write_matrix(self.folder.path, matrix)
            log_matrix(self.folder.path, matrix)
            self.voice.facts["on_all_data"] = on_all_data(matrix, self._root())
        whole = self._whole(layout, commit.model)
        if self.config.lora is not None:
            self.voice.facts["lora"] = {"base_digest": layout.base, "num_parameters": whole[0].num_floats}
        self.journal.check()
        if not self.config.only_tells:
            self.engine.write_model(self.folder.model, *whole)
        self.journal.end()
        self.crew.estimates.save()
        self._tell_facts(commit)
        summary = self.voice.summary(status)
        self.folder.write_summary(summary)
        self.voice.emit(RunEnded(self._now(), status, summary))
        return summary

    def _whole(self, layout: Layout, model: Handle) -> tuple[Layout, Handle]:
        """Give a model as the task has it, its adapters merged."""
        return (layout, model) if self.config.lora is None else self.engine.merged(model)

    def _tell_facts(self, commit: Published) -> None:
        """Let the summary know how the nodes fared and how the devices were used, as far as there was a round."""
        best = of_best(self.config, commit.progress, is_kept=is_kept(commit.best))
        self.voice.facts.update({**best, **paid(self.costs, commit.rounds_done)})
        self.voice.facts["nodes"] = of_nodes(self.config, self.metrics, self.num_samples)
        self.voice.facts.update(self.absent.record(unloaded(self.engine.inventories)))
        if self.metrics:
            self.voice.facts.update(of_fairness(self.config, self.metrics))
        if self.committed:
            self.voice.facts.update(of_schedule(self.idle, self.crew.estimates, self.gpus))

    def _tell_started(self, layout: Layout, commit: Published) -> None:
        """Say what the run has, who has nothing to train on, and what a person should know of a run taken up again."""
        kept, replaced = None, ""
        if self.folder.resumed:
            kept = self.folder.keep_config(self.config, self.left.num_amendments)
            commits.set_aside(self.folder.path, commit.rounds_done, self.lead.epoch)
            replaced = self.best.take_up(commit.best)
            self.voice.open()
        self.journal.begin()
        self.voice.emit(
            RunStarted(
                *(self._now(), self.config.name, str(self.folder.path), self.driver.kind, self.crew.workers),
                *(self._rounds(), commit.rounds_done + 1, layout.num_floats, self._told_samples()),
                *(self.voice.started_s, self.driver.link.cluster if self.driver.link is not None else ""),
                {worker: device.name for worker, device in self.crew.devices.items()},
                [path for path, hub in self.config.federation.hubs.items() if hub.topology.sequential],
                *(self.folder.versions(), str(self.voice.facts["task_code"])),
            )
        )
        for level, said in self.faults.story():
            self.voice.emit(Notice(self._now(), level, "", said))
        told = self.engine.inventories, self.num_samples, layout, self._now(), commit.rounds_done + 1
        for record in begun(self.config, self.epoch, *told):
            self.voice.emit(record)
        self._tell_statistics()
        for warning in filter(None, (*self.left.warnings, replaced)):
            self.voice.emit(Notice(self._now(), "warning", "", warning))
        if self.lead.before:
            said = (
                f"{self.lead.before}, has led this run and did not say that it ended: if it is at work still, it ends"
            )
            self.voice.emit(Notice(self._now(), "info", "", said))
        for level, said in self.journal.story():
            self.voice.emit(Notice(self._now(), level, "", said))
        if kept is not None:
            said = f"from round {commit.rounds_done + 1} on: {' '.join(self.left.overrides)}; {kept} held before"
            self.voice.emit(Notice(self._now(), "info", "", said))

    def _tell_statistics(self) -> None:
        """Keep, and say, what sites have told of their records."""
        told = keep_statistics(self.epoch.config, self.engine.inventories, self.folder.path, self.voice.facts)
        if told:
            self.voice.emit(Notice(self._now(), "info", self._root(), told))

    def _told_samples(self) -> dict[str, int | None]:
        """Give every node's training samples, as people are told of them."""
        return as_told(self.num_samples, self.config.federation, self.engine.inventories)

    def _rounds(self) -> int:
        return 0 if self.config.only_tells else self.config.federation.root.rounds

    def _root(self) -> str:
        return self.config.federation.root.name

    def _now(self) -> float:
        return self.voice.now()
