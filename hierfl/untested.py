"""What is said before the first round of sites that have nothing to measure a model on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hierfl.config.membership import Epoch
from hierfl.config.schema import RunConfig
from hierfl.monitor.words import few, plural
from hierfl.runtime.jobs import Inventory

__all__ = ["untested"]


def untested(config: RunConfig, epoch: Epoch, inventories: Mapping[str, Inventory]) -> Iterator[tuple[str, str, str]]:
    """Name the sites that are to be measured and have no test records, and say what is missing where none has any that
    counts: path, level of the notice, and what. `epoch`: who is there.
    """
    if not config.evaluation.every or config.only_tells:
        return
    root, sites = config.federation.root.name, epoch.config.sites
    measured = {
        path: inventories[path].num_test
        for path, site in sites.items()
        if (site.counts or site.is_held_out) and path in inventories and inventories[path].error is None
    }
    counting = [path for path in measured if sites[path].counts]
    missing = [path for path, number in measured.items() if not number]
    if counting and not any(measured[path] for path in counting):
        yield root, "warning", _nothing(config, epoch, is_beside=any(measured.values()))
        missing = [path for path in missing if not sites[path].counts]
    if missing:
        has = "has no test records and is" if len(missing) == 1 else "have no test records and are"
        yield root, "info", f"{few(missing)} {has} not measured"


def _nothing(config: RunConfig, epoch: Epoch, *, is_beside: bool) -> str:
    """Say what a run lacks no site of which has test records; `is_beside`: but those that are measured beside."""
    who = "no site but those of role: evaluation" if is_beside else "no site"
    waits = any(site.counts and site.joins_at > epoch.first for site in config.sites.values())
    lacks = ["no metrics but theirs" if is_beside else "no metrics"]
    if config.evaluation.operating_point is not None:
        lacks.append("no threshold (evaluation.operating_point)")
    stopping = config.stopping
    if stopping.metric is not None:
        lacks.append(f"no {stopping.metric} to stop by")
        if stopping.patience is not None:
            lacks[-1] += f", so that patience ends training after {plural(stopping.patience, 'measurement')}"
    is_drawn = getattr(config.task, "test_fraction", None) == 0
    way = "let task.test_fraction be above 0" if is_drawn else "let the task's data have some to test on"
    said = f"{who} has test records{' so far' if waits else ''}: there are {', '.join(lacks)}"
    return f"{said}; {way}, or leave measuring out (evaluation.every: 0)"
