"""What is asked of every site beside training: to count its samples, and to measure a model; rolled up per hub."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from hierfl.config.schema import RunConfig, SiteSettings
from hierfl.errors import DataError
from hierfl.kinds import nearest
from hierfl.learning.clusters import Clusters
from hierfl.learning.fine_tune import told
from hierfl.learning.intervals import INTERVALS, NUM_PATIENTS, intervals
from hierfl.learning.local import LocalRule
from hierfl.learning.metrics import Curve, Tally
from hierfl.learning.operating import THRESHOLD, at_thresholds, threshold_of
from hierfl.learning.own_metrics import CLASSES, MAX_OWN, figure_of, own_among
from hierfl.learning.patients import knows_patients
from hierfl.learning.standardise import Moments
from hierfl.learning.unlike import asked, unlike, unlike_columns
from hierfl.monitor.records import Scalars
from hierfl.monitor.words import few, plural
from hierfl.runtime.counted import Counted
from hierfl.runtime.crew import Crew
from hierfl.runtime.driver import Handle
from hierfl.runtime.jobs import Inventory, SiteReport
from hierfl.runtime.openwork import OpenWork
from hierfl.runtime.results import Described, Group, Measured, SitesLost
from hierfl.runtime.scribe import Scribe, first_line
from tiers.federation import Federation, parent

__all__ = ["Survey", "as_told", "own_sites", "patients_of", "samples_of"]


_HELD_OUT = "evaluate beside"

TOLD_AFTER_S = 10.0
"""What is waited for no longer needs no word; then it is said whom one waits for, ever less often."""


class Survey:
    """Asks, and adds up the answers; `busy` while any are to come."""

    def __init__(
        self, config: RunConfig, crew: Crew, scribe: Scribe, inventories: Mapping[str, Inventory] | None = None
    ) -> None:
        known = inventories or {}
        self.inventories = {path: known[path] for path in config.federation.sites if path in known}
        self._known = {*self.inventories}
        self._tree = config.federation
        self._sites = config.sites
        self._task = config.task
        self._folder = config.folder
        rules = {path: hub.strategy.objective() for path, hub in config.hubs.items()}
        self._rules = {path: rule for path, rule in rules.items() if rule.keeps}
        self._scribe = scribe
        self._work = OpenWork(crew)
        self._tallies, self._beside, self._tuned = Counted(), Counted(), Counted()
        self._personal: dict[str, Scalars] = {}
        self._tuning = config.evaluation.fine_tune
        self._scalars: dict[str, Scalars] = {}
        self._curves: dict[str, Mapping[str, Curve]] = {}
        self._clusters: dict[str, Clusters] = {}
        self._evaluation = config.evaluation
        self._looks = config.evaluation.needs_curves
        self._named = config.better
        self._goes_on = config.only_tells
        self._warned: set[str] = set()
        self._began_s = self._told_s = 0.0

    @property
    def busy(self) -> bool:
        """Whether answers are still to come."""
        return bool(self._work)

    def describe(self) -> None:
        """Ask every site what it has that has not told."""
        self._began_s, self._told_s = self._scribe.now(), self._scribe.now() + TOLD_AFTER_S
        for path in self._tree.hubs:
            sizes = {site: 1 for site in own_sites(self._tree, path) if site not in self.inventories}
            self._work.ask(Group(f"describe:{path}", "describe", path, 0, sizes))

    def is_described(self) -> bool:
        """Whether every site has told what it has; where that takes long, say who has not."""
        now_s = self._scribe.now()
        if self.busy and now_s >= self._told_s:
            missing = [path for path in self._tree.sites if path not in self.inventories]
            have = (
                f"{len(self._tree.sites) - len(missing):,} of {plural(len(self._tree.sites), 'site')} have told theirs"
            )
            self._scribe.notice("info", self._tree.root.name, f"waits for the data of {few(missing)}; {have}")
            self._told_s = now_s + max(TOLD_AFTER_S, now_s - self._began_s)
        return not self.busy

    def complain(self) -> None:
        """Name the sites that could not be loaded, in the tree's order, whichever worker was first to tell. Errors:
        DataError, unless their hub goes on without them, or nothing is to be trained.
        """
        told = [(path, self.inventories[path].error) for path in self._sites if path in self.inventories]
        bad = {path: error + _beside(self._folder, self._sites[path]) for path, error in told if error is not None}
        for path in [path for path in bad if self._goes_on or self._tree.hubs[parent(path) or ""].keep_going]:
            self._scribe.changed([path], "failed", self._scribe.shown)
            self._scribe.notice("error", path, f"could not be loaded: {bad.pop(path)}")
        if bad:
            first, *others = bad
            more = [f"\n{path}: {first_line(bad[path])}" for path in others[:2]]
            more += [f"\n(and {plural(len(others) - 2, 'more site')})"] if len(others) > 2 else []
            raise DataError(f"{first}: {bad[first]}" + "".join(more))

    def moments(self) -> Moments:
        """Add up the features' moments of the sites that say how to standardise; exact in any order."""
        return reduce(add, self._moments().values(), Moments())

    def compare(self) -> None:
        """Warn of sites whose features are not what the others call so; of those alone that were not there before.

        Where no moments are told, for nothing is trained or standardised, the columns are judged that sites tell of.
        """
        moments = self._moments()
        inputs = getattr(self._task, "inputs", None)
        found = unlike(moments, inputs) if moments else unlike_columns(self._columns())
        for path, differing in found.items():
            for warning in asked(differing) if path not in self._known else ():
                self._scribe.notice("warning", path, warning)

    def _moments(self) -> dict[str, Moments]:
        """Give the features' moments of the sites that say how to standardise and have told them."""
        return {
            path: item.moments
            for path, item in self.inventories.items()
            if item.moments is not None and self._sites[path].standardises
        }

    def _columns(self) -> dict[str, dict[str, Moments]]:
        """Give the moments of the columns that sites tell of their tables, by site; of none that keeps them back."""
        return {
            path: {name: column.moments for name, column in item.statistics.columns.items() if column.moments.count}
            for path, item in self.inventories.items()
            if item.statistics is not None
        }

    def absent(self, hub: str) -> dict[str, str]:
        """Name a hub's own sites that could not be loaded, and why."""
        errors = {site.rpartition("/")[2]: self.inventories[site].error for site in own_sites(self._tree, hub)}
        return {name: self._scribe.reason(error) for name, error in errors.items() if error is not None}

    def personal(self, site: str) -> LocalRule | None:
        """Give the rule by which a site has a model of its own; None where it has none."""
        rule = self._rules.get(parent(site) or "")
        return rule if rule is not None and rule.is_personal else None

    def evaluate(self, round_number: int, model: Handle, rules: Mapping[str, LocalRule] | None = None) -> None:
        """Ask every site to measure a model, or what it has made of it for itself where its hub's rule says so.

        `rules`: by hub, in place of the strategies' own.
        """
        self._tallies, self._beside, self._scalars, self._curves, self._clusters = Counted(), Counted(), {}, {}, {}
        for path in self._tree.hubs:
            present = [site for site in own_sites(self._tree, path) if self.inventories[site].error is None]
            rule = (self._rules if rules is None else rules).get(path)
            for name, wanted in (("evaluate", "counts"), (_HELD_OUT, "is_held_out")):
                chosen = [site for site in present if getattr(self._sites[site], wanted)]
                sizes = {site: max(1, self.inventories[site].num_test) for site in chosen}
                self._work.ask(Group(f"{name}:{path}", "evaluate", path, round_number, sizes, model=model, rule=rule))

    def fine_tune(self, round_number: int, model: Handle) -> None:
        """Ask every site that trains to make a model its own, from what it would use, and to measure that."""
        assert self._tuning is not None
        self._tuned, self._personal = Counted(), {}
        for path in self._tree.hubs:
            trained = [site for site in own_sites(self._tree, path) if self._sites[site].role == "training"]
            sizes = {site: self._tuning.steps for site in trained if self.inventories[site].num_train}
            rule, name = self._rules.get(path), f"fine tune:{path}"
            self._work.ask(Group(name, "fine_tune", path, round_number, sizes, model=model, rule=rule))

    def tuned(self) -> dict[str, Scalars]:
        """Give how the models do that sites have made their own, by path, hubs rolled up: `personal_accuracy` ...

        Errors: SiteFailed.
        """
        for path, total in self._added_up(self._tuned, self._personal).items():
            if total.num_samples:
                self._personal[path] = total.scalars()
        return {path: told(found) for path, found in self._alike(self._personal).items()}

    def rolled_up(self) -> dict[str, Scalars]:
        """Add tallies from the leaves to the root; by path. Those of held-out sites stand beside, and add up alike.

        Errors: SiteFailed.
        """
        beside, totals = self._added_up(self._beside), self._added_up(self._tallies)
        for path, total in totals.items():
            apart = beside[path].scalars() if beside[path].num_samples else {}
            self._scalars[path] = {
                **total.scalars(),
                **{f"held_out_{name}": value for name, value in apart.items() if not isinstance(value, list)},
            }
        if self._looks:
            self._look(totals)
        found = self._alike(self._scalars)
        return {path: found[path] for path in self._tree.nodes if path in found}

    def _look(self, hubs: Mapping[str, Tally]) -> None:
        """Choose the federation's thresholds, and say what they give at every node that was measured, and how sure its
        figures are.
        """
        whole, point, level = hubs[self._tree.root.name], self._evaluation.operating_point, self._evaluation.intervals
        curves = {**self._curves, **{path: total.told_apart for path, total in hubs.items()}}
        told_apart = curves[self._tree.root.name]
        clusters = {**self._clusters, **{path: total.clusters for path, total in hubs.items()}}
        thresholds: dict[str, float | None] = {}
        if point is not None:
            thresholds = {label: threshold_of(curve, point) for label, curve in told_apart.items()} or {"": None}
            if whole.curves and not told_apart:
                self._warn_of_point()
        for path, scalars in self._scalars.items():
            spread = clusters.get(path) if level is not None else None
            known = {} if spread is None else {"num_test": scalars["num_test"], NUM_PATIENTS: spread.num_patients}
            found: dict[str, Any] = {**known, **scalars, **at_thresholds(curves.get(path, {}), thresholds)}
            if path == self._tree.root.name:
                found |= {figure_of(THRESHOLD, label): at for label, at in thresholds.items()}
            if level is not None:
                what = found, curves.get(path, {}), level
                found[INTERVALS] = intervals(*what, labels=bool(whole.labels), clusters=spread)
            self._scalars[path] = found
        if knows_patients(self._task) and level is not None and whole.confusion is not None and whole.clusters is None:
            self._warn_of_patients()

    def _alike(self, found: Mapping[str, Scalars]) -> Mapping[str, Scalars]:
        """Let nodes without test samples, which cannot know, tell what the root does: of a regression no accuracy."""
        root = found.get(self._tree.root.name, {})
        own = dict.fromkeys(own_among(root))
        if not own or "accuracy" in root:
            return found
        return {
            path: scalars
            if scalars.get("num_test")
            else {**{name: value for name, value in scalars.items() if name not in CLASSES}, **own}
            for path, scalars in found.items()
        }

    def total(self, *, tuned: bool = False) -> Tally:
        """Give what all sites together have counted, without those that are held out; or with models of their own.

        Errors: SiteFailed.
        """
        found = self._added_up(self._tuned, self._personal) if tuned else self._added_up(self._tallies)
        return found[self._tree.root.name]

    def _added_up(self, counted: Counted, figures: dict[str, Scalars] | None = None) -> dict[str, Tally]:
        """Add up every hub's tallies and those of the hubs below. A site that measures something else than most fails,
        and has none of these `figures`. Errors: SiteFailed.
        """
        for site, why in counted.unlike(self._tree.nodes).items():
            (self._scalars if figures is None else figures).pop(site, None)
            if figures is None:
                self._curves.pop(site, None)
                self._clusters.pop(site, None)
            self._scribe.site_failed(site, why, "measured")
        return counted.added_up(self._tree.hubs, self._tree.nodes)

    def check_counted(self, reports: Iterable[SiteReport]) -> None:
        """Errors: DataError for a site that has trained on another number of records than its privacy is counted on."""
        for report in reports:
            known = self.inventories.get(report.site)
            if report.error is not None or known is None or self._sites[report.site].privacy is None:
                continue
            records = "records", report.num_samples, known.num_train
            for what, trained, counted in (records, ("patients", report.num_patients, known.num_patients)):
                if trained is not None and trained != counted:
                    raise DataError(
                        f"{report.site} has trained on {trained:,} {what}, and what it pays for privacy is"
                        f" counted on {counted or 0:,}; a run keeps its records to its end"
                    )

    def described(self, result: Described) -> None:
        """Keep what sites have."""
        self.inventories.update((item.site, item) for item in result.inventories)
        self._work.account(result.group, [item.site for item in result.inventories])

    def measured(self, result: Measured) -> None:
        """Keep a worker's measurements. Errors: SiteFailed."""
        evaluated = result.evaluated
        is_tuned = result.group.kind == "fine_tune"
        kept = self._beside if result.group.name.startswith(_HELD_OUT) else self._tallies
        (self._tuned if is_tuned else kept).add(evaluated)
        (self._personal if is_tuned else self._scalars).update(evaluated.sites)
        self._curves.update({} if is_tuned else evaluated.curves)
        self._clusters.update({} if is_tuned else evaluated.clusters)
        for site, scalars in evaluated.sites.items():
            self._warn_of_left_out(site, scalars)
            self._warn_of_names(scalars)
        for site, error in evaluated.errors.items():
            self._scribe.site_failed(site, error, "measured")
        self._work.account(result.group, list(evaluated.durations))

    def _warn_of_left_out(self, site: str, scalars: Scalars) -> None:
        """Name a site whose samples do not count above it, once."""
        if not scalars.get("num_left_out") or site in self._warned:
            return
        self._warned.add(site)
        bad, total = scalars["num_not_finite"], scalars["num_test"]
        has_own = self._named or own_among(scalars)
        of = "its predictions, or metrics of the task's own," if has_own else "its predictions"
        what = f"{of} are not finite: {bad} of {total} samples" if bad else "its loss is not finite"
        said = f"{what}; it has no metrics, and all its {total} test samples are left out of those of the hubs above it"
        self._scribe.notice("warning", site, said)

    def _warn_of_point(self) -> None:
        """Say once that thresholds are chosen where each tells two apart."""
        what = "evaluation.operating_point"
        if what not in self._warned:
            self._warned.add(what)
            said = f"there is none, for predict gives more than two classes, or over {MAX_OWN} labels of each sample"
            self._scribe.notice("warning", self._tree.root.name, f"{what}: {said}")

    def _warn_of_patients(self) -> None:
        """Say once that patients are known, and nobody can tell whose the predictions are."""
        what = "evaluation.intervals"
        if what not in self._warned:
            self._warned.add(what)
            said = "each prediction counts as another patient's, for those that predict gives do not stand by samples"
            self._scribe.notice("warning", self._tree.root.name, f"{what}: {said}")

    def _warn_of_names(self, scalars: Scalars) -> None:
        """Say once of which metrics of its own the task tells which way they get better, and has none."""
        root = self._tree.root.name
        if not self._named or scalars.get("loss") is None or root in self._warned:
            return
        self._warned.add(root)
        given = own_among(scalars)
        never = [name for name in self._named if name not in given]
        if never:
            said = f"the task's metrics() names {', '.join(never)}, which its predict() does not give"
            self._scribe.notice("warning", root, said + nearest(never[0], given))

    def lost(self, result: SitesLost) -> None:
        """Note which sites give nothing. Errors: SiteFailed."""
        for site, why in result.sites.items():
            if result.group.kind == "describe":
                self.inventories[site] = Inventory(site, 0, 0, None, why)
            else:
                self._scribe.site_failed(site, why, "measured")
        self._work.account(result.group, list(result.sites))


