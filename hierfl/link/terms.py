"""Holds a federation against an institution's own terms: before it joins, and before each thing that it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path

from hierfl.budget import Cost
from hierfl.config.read import parse, read
from hierfl.config.schema import RunConfig
from hierfl.config.section import fields_of
from hierfl.config.terms import SCORES, Terms
from hierfl.errors import ConfigError, LinkError, Problem
from hierfl.learning.patients import spoken_units, unit_of
from hierfl.link.approval import Plan
from hierfl.link.cohort import cohort, fewest
from hierfl.link.kit import Kit
from hierfl.link.served import sites_here
from tiers.federation import parent

__all__ = ["check_delta", "heeded", "read_terms", "terms_lines"]


def read_terms(file: Path) -> Terms:
    """Read a file of terms; where there is none, nothing is bounded. Errors: ConfigError with every mistake."""
    if not file.exists():
        return Terms()
    found: list[Problem] = []
    given = parse(read(file), str(file))
    good = fields_of(Terms, given, "", lambda place, said: found.append(Problem(place, said)))
    if found:
        raise ConfigError([Problem("", f"{file}: {problem}") for problem in found])
    return Terms(**good)


def heeded(config: RunConfig, kit: Kit, plan: Plan, today: Callable[[], date] = date.today) -> Callable[[], Terms]:
    """Give what reads a kit's terms anew, holds the federation against them, and gives them.

    Errors, of what is given: LinkError with every term that is not kept; ConfigError for a file that cannot be read.
    """

    def terms() -> Terms:
        found = read_terms(kit.terms)
        broken = [f"{key}: {said}" for key, said in _breaches(found, config, kit.path, plan, today())]
        if broken:
            raise LinkError(_not_kept(kit.path, broken))
        return found

    return terms


def check_delta(terms: Terms, path: str, costs: Iterable[Cost]) -> None:
    """Hold sites' deltas against terms that name an epsilon and no delta: an epsilon says nothing without one.

    Errors: LinkError, naming every site whose delta is not below one over the number of its records, or patients.
    """
    if terms.epsilon is None or terms.delta is not None:
        return
    broken = [
        f"epsilon: its delta of {cost.delta:g} promises nothing to the {cost.num_samples:,} {cost.units} of"
        f" {cost.site}; privacy.delta has to be below {1 / cost.num_samples:.2g}, or a delta here says how much is"
        " allowed"
        for cost in costs
        if cost.delta * cost.num_samples >= 1
    ]
    if broken:
        raise LinkError(_not_kept(path, broken))


def terms_lines(config: RunConfig, kit: Kit, plan: Plan) -> Iterator[str]:
    """Say the terms to a person, and which of them the federation does not keep."""
    found = read_terms(kit.terms)
    said = [f"{key} {_said(getattr(found, key))}" for key in Terms.__slots__ if getattr(found, key) is not None]
    if found.epsilon is not None and found.delta is None:
        units = spoken_units(config.sites[site].privacy for site in sites_here(config, kit.path))
        said.append(f"delta below one over a site's {units}")
    yield f"own terms      {'; '.join(said) or 'none'} ({kit.terms})"
    for number, (key, why) in enumerate(_breaches(found, config, kit.path, plan, date.today())):
        yield f"{'not kept' if not number else '':<15}{key}: {why}"


def _breaches(terms: Terms, config: RunConfig, path: str, plan: Plan, today: date) -> Iterator[tuple[str, str]]:
    """Give the terms that a federation does not keep, each with what it does, and the way out."""
    if terms.tasks is not None and plan.task_kind not in terms.tasks:
        yield (
            "tasks",
            f"the federation trains {plan.task_kind}, and not {_said(terms.tasks)}; add it if it may",
        )
    if terms.code is not None and plan.task not in terms.code:
        yield "code", f"the task's code is {plan.task}, which is not among those here; add it once it was read"
    rounds = 0 if config.only_tells else config.federation.root.rounds
    if terms.rounds is not None and rounds > terms.rounds:
        yield "rounds", f"the federation has {rounds}, and at most {terms.rounds} are agreed to"
    if terms.until is not None and today > date.fromisoformat(terms.until):
        yield "until", f"nothing is trained or measured here after {terms.until}, and it is {today.isoformat()}"
    if terms.scores is not None and config.evaluation.every and rounds:
        told = config.evaluation.auc
        if SCORES.index(told) > SCORES.index(terms.scores):
            yield "scores", f"evaluation.auc is {told}, which tells more of test scores than {terms.scores}"
    asked = config.statistics
    if terms.min_count is not None and asked is not None and asked.min_count < terms.min_count:
        yield (
            "min_count",
            f"numbers of the statistics may stand for {asked.min_count} records, and for {terms.min_count} at least"
            " here; statistics.min_count says for how many",
        )
    hub, trained = parent(path) or "", []
    if rounds:
        trained = [site for site in sites_here(config, path) if config.sites[site].trains]
    if terms.members is not None and trained:
        least = fewest(config, hub) if path in cohort(config, hub) else 1
        if least < terms.members:
            sees = "each update by itself" if least == 1 else f"sums of {least} members"
            way = "secure_aggregation: masks there, with members and a quorum that are enough, hides it"
            yield "members", f"{hub} may see {sees}, and {terms.members} are to be in each; {way}"
    yield from _unhidden(terms, config, trained)


def _unhidden(terms: Terms, config: RunConfig, trained: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Give those of the terms about noise that are not kept."""
    key = next((key for key in ("epsilon", "delta", "unit") if getattr(terms, key) is not None), None)
    if key is None:
        return
    if config.statistics is not None and terms.min_count is None:
        yield key, "no noise hides records in the statistics that it asks for; min_count here would allow them"
    for site in trained:
        mechanism = config.sites[site].privacy
        if mechanism is None:
            yield key, f"no noise hides the records of {site}; privacy: {{kind: dp_sgd ...}} there does"
        elif terms.delta is not None and mechanism.delta > terms.delta:
            yield (
                "delta",
                f"{site} has {mechanism.delta:g}, and at most {terms.delta:g} is agreed to; privacy.delta is it",
            )
        if mechanism is not None and terms.unit not in (None, unit_of(mechanism)):
            yield (
                "unit",
                f"noise hides each {unit_of(mechanism)} of {site}, and each {terms.unit} is to be hidden; privacy.unit"
                " is it",
            )


def _not_kept(path: str, broken: Iterable[str]) -> str:
    return f"the terms of {path} are not kept: {'; '.join(broken)}"


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
