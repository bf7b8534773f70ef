"""Finds settings that would break what `privacy:` promises, before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hierfl.config.places import join
from hierfl.config.schema import Evaluation, Training
from hierfl.config.section import Report
from hierfl.learning.patients import PATIENT, knows_patients, unit_of
from hierfl.learning.strategy import Strategy
from hierfl.learning.task import Fits, WeighsSamples, offers

if TYPE_CHECKING:
    from hierfl.config.tree import Node

__all__ = ["check_privacy"]

LIBRARY = "dp_accounting"


def check_privacy(training: Mapping[str, Any], evaluation: Evaluation, task: Any, root: Node, report: Report) -> None:
    """Report what a mechanism cannot be had with. `training`: the top's own keys; `task`: None if it is not sound."""
    stack: list[tuple[Node, Mapping[str, Any], Any, str, Strategy | None, str, str]] = []
    stack.append((root, training, None, "", None, "", ""))
    first, told = "", set()
    while stack:
        node, above, mechanism, place, strategy, odd, sharing = stack.pop()
        holds = {**above, **node.own.training}
        if node.own.privacy is not None:
            mechanism, place = node.own.privacy, join(node.place, "privacy")
        if node.members is not None:
            own = node.own.strategy or (strategy.inherited() if strategy is not None else None)
            odd = odd or _own_topology(node)
            sharing = node.name if node.own.settings.get("shared") is not None else sharing
            below = holds, mechanism, place, own, odd, sharing
            stack.extend((member, *below) for member in reversed(node.members))
        elif mechanism is not None and node.own.settings.get("role", "training") == "training":
            first = first or place
            whose = _whose(mechanism, task, node, sharing)
            for said in (mechanism.conflict(Training(**holds)), _uncounted(strategy), odd, whose):
                if said and (place, said) not in told:
                    told.add((place, said))
                    report(place, said)
    _check_apart(root, report)
    if first and find_spec(LIBRARY) is None:
        report(first, f"needs the package {LIBRARY}, which counts what it costs: pip install 'hierfl[privacy]'")
    if first and evaluation.auc == "exact":
        report("evaluation.auc", "exact sends every score up, and no noise covers them: histogram or none with privacy")
    if first and offers(task, WeighsSamples):
        report(first, "draws all records alike, which is what it counts by, and the task has sample_weights: not both")
    if first and offers(task, Fits):
        report(
            first, "counts what each step tells of a record, and the task has a training loop of its own, fit: not both"
        )
    if first and evaluation.fine_tune is not None:
        report("evaluation.fine_tune", "trains on records without noise, and its figures go up: not with privacy")


def _check_apart(root: Node, report: Report) -> None:
    """Report sites that train on the records of a site with a mechanism: each one's epsilon is of its own rounds.

    What institutions load of one name, each behind its link, is not the same.
    """
    held: dict[tuple[int, str, str], tuple[Node, bool]] = {}
    stack: list[tuple[Node, Mapping[str, Any], bool, Node]] = [(root, {}, False, root)]
    while stack:
        node, above, is_private, served = stack.pop()
        is_private, served = is_private or node.own.privacy is not None, served if node.own.link is None else node
        source = {**above, **{name: value for name, value in node.data.items() if name != "key"}}
        if node.members is not None:
            stack.extend((member, source, is_private, served) for member in reversed(node.members))
        elif node.own.settings.get("role", "training") == "training":
            whose = id(served), str(node.data.get("key", node.name)), repr(sorted(source.items()))
            other, other_is_private = held.setdefault(whose, (node, is_private))
            if other is not node and (is_private or other_is_private):
                place = join(node.place, *(("data", "key") if "key" in node.data else ("name",)))
                report(
                    place,
                    f"{node.name!r} trains on the records of {other.name!r} ({other.place}), and with privacy the"
                    " epsilon of each is of its own rounds alone: let one site have them",
                )


def _whose(mechanism: Any, task: Any, site: Node, sharing: str) -> str:
    """Say why patients cannot be protected as a whole; empty if they can, or are not to be. `sharing`: the hub that
    hands public data to the site.
    """
    if unit_of(mechanism) != PATIENT:
        return ""
    if "split" in site.own.settings:
        return (
            f"protects patients (unit: patient), whose records the parts of {site.name!r} would share: leave split out"
        )
    if sharing:  # a task names patients within one set: two people of one name would be clipped as one
        return (
            "protects patients (unit: patient), and nobody tells a site's from those of the data that"
            f" {sharing!r} shares: leave shared out"
        )
    if task is None or knows_patients(task):
        return ""
    return (
        "protects patients (unit: patient), and the task does not say whose its records are: parquet's key patient"
        ", or a method patients of your own"
    )


def _own_topology(hub: Node) -> str:
    """Say that nobody knows how often a topology lets a site train; empty if it is once a round, as in hierfl's own."""
    kind = type(hub.own.topology)
    if hub.own.topology is None or kind.__module__.startswith("tiers.topologies."):
        return ""
    return f"cannot count how often sites train in a round under {kind.__name__} at {hub.name!r}: take one of hierfl's"


def _uncounted(strategy: Strategy | None) -> str:
    """Say that nobody knows how often sites train under a strategy; empty if it is known."""
    if strategy is None or callable(getattr(strategy.objective(), "num_steps", None)):
        return ""
    kind = type(strategy).__name__
    return f"cannot count the steps of {kind}: let its objective() say num_steps, as hierfl.learning.local.LocalRule"
