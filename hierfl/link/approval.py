"""What a member agrees to before anything is trained: the configuration, the task's code, and what will leave the site.

The plan is shown whole and approved by its hash; a change in any of it is another plan, and has to be approved anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hierfl.config.membership import epochs
from hierfl.config.schema import Evaluation, RunConfig
from hierfl.learning.patients import PATIENT, knows_patients, unit_of
from hierfl.learning.standardise import is_federated
from hierfl.link.cohort import cohort, fewest
from hierfl.link.identity import exchanging
from hierfl.link.measured import MOST_MODELS
from hierfl.link.served import num_sites, stay_of
from hierfl.monitor.statistics import asked
from hierfl.monitor.words import plural
from hierfl.provenance import LOCAL, code_of
from hierfl.tree import describe
from tiers.federation import is_within, parent

__all__ = ["Plan", "config_digest", "goes_on_as", "plan_of"]

WITHOUT_MEMBERS = ("on_failure", "quorum")
"""Of a node: whether its rounds go on without members."""

_TO_WHOM = {
    "AllReduce": "each other member of its hub a slice of it, and the sum of one slice of all members'",
    "Peer": "each neighbour among the members of its hub its own model, whole, and each other member a slice of it",
    "Swarm": "whichever member of its hub leads the round all of it, and from there the model",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a member is asked to agree to."""

    federation: str
    node: str
    config: str
    task: str
    task_kind: str
    modules: tuple[str, ...]
    rounds: int
    leaves: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Give the hash by which the plan is approved."""
        said = json.dumps([getattr(self, name) for name in self.__slots__], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    def lines(self) -> list[str]:
        """Say it to a person."""
        return [
            f"federation     {self.federation}, {plural(self.rounds, 'round')}",
            f"node           {self.node}",
            f"configuration  {self.config}",
            f"task           {self.task_kind}",
            f"its code       {self.task}",
            f"of             {', '.join(self.modules)}",
            *(f"{'leaves here' if n == 0 else '':<15}{said}" for n, said in enumerate(self.leaves)),
            f"plan           {self.digest}",
        ]


def plan_of(config: RunConfig, path: str) -> Plan:
    """Give the plan of a member."""
    code = code_of(config)
    return Plan(
        *(config.name, path, config_digest(config), code.digest, config.task_kind, tuple(sorted(code.files))),
        *(config.federation.root.rounds, tuple(_leaves(config, path))),
    )


def config_digest(config: RunConfig) -> str:
    """Give the SHA-256 of the configuration, without what is each institution's own."""
    return _digest(config.resolved)


def goes_on_as(before: RunConfig, now: RunConfig) -> bool:
    """Say whether a run may go on under another configuration, once its members have agreed to that one.

    Budgets for privacy may be others, and whether rounds go on without members: neither changes what was trained, or
    paid, so far.
    """
    old, new = ({**one.resolved, "federation": _lasting(one.resolved["federation"])} for one in (before, now))
    return _digest(old) == _digest(new)


def _lasting(node: Any) -> Any:
    """Give what stays as it is in a node, or a list of them, for as long as a run lasts."""
    if isinstance(node, list):
        return [_lasting(one) for one in node]
    kept = {key: value for key, value in node.items() if key not in WITHOUT_MEMBERS}
    if isinstance(kept.get("privacy"), Mapping):
        kept["privacy"] = {key: value for key, value in kept["privacy"].items() if key != "epsilon"}
    return {**kept, "members": _lasting(kept["members"])} if kept.get("members") else kept


def _digest(resolved: Mapping[str, Any]) -> str:
    shared = {key: value for key, value in resolved.items() if key not in LOCAL}
    return hashlib.sha256(json.dumps(shared, sort_keys=True, default=str).encode()).hexdigest()