def _beside(folder: Path | None, site: SiteSettings) -> str:
    """Say how to go on where a site's data are looked for here, and lie where the YAML does, in `folder`; else nothing.
    Of which of the words in `source` are paths a task says nothing: one is meant that is there and not here.
    """
    if folder is None:
        return ""
    sources = [site.source, *(pooled.source for pooled in site.pools), *(handed.source for handed in site.handed)]
    paths = [value for source in sources for value in source.values() if isinstance(value, str) and value]
    lie = [path for path in paths if not os.path.exists(path) and os.path.exists(folder / path)]
    if not lie:
        return ""
    there = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    return f"; {there / lie[0]} does exist here: start the run in {there} (cd {shlex.quote(str(there))})"


def own_sites(federation: Federation, hub: str) -> tuple[str, ...]:
    """List the sites directly under a hub."""
    return tuple(member for member in federation.members(hub) if member in federation.sites)


def patients_of(inventory: Mapping[str, Inventory]) -> dict[str, int | None]:
    """Give the patients that are trained on by path, where they are counted."""
    return {path: found.num_patients for path, found in inventory.items()}


def samples_of(config: RunConfig, inventory: Mapping[str, Inventory]) -> dict[str, int]:
    """Add the samples that are trained on from the sites to the root; by path."""
    counts = dict.fromkeys(config.federation.nodes, 0)
    for path in reversed(list(counts)):
        if path in inventory and config.sites[path].trains:
            counts[path] = inventory[path].num_train
        above = parent(path)
        if above is not None:
            counts[above] += counts[path]
    return counts


def as_told(
    counts: Mapping[str, int], federation: Federation, inventory: Mapping[str, Inventory]
) -> dict[str, int | None]:
    """Give samples by path as people are told: None at a site that could not say, and at a hub of such alone."""
    unknown = {path for path, found in inventory.items() if found.error is not None}
    for hub in reversed(list(federation.hubs)):
        if unknown.issuperset(federation.members(hub)):
            unknown.add(hub)
    return {path: None if path in unknown else count for path, count in counts.items()}
