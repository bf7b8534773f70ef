"""A worker: one process (or thread) on one device that trains and measures whatever sites it is given.

Sites are work, not processes. A worker adds up the sites of one hub that it trains, and hands up one partial sum when
it is asked to: the sum is exact, so nothing depends on which worker trained whom.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from hierfl.config.schema import Training
from hierfl.errors import ConfigError
from hierfl.held import held_attack
from hierfl.learning import measuring, quantise, schedules, standardise, training
from hierfl.learning.compression import RESIDUAL
from hierfl.learning.contract import checked_model
from hierfl.learning.fine_tune import FINE_TUNED, fine_tuned
from hierfl.learning.flat import FlatModel
from hierfl.learning.local import LocalRule, State, Vector, unmatched
from hierfl.learning.metrics import Tally
from hierfl.learning.passes import Followed, follow
from hierfl.learning.seeds import derive
from hierfl.learning.state import Layout, ModelState
from hierfl.runtime import devices
from hierfl.runtime.adversary import Adversary
from hierfl.runtime.baton import Interrupted
from hierfl.runtime.chance import Chance
from hierfl.runtime.gpus import Sampler, library, sampler
from hierfl.runtime.guarded import guarded, measured
from hierfl.runtime.hub import grid_of
from hierfl.runtime.jobs import Evaluated, GpuUse, Inventory, SiteReport, TrainJob, WorkerSpec
from hierfl.runtime.loading import Loader, Scale
from hierfl.runtime.secrecy import check_mechanisms, private_passes
from hierfl.runtime.sums import Part, Sums
from tiers.messages import Share, Update

__all__ = ["SiteWorker"]

T = TypeVar("T")

KEPT = 1 / 16
"""Of the device's memory, what a worker keeps from one job to the next: other processes may be at work there."""


