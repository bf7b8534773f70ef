"""How evenly a model serves the sites: the worst, the best and the spread of each metric over them.

A mean over samples hides a small hospital at which the model fails; these figures count each site once, and say beside
them what weighting by test samples gives. After Li et al. 2020, Fair Resource Allocation in Federated Learning, which
tells the worst and the best devices and the variance over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from hierfl.learning.operating import OPERATING, THRESHOLD
from hierfl.learning.own_metrics import BUILT_IN, by_label, figure_of, own_among
from hierfl.monitor.words import few, finite, interval, metric, plural

__all__ = [
    "METRICS",
    "READS",
    "fairness",
    "fairness_lines",
    "held_out_lines",
    "interval_lines",
    "threshold_lines",
    "titles",
]

METRICS = {"accuracy": "accuracy", "auc": "AUC", "loss": "loss"}
"""What is told of, and how it reads."""

_AT_THRESHOLD = dict(zip(OPERATING, ("sensitivity", "specificity"), strict=True))
"""What is told of beside, where a threshold is looked at; the more the better."""

_MOST_TOLD = 14
"""Labels of whose thresholds a run's last lines tell: as many as findings of a chest X-ray."""

READS = {**METRICS, **{name: f"{share} at the threshold" for name, share in _AT_THRESHOLD.items()}}


def titles(*nodes: Mapping[str, Any]) -> dict[str, str]:
    """Name what is compared of nodes' figures, and how it reads: `METRICS`, and metrics of the task's own."""
    named = {name for node in nodes for name in node}
    looked_at = {name: READS[name] for name in OPERATING if name in named}
    return {**METRICS, **looked_at, **{name: name for name in own_among(named)}}


def fairness(
    sites: Mapping[str, Mapping[str, Any]], better: Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """Say for each metric that a site has: the worst and the best site with its value, means and deviation.

    `sites`: the metrics of each by path; `better`: which way those of the task's own get better, min or max: the others
    are left out. `mean` and `std` (of the population) count each site once, `weighted_mean` each by its test samples;
    `num_undefined` sites have no value and count in none of them. Ties: the first by path.
    """
    found = {}
    looked_at = dict.fromkeys((name for name in OPERATING if any(name in site for site in sites.values())), "max")
    ways = {**{name: BUILT_IN[name] for name in METRICS}, **looked_at, **(better or {})}
    for name, way in ways.items():
        values = {path: number for path in sorted(sites) if (number := finite(sites[path].get(name))) is not None}
        if not values:
            continue
        sign = -1.0 if way == "min" else 1.0
        worst, best = (choose(values, key=lambda path: sign * values[path]) for choose in (min, max))
        mean = math.fsum(values.values()) / len(values)
        weights = {path: int(sites[path]["num_test"]) for path in values}
        found[name] = {
            "worst": worst,
            "worst_value": values[worst],
            "best": best,
            "best_value": values[best],
            "mean": mean,
            "weighted_mean": math.fsum(weights[path] * values[path] for path in values) / sum(weights.values()),
            "std": math.sqrt(math.fsum((value - mean) ** 2 for value in values.values()) / len(values)),
            "num_sites": len(values),
            "num_undefined": len(sites) - len(values),
        }
    return found


def fairness_lines(found: Mapping[str, Mapping[str, Any]], where: str = "") -> Iterator[str]:
    """Say it on one line per metric, and `where` it was measured; nothing of one that a single site has."""
    for name, figures in found.items():
        if figures["num_sites"] > 1:
            without = figures.get("num_undefined", 0)
            of_all = (
                f"; undefined at {without:,} of {plural(without + figures['num_sites'], 'site')}" if without else ""
            )
            yield (
                f"sites    {READS.get(name, name)}{where}"
                f" worst {metric(figures['worst_value'])} ({figures['worst']}),"
                f" best {metric(figures['best_value'])} ({figures['best']}), mean {metric(figures['mean'])}"
                f" (weighted {metric(figures['weighted_mean'])}), deviation {metric(figures['std'])}{of_all}"
            )


def interval_lines(nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Say how sure the root's figures are, where intervals are told."""
    root = _root(nodes)
    areas = [figure_of("auc", label) for label in by_label(root, "auc")]
    shown = [name for name in (*areas, "accuracy") if interval(root, name)]
    if shown:
        said = few([f"{READS.get(name, name)} {metric(root[name])}{interval(root, name)}" for name in shown])
        yield f"{'all':<8} {said}"


def threshold_lines(nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Say the thresholds of the federation's operating point, and what each gives on all test samples, if there are
    any: of many labels those of the first.
    """
    root = _root(nodes)
    found = by_label(root, THRESHOLD)
    for label, threshold in [*found.items()][:_MOST_TOLD]:
        names = {figure_of(name, label): share for name, share in _AT_THRESHOLD.items()}
        given = ", ".join(f"{share} {metric(root.get(name))}{interval(root, name)}" for name, share in names.items())
        yield f"point    {label or 'class 1'} from {metric(threshold)} on: {given}"
    if len(found) > _MOST_TOLD:
        yield f"{'':<8} {plural(len(found) - _MOST_TOLD, 'more label')} in summary.json"


def held_out_lines(nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Say how the model does at each site that it has seen nothing of, and, of several, at all of them together."""
    outside = {path: scalars for path, scalars in nodes.items() if scalars.get("role") == "evaluation"}
    for path, scalars in outside.items():
        wanted = titles(scalars).items()
        said = ", ".join(f"{title} {metric(scalars.get(name))}" for name, title in wanted if name in scalars)
        yield f"held out {path}: {said or 'not measured'}"
    root = _root(nodes) if len(outside) > 1 else {}
    wanted = titles(*outside.values()).items()
    figures = {title: root[f"held_out_{name}"] for name, title in wanted if f"held_out_{name}" in root}
    if figures:
        yield "held out all: " + ", ".join(f"{title} {metric(value)}" for title, value in figures.items())


def _root(nodes: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Give the root's figures, if there are any nodes."""
    return nodes[min(nodes, key=len)] if nodes else {}
