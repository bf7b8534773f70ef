"""The same federations on several seeds: how much of a difference is chance?

Each configuration is run once per seed, one run after the other, and every node's figures at the ends are put together:
mean and standard deviation over the seeds. A seed decides the first model and the order of batches; the data, and which
of them are test samples, are the task's (`task.seed`, where it has one) and stay.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierfl.errors import ConfigError, Problem
from hierfl.monitor.fairness import METRICS, reads, titles
from hierfl.monitor.words import finite, metric, told_apart
from hierfl.several import in_file

if TYPE_CHECKING:
    from hierfl.config.schema import RunConfig

__all__ = ["repeat", "seeds_of", "tables", "with_seeds"]

MOST = 1000


def seeds_of(word: str) -> tuple[int, ...]:
    """Read seeds: "0..4", both ends counted, or "0,1,7". Errors: ConfigError."""
    if match := re.fullmatch(r"(\d+)\.\.(\d+)", word):
        first, last = map(int, match.groups())
        found = tuple(range(first, min(last, first + MOST) + 1))
    else:
        found = tuple(map(int, word.split(","))) if re.fullmatch(r"\d+(,\d+)*", word) else ()
    if not found or len(found) > MOST or len(set(found)) < len(found):
        said = f"up to {MOST} different whole numbers, as 0..4 (both ends count) or 0,1,7"
        raise ConfigError(f"--seeds {word}: give {said}")
    return found


def with_seeds(paths: Sequence[Path], overrides: Sequence[str], seeds: Sequence[int]) -> dict[str, list[RunConfig]]:
    """Read each configuration once per seed; by its name, or its file's where two have one name.

    Errors: ConfigError with all mistakes of all files.
    """
    from hierfl.config import load
    from hierfl.config.overrides import renaming

    if any(re.match(r"\s*seed\s*=", word) for word in overrides):
        raise ConfigError("--seeds and an override of seed are both given; keep one")
    problems: list[Problem] = []
    plain: list[RunConfig] = []
    for path in paths:
        try:
            plain.append(load(path, overrides))
            plain[-1].must_train("--seeds")
        except ConfigError as error:
            problems += [in_file(path, problem) for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    names = told_apart([config.name for config in plain])
    return {
        name: [load(path, [*overrides, f"seed={seed}", renaming(f"{config.name}-seed-{seed}")]) for seed in seeds]
        for name, path, config in zip(names, paths, plain, strict=True)
    }


def repeat(configs: Mapping[str, Sequence[RunConfig]], run: Callable[[RunConfig], Mapping[str, Any]]) -> dict[str, Any]:
    """Run all, one after the other; put the figures of each configuration's nodes together over its seeds.

    Under `baseline: local` there is beside the nodes' figures how the sites' own models do on the test samples of all
    sites, on the mean: `on_all_data`.
    """
    found: dict[str, Any] = {}
    for name, own in configs.items():
        summaries = [run(config) for config in own]
        nodes = [summary["nodes"] for summary in summaries]
        found[name] = {
            "nodes": {path: _figures([by_path.get(path, {}) for by_path in nodes]) for path in nodes[0]},
            "run_dirs": [summary["run_dir"] for summary in summaries],
        }
        if all("on_all_data" in summary for summary in summaries):
            means = [summary["on_all_data"]["fairness"] for summary in summaries]
            found[name]["on_all_data"] = _figures([{key: own["mean"] for key, own in one.items()} for one in means])
    return {"seeds": [config.seed for config in next(iter(configs.values()))], "configs": found}


def tables(answer: Mapping[str, Any]) -> dict[str, dict[str, dict[str, str]]]:
    """Write it as tables by title, rows and columns: of one configuration its nodes, of several each metric."""
    configs = answer["configs"]
    over = f"mean and deviation over {len(answer['seeds'])} seeds"
    if len(configs) == 1:
        ((name, found),) = configs.items()
        rows = {path: {reads(key): _said(own) for key, own in node.items()} for path, node in found["nodes"].items()}
        return {f"{name}, {over}": {path: row for path, row in rows.items() if row}}
    told = {key for found in configs.values() for node in found["nodes"].values() for key in node}
    return {
        f"{title}, {over}": {
            name: {path: _said(node[key]) for path, node in found["nodes"].items() if key in node}
            for name, found in configs.items()
        }
        for key, title in {**METRICS, **{key: key for key in sorted(told - METRICS.keys())}}.items()
        if key in told
    }


def _figures(nodes: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Put one node's metrics together: mean and deviation (of the sample) over the runs in which each is defined."""
    figures = {}
    for name in titles(*nodes):
        if not any(name in node for node in nodes):
            continue
        values = [finite(node.get(name)) for node in nodes]
        known = [value for value in values if value is not None]
        figures[name] = {
            "mean": statistics.fmean(known) if known else None,
            "std": statistics.stdev(known) if len(known) > 1 else None,
            "values": values,
        }
    return figures


def _said(figure: Mapping[str, Any]) -> str:
    """Write a mean with its deviation."""
    if figure["mean"] is None:
        return "undefined"
    return metric(figure["mean"]) + (f" +/- {metric(figure['std'])}" if figure["std"] is not None else "")