class SiteWorker:
    """Trains, measures and describes sites; holds one model and the data of recent sites."""

    def __init__(self, spec: WorkerSpec, chance: Chance | None = None) -> None:
        self.spec = spec
        self.device = torch.device(devices.chosen(spec.device))
        torch.set_num_threads(spec.threads)
        if self.device.type == "cuda":
            devices.deterministic_cuda()
        self._chance = chance or Chance()
        self._adversary = Adversary(spec.sites)
        self._model: FlatModel | None = None
        self._layout: Layout | None = None
        self._loader = Loader(spec.task, spec.sites, spec.seed)
        self._is_warm = False
        self._has_looked = False
        self._sampler: Sampler | None = None
        self._sums = Sums()

    def initial(self) -> tuple[Layout, ModelState]:
        """Build the model as the run's seed makes it; return its layout and its values."""
        model = self._bound()
        return model.layout, model.start()

    def merged(
        self, model: ModelState, rule: LocalRule | None = None, own: State | None = None
    ) -> tuple[Layout, ModelState]:
        """Write a model's adapters into its base, or those of what a site makes of it by a rule and what it keeps;
        return the whole model's layout and its values.
        """
        from hierfl.learning.lora import merge

        bound = self._bound()
        floats = model.floats if rule is None else rule.personal(model.floats, own or {}, bound.parts)
        bound.load(ModelState(floats, model.ints))
        seed = derive(self.spec.seed, "model")
        whole = FlatModel(
            self._chance.run(seed, lambda: checked_model(self.spec.task, is_base=True), checked=False), str(self.device)
        )
        merge(bound.module, whole.module)
        return whole.layout, whole.start()

    def prepare(self, layout: Layout | None, scale: Scale | None) -> str | None:
        """Fix the federation's layout and the features' mean and deviation; say what does not fit, if anything.

        The first time the process warms up too: nobody's work is to be measured by that, or called hung for it.
        """
        if not self._is_warm:
            training.warm_up(self.device)
            quantise.prepare()
            self._is_warm = True
        self._loader.rescale(scale)
        self._layout = layout
        if layout is None:
            return None
        other = layout.difference(self._bound().layout)
        if not other:
            self._check_rules()
            return None
        return f"it builds another model than the federation's: {other}"

    def _check_rules(self) -> None:
        """Hold the strategies' local rules and privacy mechanisms against the model. Errors: ConfigError."""
        check_mechanisms(self.spec, self._bound().module)
        for hub, rule in self.spec.rules.items():
            said = rule.misfit(self._bound().parts)
            if said:
                raise ConfigError(f"the strategy of {hub}: {said}")
        tuned = self.spec.evaluation.fine_tune
        said = unmatched(tuned.tensors, self._bound().layout) if tuned is not None else ""
        if said:
            raise ConfigError(f"evaluation.fine_tune.tensors: {said}")

    def describe(self, sites: Sequence[str]) -> tuple[Inventory, ...]:
        """Load sites and count what they have; a site that cannot be loaded says why."""
        return tuple(self._describe(site) for site in sites)

    def train(self, job: TrainJob, start: ModelState) -> tuple[SiteReport, ...]:
        """Train sites from one model and add their updates to this worker's sum of the hub's round."""
        return self._train_all(job, start, {})

    def train_keeping(
        self, job: TrainJob, start: ModelState, places: Mapping[str, int], *kept: Mapping[str, State]
    ) -> tuple[tuple[SiteReport, ...], Mapping[str, State]]:
        """Do the same where sites keep something: `places` says in which of `kept` each finds its own."""
        own = {site: kept[place][site] for site, place in places.items()}
        return self._train_all(job, start, own), own

    def _train_all(self, job: TrainJob, start: ModelState, kept: dict[str, State]) -> tuple[SiteReport, ...]:
        """Train sites; put what they keep now in the place of what they kept."""
        assert self._layout is not None
        wire = self._layout.with_channels(job.objective.channels(self._layout.num_floats))
        self._sums.open(job.hub, job.round_number, grid_of(job.opening), wire)
        reports = [self._train(job, site, weight, start, kept) for site, weight in job.sites]
        self._chance.check(failed=any(report.error is not None for report in reports))
        if self.device.type == "cuda" and reports:
            reports[-1] = replace(reports[-1], gpu=self._gpu_use())
        return tuple(reports)

    def collect(self, hub: str, round_number: int) -> tuple[Update | None, Part | None]:
        """Hand over this worker's sum of a hub's round, or its one site's compressed change; None if there is none."""
        return self._sums.collect(hub, round_number)

    def evaluate(
        self,
        hub: str,
        sites: Sequence[str],
        model: ModelState,
        round_number: int,
        rule: LocalRule | None = None,
        places: Mapping[str, int] | None = None,
        *kept: Mapping[str, State],
    ) -> Evaluated:
        """Measure the model of a round on the test data of sites of one hub; under a rule, each site its own."""
        bound = self._bound()
        bound.load(model)
        mark = bound.mark()

        def measure(site: str) -> Tally:
            if rule is not None and places is not None:
                own = kept[places[site]][site] if site in places else {}
                bound.load(ModelState(rule.personal(model.floats, own, bound.parts), model.ints))
            elif bound.mark() != mark:
                bound.load(model)  # its buffers follow what is measured, too
            return self._measure(bound, site, owners=self._owners(site))

        return measured(hub, sites, measure, with_curves=self.spec.evaluation.needs_curves)

    def fine_tune(
        self,
        hub: str,
        sites: Sequence[str],
        model: ModelState,
        round_number: int,
        rule: LocalRule | None,
        places: Mapping[str, int],
        *kept: Mapping[str, State],
    ) -> tuple[Evaluated, Mapping[str, State]]:
        """Let sites make a model their own, each from what it would use, and measure that; give what they keep now."""
        wanted = self.spec.evaluation.fine_tune
        assert wanted is not None
        tuned: dict[str, State] = {}

        def measure(site: str) -> Tally:
            own = dict(kept[places[site]][site]) if site in places else {}
            settings = self.spec.sites[site].training
            seed = derive(self.spec.seed, "fine_tune", round_number, site.rpartition("/")[2])

            def make() -> Vector:
                bound = self._bound()
                start = model if rule is None else ModelState(rule.personal(model.floats, own, bound.parts), model.ints)
                return fine_tuned(
                    *(wanted, bound, start, self.spec.task, self._loader.get(site).train, settings),
                    lambda work: self._chance.run(seed, lambda: work(seed)),
                )

            try:
                made = self._undisturbed(make)
                tally = self._measure(self._bound(), site)
            except BaseException:
                self._model = None  # it may have left a trace there
                raise
            tuned[site] = {**own, FINE_TUNED: made}
            return tally

        return measured(hub, sites, measure), tuned

    def _measure(self, bound: FlatModel, site: str, owners: NDArray[np.int64] | None = None) -> Tally:
        """Measure one site; `owners`: whose its test samples are, where figures have intervals by these."""
        bound.begin_anew()
        what = self.spec.task, self._loader.get(site).test, self.spec.evaluation, self.device
        return measuring.measure(bound.module, *what, self.spec.sites[site].training.loader_workers, owners)

    def _owners(self, site: str) -> NDArray[np.int64] | None:
        """Say whose a site's test samples are, where that is known and figures have intervals."""
        return None if self.spec.evaluation.intervals is None else self._loader.test_owners(site)

    def _describe(self, site: str) -> Inventory:
        """Count one site's samples, and its features' moments where the task asks for them."""
        started = time.perf_counter()

        def count() -> Inventory:
            data = self._loader.get(site)
            moments, trains = None, self.spec.statistics is None or not self.spec.statistics.only
            if trains and standardise.is_federated(self.spec.task):
                moments = standardise.Moments.of(standardise.feature_matrix(self._loader.own(site)), wide=True)
            counts = len(data.train), len(data.test)  # type: ignore[arg-type]
            settings, is_measured = self.spec.sites[site], trains and self.spec.evaluation.every > 0
            if is_measured and (settings.counts or settings.is_held_out):
                self._owners(site)  # before anything is trained: what the task says of them may be no answer
            return Inventory(
                *(site, *counts, moments),
                load_s=self._loader.load_s,
                is_kept=site in self._loader,
                duration_s=time.perf_counter() - started,
                on_cpu=self.device.type == "cpu",
                num_patients=self._loader.num_patients(site),
            )

        self._loader.load_s = 0.0
        outcome = guarded(count)
        found = Inventory(site, 0, 0, None, outcome) if isinstance(outcome, str) else outcome
        wanted = self.spec.statistics
        if wanted is None or self.spec.sites[site].pools:  # the sites in a pool tell of theirs by themselves
            return found
        told = guarded(lambda: self._loader.statistics(site, wanted, has_data=found.error is None))
        if isinstance(told, str):
            return replace(found, error=found.error or told)
        return replace(found, statistics=told)

    def _train(self, job: TrainJob, site: str, weight: int, start: ModelState, kept: dict[str, State]) -> SiteReport:
        """Train one site; whatever goes wrong there is told, not raised, and leaves the sum as it was."""
        started_s, started = time.time(), time.perf_counter()

        def run() -> tuple[int, int | None, training.LocalResult]:
            data = self._loader.get(site).train
            settings, own = self.spec.sites[site], dict(kept.get(site, {}))
            self.spec.points.reached(site, "training", job.round_number)
            residual, _ = own.pop(RESIDUAL, None), own.pop(FINE_TUNED, None)
            followed = self._follow(job, site, data, start, own)
            if settings.attack is not None:

                def repeat(other: str) -> Followed:
                    return self._follow(job, other, self._loader.get(other).train, start, {})

                followed = self._adversary.attacked(job, site, start, followed, repeat)
            self.spec.points.reached(site, "trained", job.round_number)
            name = site.rpartition("/")[2]
            share = Share(name, weight)
            if settings.compression is None:
                self._sums.add(job.hub, job.round_number, share, followed)
                kept[site] = followed.kept
            else:
                seed = derive(self.spec.seed, "compress", job.round_number, name)
                left_out = self._sums.compress(
                    *(job.hub, job.round_number, share, followed, settings.compression, residual, seed)
                )
                kept[site] = {**followed.kept, **({} if left_out is None else {RESIDUAL: left_out})}
            return len(data), self._loader.num_patients(site), followed.result  # type: ignore[arg-type]

        self._watch_memory()
        self._loader.load_s = 0.0
        self._chance.waited_s()
        short_of_memory: list[BaseException] = []
        outcome = guarded(run, short_of_memory)
        waited_s = self._chance.waited_s()
        started_s, duration_s = started_s + waited_s, time.perf_counter() - started - waited_s
        if isinstance(outcome, str):
            self._model = None
            if short_of_memory:
                self._release()
            failed = 0, 0, None, outcome, 0, bool(short_of_memory)
            return SiteReport(site, duration_s, *failed, load_s=self._loader.load_s, started_s=started_s)
        num_samples, num_patients, result = outcome
        settings, peak_bytes = self._training(job, site), self._peak_bytes()
        if peak_bytes > KEPT * self._device_bytes():
            self._release()
        return SiteReport(
            *(site, duration_s, num_samples, result.num_steps, result.loss),
            peak_bytes=peak_bytes,
            load_s=self._loader.load_s,
            is_kept=site in self._loader,
            started_s=started_s,
            lr=settings.lr if settings.lr_schedule is not None else None,
            num_patients=num_patients,
        )

    def _follow(self, job: TrainJob, site: str, data: Dataset[Any], start: ModelState, own: State) -> Followed:
        """Let one site train for a job, from what it was sent and kept. Errors: whatever the user's code raises."""
        settings = self.spec.sites[site]
        if settings.attack is not None:
            data = held_attack(settings.attack).poison(data)
        where = job.round_number, site.rpartition("/")[2]

        def run_pass(name: str, work: Callable[[int], training.LocalResult]) -> training.LocalResult:
            seed = derive(self.spec.seed, "train", *where, *([name] if name else []))
            try:
                return self._chance.run(seed, lambda: work(seed))
            except Exception:
                self._bound().check()  # a tensor of another shape is what torch complains of somewhere else
                raise

        def once() -> Followed:
            what = self._bound(), start, own, self.spec.task, data, self._training(job, site), run_pass
            private = private_passes(self.spec, site, job.round_number)
            return follow(job.objective, *what, private, job.settling(site), self._loader.num_patients(site))

        return self._undisturbed(once)

    def _training(self, job: TrainJob, site: str) -> Training:
        """Give a site's training, with the learning rate of the root's round in which the job is."""
        return schedules.in_round(self.spec.sites[site].training, job.round_number // self.spec.rounds.get(job.hub, 1))

    def _undisturbed(self, work: Callable[[], T]) -> T:
        """Do something from its beginning until it was not interrupted on the way, with a model as it was built."""
        while True:
            try:
                return work()
            except Interrupted:
                self._model = None

    def _watch_memory(self) -> None:
        """Begin to measure the device's memory."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def _peak_bytes(self) -> int:
        """Give the most that this process held on its device; 0 on a CPU."""
        return int(torch.cuda.max_memory_reserved(self.device)) if self.device.type == "cuda" else 0

    def _device_bytes(self) -> int:
        """Give the memory that the device has; 0 on a CPU."""
        return torch.cuda.get_device_properties(self.device).total_memory if self.device.type == "cuda" else 0

    def _gpu_use(self) -> GpuUse | None:
        """Give what was read of the GPU since the last time; reading begins with the first."""
        if not self._has_looked:
            self._has_looked = True
            self._sampler = sampler(library(), f"GPU-{torch.cuda.get_device_properties(self.device).uuid}")
        return self._sampler.take() if self._sampler is not None else None

    def _release(self) -> None:
        """Give the device back what torch keeps of a job's memory."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _bound(self) -> FlatModel:
        """Give the model, built anew if a failure may have left a trace in it."""
        if self._model is None:
            seed = derive(self.spec.seed, "model")
            module, base = self._chance.run(seed, self._built, checked=False)
            self._model = FlatModel(module, str(self.device))
            self._model.layout = replace(self._model.layout, base=base)
        return self._model

    def _built(self) -> tuple[torch.nn.Module, str]:
        """Build the model, with its adapters where they are wanted, and give the digest of its base."""
        module = checked_model(self.spec.task, is_base=self.spec.lora is not None)
        if self.spec.lora is None:
            return module, ""
        from hierfl.learning.lora import adapt

        return module, adapt(module, self.spec.lora)