def _leaves(config: RunConfig, path: str) -> list[str]:
    """List what a member sends up, in words."""
    if config.only_tells:
        errors = "errors in one line without what the task's code says"
        return ["nothing of a model: nothing is trained", errors, *_counts(config, path)]
    number = num_sites(config, path)
    together = f"of its {number} sites together" if number > 1 else "of its one site"
    whose = "this site's" if path in config.federation.sites else together
    what = f"per round{_while(config, path)} the change of the model, {whose}, as integers of"
    what = f"{what} {config.arithmetic.width} bits"
    hidden = cohort(config, parent(path) or "")
    if path in hidden:
        names, least = ", ".join(one.rpartition("/")[2] for one in hidden), fewest(config, parent(path) or "")
        of = f"the sum over {names}" if least == len(hidden) else f"a round's sum over {least} or more of {names}"
        what += f", masked: {parent(path)} learns {of}, and no single one"
        what += " unless it has the authority's key"
    found = [what] if not exchanging(config, path) else list(_to_others(config, path, what))
    found.append("its weight, the seconds that it took, and errors in one line without what the task's code says")
    found += _counts(config, path)
    found += list(_hidden(config, path))
    if is_federated(config.task):
        found.append("once the count, sums and sums of squares of each feature")
    if config.evaluation.every:
        found.append(
            f"after {_when(config.evaluation)}, of at most {MOST_MODELS} models, {_measured(config.evaluation)}"
        )
        if config.evaluation.fine_tune is not None:
            found.append("the same of the models that sites fine-tune for themselves, which stay there")
        if config.evaluation.intervals is not None and knows_patients(config.task):
            found.append(
                "of the model after these rounds how many patients have test samples, in all, of either class, or with"
                " and without each label, and sums over patients of the square of how many each has (with few patients"
                " nearly each one's number); of classes also of how many of them are predicted right, squared and times"
                " how many there are"
            )
    return found


def _when(evaluation: Evaluation) -> str:
    """Say after which rounds a model is measured."""
    return "each round" if evaluation.every == 1 else f"every {evaluation.every} rounds and the last"


def _measured(evaluation: Evaluation) -> str:
    """Say what a measurement tells of the test samples. Whether each has several labels, `predict` alone knows."""
    each = "by class, or by label where a sample has several,"
    scores = {
        "exact": f"{each} every distinct score, with how many samples of it, and of others, have it, so the calibration"
        " curve, too",
        "histogram": f"{each} how many samples of it, and of others, have a score in each of {evaluation.bins} bins, so"
        " each score to its bin, and the calibration curve",
        "none": "no scores and no calibration curve",
    }[evaluation.auc]
    sums = "sums of the loss, log loss, Brier score and the task's own metrics (with few samples nearly those of each)"
    return f"counts of right and wrong predictions, {sums}, and {scores}"


def _counts(config: RunConfig, path: str) -> Iterator[str]:
    """List what a member tells of its records."""
    owned = config.sites.get(path)
    patients = ", and of patients who are trained on" if owned and unit_of(owned.privacy) == PATIENT else ""
    yield f"once{_again(config, path)} the numbers of training and test samples{patients}"
    if config.statistics is not None:
        yield f"once of {asked(config.statistics)}"


def _while(config: RunConfig, path: str) -> str:
    """Say in which rounds a member takes part; nothing where it always does."""
    stay = stay_of(config, path)
    if stay.end is not None:
        return f", from round {stay.first} until round {stay.end} begins,"
    return f", from round {stay.first} on," if stay.first > 1 else ""


def _again(config: RunConfig, path: str) -> str:
    """Say with which rounds members at and below a node change while it is there; nothing where none do."""
    there = [(epoch, {site for site in epoch.sites if is_within(site, path)}) for epoch in epochs(config)]
    moved = [str(epoch.first) for (_, before), (epoch, now) in pairwise(there) if before and now and before != now]
    return f", and anew with round {', '.join(moved)}, in which sites change," if moved else ""


def _hidden(config: RunConfig, path: str) -> Iterator[str]:
    """Say how the records are hidden in what a member sends, where a federation hides any."""
    if all(site.privacy is None for site in config.sites.values()):
        return
    below = [site for site in config.federation.sites if is_within(site, path)]
    for site in below:
        mechanism = config.sites[site].privacy
        if mechanism is None:
            yield f"{site}: no noise hides its records in any of this"
            continue
        most = "in a run no more epsilon than its rounds cost"
        if mechanism.epsilon is not None:
            most = f"epsilon at most {mechanism.epsilon:g}, in all runs from one --state together"
        how = f"{describe(mechanism)}, at delta {mechanism.delta:g}"
        whose = f"{unit_of(mechanism)}s"
        column = getattr(config.task, "patient", None) if unit_of(mechanism) == PATIENT else None
        whose += f", one for each value of {column!r}," if isinstance(column, str) else ""
        yield f"{site}: noise hides single {whose} in the change, {how}: {most}"
    yield "no noise is in anything else of this"


def _to_others(config: RunConfig, path: str, what: str) -> Iterator[str]:
    """List what a member of a hub without a centre hands to others, and to whom."""
    hub = config.federation.hubs[parent(path) or ""]
    others = ", ".join(one.name for one in hub.members if one.name != path.rpartition("/")[2])
    yield what
    yield f"to {_TO_WHOM[type(hub.topology).__name__]} ({others}), at {config.links[path].peers}"
