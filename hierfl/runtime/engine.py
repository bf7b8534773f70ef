"""The supervisor of a run: it owns all handles and all calls, and decides nothing.

Hubs say what they want of whom (`Relay`), the scheduler says which device does what next (`Crew`), and what the sites
are asked beside training is `Survey`'s.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from hierfl import checkpoint
from hierfl.checkpoint import Checkpoint
from hierfl.config.schema import RunConfig
from hierfl.errors import HierflError
from hierfl.learning.fine_tune import used
from hierfl.learning.local import LocalRule
from hierfl.learning.metrics import Tally
from hierfl.learning.own_metrics import OF_SCORES
from hierfl.learning.standardise import Moments
from hierfl.learning.state import Layout
from hierfl.monitor import records
from hierfl.monitor.records import Record, Scalars
from hierfl.monitor.words import plural
from hierfl.runtime import results
from hierfl.runtime.crew import Crew
from hierfl.runtime.driver import Driver, Handle
from hierfl.runtime.jobs import Inventory, Order
from hierfl.runtime.patience import Patience
from hierfl.runtime.recorder import Recorder
from hierfl.runtime.relay import Relay
from hierfl.runtime.remembered import Remembered
from hierfl.runtime.scribe import Scribe
from hierfl.runtime.survey import Survey
from scheduler.placement import crowded
from tiers.federation import is_within
from tiers.messages import Update

__all__ = ["Engine"]

WAIT_S = 0.5
LOOK_S = 3.0
"""How often the engine looks for new devices, and for work that has none."""

_OF_SCORES = frozenset(f"{beside}{name}" for beside in ("", "held_out_", "personal_") for name in OF_SCORES)


class Engine:
    """Runs rounds over the tree on a driver; `emit` takes every record of what happens.

    `inventories`: what sites have told already, in an earlier epoch of the tree; `flush` is called every few seconds,
    also while nothing happens.
    """

    def __init__(
        self,
        config: RunConfig,
        driver: Driver,
        crew: Crew,
        emit: Callable[[Record], None],
        started_s: float,
        inventories: Mapping[str, Inventory] | None = None,
        recorder: Recorder | None = None,
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        self.driver, self.crew, self._flush = driver, crew, flush
        self._tree = config.federation
        driver.enter(self._tree.epoch)
        self._alone = config.baseline == "local"
        self._auc = config.evaluation.auc
        self._fine_tune = config.evaluation.fine_tune
        self._scribe = Scribe(config.federation, emit, started_s)
        self._survey = Survey(config, crew, self._scribe, inventories)
        self._recorder = recorder
        self._relay = Relay(config, driver, crew, self._scribe, self._pump, recorder)
        self._steps: Mapping[str, int] = {}
        self._built: list[tuple[Layout, Handle]] = []
        self._looked_s = time.monotonic()
        limit_s = config.runtime.device_timeout_s
        self._patience = Patience(limit_s=math.inf if limit_s is None else limit_s)
        self._down: set[str] = set()
        self._has_warned = inventories is not None

    @property
    def inventories(self) -> Mapping[str, Inventory]:
        """What every site has, by path."""
        return self._survey.inventories

    def initial(self) -> tuple[Layout, Handle]:
        """Let a worker build the model; return its layout and its values as the run's seed makes them."""
        self.crew.build()
        self._run_until(lambda: bool(self._built))
        return self._built.pop()

    def merged(self, model: Handle, *own: Handle) -> tuple[Layout, Handle]:
        """Let a worker write a model's adapters into its base, or those of a site's own (rule, what it keeps); return
        the whole model's layout and its values.
        """
        self.crew.build("merged", model, *own)
        self._run_until(lambda: bool(self._built))
        return self._built.pop()

    def describe(self) -> Mapping[str, Inventory]:
        """Let every site count its samples. Errors: DataError naming the sites that could not be loaded.

        Where a hub goes on without failing sites (`on_failure: continue`), such a site counts as empty, by name.
        """
        self._survey.describe()
        self._run_until(self._survey.is_described)
        self._survey.complain()
        return self.inventories

    def moments(self) -> Moments:
        """Add up the features' moments of all sites, hub by hub; exact in any order."""
        return self._survey.moments()

    def compare(self) -> None:
        """Warn of sites, new here, whose features are not what the others call so."""
        self._survey.compare()

    def set_up(
        self,
        layout: Layout,
        num_samples: Mapping[str, int],
        steps: Mapping[str, int],
        remembered: Remembered,
        top: str = "",
    ) -> None:
        """Make the hubs, or those at and below `top`.

        `num_samples`: training samples by path, hubs rolled up; `steps`: optimizer steps by site.
        """
        self._steps, self._scribe.goes_up = dict(steps), bool(top)
        self._relay.states = dict(remembered.states)
        self.crew.keeper.restore(remembered.sites)
        for path in self._tree.hubs:
            if not top or is_within(path, top):
                self._relay.make(path, layout, num_samples, self._survey.absent(path), remembered.hubs.get(path))
        self._relay.exchanges.restore(self._tree.root.name, remembered.members)
        self._relay.exchanges.recall(remembered.distances)
        self._run_until(lambda: self._relay.exchanges.on_disk)
        if not self._has_warned:
            self._has_warned = True
            self._warn_of_shared_machines()

    def _warn_of_shared_machines(self) -> None:
        """Say which replicas of a hub end with the same machine."""
        for machine, hubs in crowded(self._relay.hubs.machines()).items():
            of = f"{hubs[0]} and {plural(len(hubs) - 1, 'other hub')}" if hubs[1:] else hubs[0]
            where = "this process" if self.driver.kind == "local" else f"machine {machine}"
            said = f"replicas of {of} share {where}: its end takes them all"
            self._scribe.notice("info" if self.driver.kind == "local" else "warning", self._tree.root.name, said)

    def round(self, number: int, model: Handle) -> Handle:
        """Run one round of the root, counted from 0; return its model. Errors: RoundFailed, SiteFailed."""
        self._scribe.shown = number + 1
        self._relay.begin(number, model, self._steps)
        self._run_until(lambda: self._relay.published is not None)
        return self._relay.published

    def save(self, run_dir: Path, content: Checkpoint, model: Handle, kept: Remembered, keep: int) -> Path:
        """Write a checkpoint, `content` without vectors; without a centre at the root its members do, and nobody else
        can lead the run. Errors: OutputError.
        """
        root, exchanges = self._tree.root.name, self._relay.exchanges
        if not exchanges.serves(root):
            whole = replace(content, model=self.driver.get(model), **kept.fetched(self.driver))
            fence = carry = None
            if self._recorder is not None:
                fence, carry = self._recorder.check, partial(self._recorder.carry, content.rounds_done)
            saved = checkpoint.save(run_dir, whole, keep, fence=fence, carry=carry)
            if self._recorder is not None:
                self._complain(self._recorder)
            return saved
        found = exchanges.commit(root, run_dir.resolve(), content, model, keep, kept)
        self._run_until(lambda: exchanges.on_disk)
        return run_dir / Path(found[0].value).relative_to(run_dir.resolve())

    def write_model(self, path: Path, layout: Layout, model: Handle) -> None:
        """Write the final model; without a centre at the root where it lies. Errors: OutputError."""
        root, exchanges = self._tree.root.name, self._relay.exchanges
        if not exchanges.serves(root):
            checkpoint.save_model(path, layout, self.driver.get(model))
            return
        exchanges.write_model(root, path.resolve(), layout, model)
        self._run_until(lambda: exchanges.on_disk)

    def branch(self, path: str, order: Order, model: Handle) -> tuple[Update, Handle]:
        """Do what a member was asked by its hub, which is served elsewhere; give its update.

        Errors: RoundFailed, SiteFailed; the branch can be asked again.
        """
        self._scribe.shown = order.round_number + 1
        self._relay.begin_branch(path, order, model, self._steps)
        try:
            self._run_until(lambda: self._relay.published is not None)
        except HierflError:
            self._relay.stop_branch()
            raise
        assert self._relay.handed is not None
        return self._relay.handed, self._relay.published

    def tally(self, round_number: int, model: Handle, *, tunes: bool = False) -> Tally:
        """Measure a model at every site, or what each makes of it for itself; give what was counted in all.

        Errors: SiteFailed.
        """
        self._scribe.shown = round_number
        if tunes:
            self._survey.fine_tune(round_number, model)
        else:
            self._survey.evaluate(round_number, model, None)
        self._run_until(lambda: not self._survey.busy)
        return self._survey.total(tuned=tunes)

    def evaluate(self, round_number: int, model: Handle) -> Mapping[str, Scalars]:
        """Measure a model at every site and roll the figures up per hub; by path, without what is made of scores where
        none are told.

        Errors: SiteFailed.
        """
        measured, apart = self._measured(round_number, model, None), self._relay.exchanges.distances()
        return {
            path: {**found, "consensus_distance": apart[path]} if path in apart else found
            for path, found in measured.items()
        }

    def fine_tune(self, round_number: int, model: Handle, measured: Mapping[str, Scalars]) -> Mapping[str, Scalars]:
        """Let sites make a model their own, where that is wanted; put how it does beside what was measured, by path.

        What comes out stays with the sites. Errors: SiteFailed.
        """
        if self._fine_tune is None:
            return measured
        self._scribe.shown = round_number
        self._survey.fine_tune(round_number, model)
        self._run_until(lambda: not self._survey.busy)
        found = self._without_scores(self._survey.tuned())
        return {path: {**scalars, **found.get(path, {})} for path, scalars in measured.items()}

    def say(self, node: str, message: str) -> None:
        """Warn of something at a node."""
        self._scribe.notice("warning", node, message)

    def measure(self, round_number: int, model: Handle) -> Mapping[str, Scalars]:
        """Measure a model at every site as it is, whatever sites keep; as `evaluate`. Errors: SiteFailed."""
        return self._measured(round_number, model, {})

    def cross_site(self, round_number: int, model: Handle) -> Mapping[str, Mapping[str, Scalars]]:
        """Measure every model at every site: the federation's, under the root's name, and those that sites keep.

        Where each site trains alone there is no federation's.

        By whose the model is, then as `evaluate`. What sites keep stays as it was. Errors: SiteFailed.
        """
        kept = self.crew.keeper.kept()
        found = {} if self._alone else {self._tree.root.name: self.measure(round_number, model)}
        for owner in self._tree.sites:
            rule = self._survey.personal(owner)
            if owner not in kept or (rule is None and self._fine_tune is None):
                continue
            own = self.driver.get(kept[owner])[owner]
            rule = used(rule, own)
            if rule is None:
                continue
            lent = self.driver.put(dict.fromkeys(self._tree.sites, own))
            self.crew.keeper.restore(dict.fromkeys(self._tree.sites, lent))
            found[owner] = self._measured(round_number, model, dict.fromkeys(self._tree.hubs, rule))
        self.crew.keeper.restore(kept)
        return found

    def _measured(
        self, round_number: int, model: Handle, rules: Mapping[str, LocalRule] | None
    ) -> Mapping[str, Scalars]:
        """Measure once, under the strategies' rules or others."""
        self._scribe.shown = round_number
        self._survey.evaluate(round_number, model, rules)
        self._run_until(lambda: not self._survey.busy)
        return self._without_scores(self._survey.rolled_up())

    def _without_scores(self, measured: Mapping[str, Scalars]) -> Mapping[str, Scalars]:
        """Leave out what is made of scores where none are told."""
        if self._auc != "none":
            return measured
        without = ({n: value for n, value in found.items() if n not in _OF_SCORES} for found in measured.values())
        return dict(zip(measured, without, strict=True))

    def remember(self, rounds_done: int) -> Remembered:
        """Give what the hubs need for their next rounds, as it is after so many rounds of the root."""
        hubs = self._relay.hubs
        self._run_until(hubs.settled)
        if self._recorder is not None:
            self._recorder.mark(rounds_done, hubs.kept(), hubs.under_way())
            self._complain(self._recorder)
        exchanges = self._relay.exchanges
        own, distances = exchanges.models(self._tree.root.name), exchanges.distances()
        return Remembered(dict(self._relay.states), hubs.kept(), self.crew.keeper.kept(), own, distances)

    def _complain(self, recorder: Recorder) -> None:
        """Tell what the journal or a checkpoint could not keep."""
        for said in recorder.complaints():
            self._scribe.notice("warning", "", said)

    def end(self, why: str = "the run ends", *, stops: bool = False) -> None:
        """Drop what is still under way after the last round of this tree, and say so; `stops`: hubs' rounds, too."""
        self._relay.end(why, stops=stops)

    def _run_until(self, over: Callable[[], bool]) -> None:
        """Feed the workers and route what comes back."""
        self._pump()
        while not over():
            if self._recorder is not None:
                self._recorder.heed()
            for result in self.crew.overdue():
                self._take(result)
            for done in self.driver.wait(min(WAIT_S, self._relay.left_s())):
                if self.crew.owns(done.ticket):
                    for result in self.crew.handle(done):
                        self._take(result)
                elif self._relay.hubs.owns(done.ticket):
                    for said in self._relay.hubs.handle(done):
                        self._relay.hear(said)
                elif self._relay.exchanges.owns(done.ticket):
                    for place in self._relay.exchanges.handle(done):
                        self._relay.lost_place(place)
            self._relay.ring()
            self._pump()
            self._look_around()

    def _pump(self) -> None:
        """Feed the workers."""
        for result in self.crew.pump():
            self._take(result)

    def _look_around(self) -> None:
        """From time to time, have on disk what was told, take in devices that have come, name the sites that wait for
        one that is not there, and give those up that no device will ever take, or that have waited too long.
        """
        now = time.monotonic()
        if now - self._looked_s < LOOK_S:
            return
        self._looked_s = now
        if self._recorder is not None:
            self._recorder.check()  # one that has hung does not write between the lines of its successor
        self._flush()
        self.crew.add(self.driver.grow())
        refused = self.crew.refusals()
        for said in self._patience.look(refused, now, self._scribe.shown):
            self._scribe.notice("warning", self._tree.root.name, said)
        for result in self.crew.give_up({**self._patience.spent(refused, now), **self.crew.hopeless()}):
            self._take(result)

    def _take(self, result: results.Result) -> None:
        """Route what the crew says. Errors: SiteFailed."""
        match result:
            case results.Built():
                self._built.append((result.layout, result.model))
            case results.Trained():
                self._trained(result)
            case results.HandedUp():
                self._relay.handed_up(result)
            case results.Measured():
                self._survey.measured(result)
            case results.Described():
                self._survey.described(result)
            case results.SitesLost():
                (self._relay if result.group.kind == "train" else self._survey).lost(result)
            case results.WorkerLost():
                self._scribe.notice("warning", result.worker, result.said)
                self._down.add(result.worker)
            case results.WorkerJoined():
                if result.worker in self._down:
                    self._down.discard(result.worker)
                    self._scribe.notice("info", result.worker, "is back")
            case results.Assigned():
                self._scribe.emit(
                    records.Assigned(
                        *(self._scribe.now(), result.worker, result.device, result.group.kind, result.group.hub),
                        *(result.sites, self._scribe.shown, result.reason, result.memory_bytes),
                    )
                )
            case results.Said():
                self._scribe.notice(result.level, result.node, result.message)
            case results.Busy():
                self._scribe.phase(result.worker, result.phase, result.start_s, result.end_s, result.sites)

    def _trained(self, result: results.Trained) -> None:
        """Record trained sites, and what was read of the worker's GPU."""
        self._survey.check_counted(result.reports)
        for report in result.reports:
            if report.gpu is not None:
                self._scribe.gpu(self.crew.devices[result.worker].name, result.worker, report.gpu)
            self._scribe.trained(report, result.group.round_number + 1, result.worker)
