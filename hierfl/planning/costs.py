"""What a site's training takes before it has run: its optimizer steps, and seconds that were measured or are guessed.

Measured seconds come from a file of estimates or from the log of an earlier run, by the model that a run itself learns
(`scheduler.durations`): sites that were seen have their own pace, others the line of all. A guess is proportional to
the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hierfl.config.schema import RunConfig, SiteSettings
from hierfl.errors import ConfigError, HierflError, OutputError, Problem
from hierfl.learning.patients import PATIENT, unit_of
from hierfl.learning.task import CountsSamples, counted, offers
from hierfl.planning.log import Log
from hierfl.planning.shape import Pauses, SiteWork
from hierfl.runtime.estimates import Estimates
from scheduler.durations import Durations

__all__ = ["SECONDS_PER_STEP", "Knowledge", "from_estimates", "from_log", "site_works"]

SECONDS_PER_STEP = 0.01

BY_PATIENT = "its epochs go over patients (privacy: {unit: patient}), who are counted as its data are loaded"


@dataclass(frozen=True)
class Knowledge:
    """What is known beforehand; nothing at all gives durations of `seconds_per_step`.

    `source` in words; `model` names the work in `estimates`; `units` by site that was seen, in steps; `num_samples` by
    path, hubs rolled up; `pauses` as usual in the run that was seen.
    """

    source: str = ""
    seconds_per_step: float = SECONDS_PER_STEP
    estimates: Estimates | None = None
    units: Mapping[str, float] = field(default_factory=dict)
    num_samples: Mapping[str, int] = field(default_factory=dict)
    pauses: Pauses = field(default_factory=Pauses)

    @property
    def is_guess(self) -> bool:
        """Whether no duration was measured."""
        return self.estimates is None

    def seconds(self, site: str, steps: int, kind: str) -> float:
        """Predict a site's seconds for so many steps on a kind of device; a part takes after its whole."""
        if self.estimates is None:
            return steps * self.seconds_per_step
        name = site if site in self.units else site.rpartition("/")[0]
        name = name if name in self.units else site
        found = self.estimates.predict("train", name, steps, kind)
        assert found is not None, f"estimates without a model for {site}"
        return found

    def words(self, sites: Mapping[str, SiteWork]) -> str:
        """Say where the durations come from, and which of them are guessed."""
        if self.is_guess:
            return (
                f"durations are guessed: {self.seconds_per_step:g} s per step;"
                " --run RUN_DIR or --estimates FILE takes measured ones, --seconds-per-step S another guess"
            )
        unseen = [site for site in sites if site not in self.units and site.rpartition("/")[0] not in self.units]
        said = f"durations as measured by {self.source}"
        return f"{said}; {len(unseen)} of {len(sites)} sites were not seen, by their steps" if unseen else said


def from_estimates(path: Path, model: str, named: str = "runtime.estimates:") -> Knowledge:
    """Take what a run has kept in `runtime.estimates`; `named`: what named the file.

    Errors: ConfigError if there is nothing of this task in it.
    """
    if not path.is_file():
        raise ConfigError(
            f"{named} there is no file {path}; a run with runtime.estimates={path} writes it, or give --run RUN_DIR"
        )
    found = Estimates.open(model, path, named=named)
    units = _units(found.durations, model)
    if not units:
        raise ConfigError(
            f"{named} {path} knows nothing of training {model!r}; give the file of a run of this task, or --run"
            " RUN_DIR, or --seconds-per-step S"
        )
    return Knowledge(f"earlier runs ({path})", estimates=found, units=units)


def from_log(log: Log) -> Knowledge:
    """Take the durations, samples and pauses of an earlier run. Errors: OutputError if it has trained nothing."""
    if not log.trained:
        raise OutputError(f"{log.run_dir} has no trained site in its events.jsonl; name a run that has done a round")
    found = Estimates("")
    for done in log.trained:
        if done.steps:
            found.durations.observe("train", done.site, done.steps, done.seconds, log.kinds.get(done.worker, ""))
    return Knowledge(
        f"the run {log.run_dir}",
        estimates=found,
        units=_units(found.durations, ""),
        num_samples=log.num_samples,
        pauses=log.usual_pauses,
    )


def site_works(config: RunConfig, known: Knowledge, kind: str) -> dict[str, SiteWork]:
    """Say what every site with something to train on takes in a round, on a device of this kind.

    Errors: ConfigError naming the sites whose samples are not known.
    """
    works: dict[str, SiteWork] = {}
    problems: dict[str, str] = {}
    counts = offers(config.task, CountsSamples)
    for path, settings in config.sites.items():
        if not settings.trains:
            continue
        found = _samples(config, path, settings, known, counts, problems)
        steps = settings.training.num_steps(found or 0)
        is_by_patient = unit_of(settings.privacy) == PATIENT and settings.training.local_steps is None
        if found is None or (found and is_by_patient):
            if settings.training.local_steps is None and path not in known.units:
                problems.setdefault(path, BY_PATIENT if is_by_patient else "")
                continue
            problems.pop(path, None)
            steps = settings.training.local_steps or round(known.units[path])
        if steps > 0:
            seconds = max(1e-9, known.seconds(path, steps, kind))
            works[path] = SiteWork(seconds, steps, found or 1, settings.labels, _memory(known, settings, kind))
    if problems:
        first, why = next(iter(problems.items()))
        more = f" (and {len(problems) - 1} more sites)" if len(problems) > 1 else ""
        because = why or f"the task {config.task_kind!r} does not count samples without loading them"
        ways = "give --run RUN_DIR of an earlier run of this tree, "
        if why == BY_PATIENT:
            ways += "or set training.local_steps"
        else:
            ways += "set training.local_steps, or give the task a method num_samples (docs/tasks.md)"
        raise ConfigError([Problem("", f"the steps of {first}{more} are not known: {because}; {ways}")])
    if not works:
        raise ConfigError("no site has anything to train on: there is nothing to plan")
    return works


def _samples(
    config: RunConfig,
    path: str,
    settings: SiteSettings,
    known: Knowledge,
    counts: bool,
    problems: dict[str, str],
) -> int | None:
    """Count a site's training samples; None if nobody knows them."""
    if counts:
        assert offers(config.task, CountsSamples)
        try:
            return counted(config.task, settings)[0]
        except HierflError as error:
            problems[path] = str(error)
    if path in known.num_samples:
        problems.pop(path, None)
        return known.num_samples[path]
    whole = known.num_samples.get(path.rpartition("/")[0]) if settings.part is not None else None
    if whole is None or settings.part is None:
        return None
    problems.pop(path, None)
    return len(range(settings.part[0], whole, settings.part[1]))


def _memory(known: Knowledge, settings: SiteSettings, kind: str) -> int:
    """Give the peak of memory that a site's training is known to have; 0 if it was never measured."""
    batch_size = settings.training.batch_size
    return known.estimates.need_bytes(batch_size, kind) if known.estimates is not None and batch_size else 0


def _units(durations: Durations, model: str) -> dict[str, float]:
    """List the sites of which a duration was seen, each with its usual steps."""
    return {
        site: units
        for work in durations.state()["works"]
        if (work["kind"], work["model"]) == ("train", model)
        for _, pace in work["devices"]
        for site, _, units, *_ in pace["sites"]
    }
