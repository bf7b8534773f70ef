"""How evenly a model serves the sites: the worst, the best and the spread of each metric over them.

A mean over samples hides a small hospital at which the model fails; these figures count each site once, and say beside
them what weighting by test samples gives. After Li et al. 2020, Fair Resource Allocation in Federated Learning, which
tells the worst and the best devices and the variance over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hierfl.learning.intervals import NUM_PATIENTS
from hierfl.learning.operating import OPERATING, THRESHOLD
from hierfl.learning.own_metrics import BUILT_IN, by_label, figure_of, own_among
from hierfl.monitor.words import few, finite, interval, metric, plural

__all__ = [
    "METRICS",
    "fairness",
    "fairness_lines",
    "held_out_lines",
    "interval_lines",
    "reads",
    "threshold_lines",
    "titles",
]

METRICS = {"accuracy": "accuracy", "auc": "AUC", "loss": "loss"}
"""What is told of, and how it reads."""

_AT_THRESHOLD = dict(zip(OPERATING, ("sensitivity", "specificity"), strict=True))
"""What is told of beside, where a threshold is looked at; the more the better."""

_MOST_TOLD = 14
"""Labels of whose thresholds a run's last lines tell, as many as findings of a chest X-ray; and figures at thresholds
that they tell of over the sites."""


def reads(name: str) -> str:
    """Write a metric's name as a person reads it; one at a threshold has its label behind it, where a sample has
    several.
    """
    of = next((of for of in OPERATING if name.startswith(of)), None)
    if of is None:
        return METRICS.get(name, name)
    label = name.removeprefix(of)[1:]
    return f"{_AT_THRESHOLD[of]} at the threshold{label and f' of {label}'}"


def titles(*nodes: Mapping[str, Any]) -> dict[str, str]:
    """Name what is compared of nodes' figures, and how it reads: `METRICS`, what is told at thresholds, and metrics of
    the task's own.
    """
    named = {name for node in nodes for name in node}
    return {name: reads(name) for name in (*METRICS, *_at_thresholds(named), *own_among(named))}


def fairness(
    sites: Mapping[str, Mapping[str, Any]], better: Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """Say for each metric that a site has: the worst and the best site with its value, means and deviation.

    `sites`: the metrics of each by path; `better`: which way those of the task's own get better, min or max: the others
    are left out. `mean` and `std` (of the population) count each site once, `weighted_mean` each by its test samples;
    `num_undefined` sites have no value and count in none of them. Ties: the first by path.
    """
    found = {}
    looked_at = _at_thresholds(name for site in sites.values() for name in site)
    ways = {**{name: BUILT_IN[name] for name in METRICS}, **dict.fromkeys(looked_at, "max"), **(better or {})}
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
    """Say it on one line per metric, and `where` it was measured; nothing of one that a single site has, and of many
    labels' thresholds the first.
    """
    told = {name: figures for name, figures in found.items() if figures["num_sites"] > 1}
    rest = _at_thresholds(told)[_MOST_TOLD:]
    for name, figures in told.items():
        if name not in rest:
            without = figures.get("num_undefined", 0)
            of_all = (
                f"; undefined at {without:,} of {plural(without + figures['num_sites'], 'site')}" if without else ""
            )
            yield (
                f"sites    {reads(name)}{where}"
                f" worst {metric(figures['worst_value'])} ({figures['worst']}),"
                f" best {metric(figures['best_value'])} ({figures['best']}), mean {metric(figures['mean'])}"
                f" (weighted {metric(figures['weighted_mean'])}), deviation {metric(figures['std'])}{of_all}"
            )
    if rest:
        yield f"{'':<8} {plural(len(rest), 'more figure')} at thresholds in summary.json"


def interval_lines(nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Say how sure the root's figures are, where intervals are told, and of how many patients, where that is known."""
    root = _root(nodes)
    areas = [figure_of("auc", label) for label in by_label(root, "auc")]
    shown = [name for name in (*areas, "accuracy") if interval(root, name)]
    if shown:
        said = few([f"{reads(name)} {metric(root[name])}{interval(root, name)}" for name in shown])
        whose = f"; intervals over {plural(root[NUM_PATIENTS], 'patient')}" if NUM_PATIENTS in root else ""
        yield f"{'all':<8} {said}{whose}"


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


def _at_thresholds(names: Iterable[str]) -> list[str]:
    """List those of a node's figures that are told at a threshold, each once."""
    return sorted({name for name in names if name.startswith(OPERATING)})


def _root(nodes: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Give the root's figures, if there are any nodes."""
    return nodes[min(nodes, key=len)] if nodes else {}
