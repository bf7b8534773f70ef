"""The report's tables of how the model does over the sites, as HTML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from hierfl.learning.operating import OPERATING, THRESHOLD
from hierfl.learning.own_metrics import by_label, figure_of
from hierfl.leave_out import OTHERS, table
from hierfl.monitor.cross_site import short
from hierfl.monitor.fairness import reads
from hierfl.monitor.statistics import Told
from hierfl.monitor.words import UNDEFINED, count, finite, interval, metric

__all__ = ["fairness_table", "label_table", "left_out_table", "statistics_table"]

_COLUMNS = ("worst", "worst site", "best", "best site", "mean", "weighted mean", "deviation", "sites", "undefined")


def fairness_table(found: object) -> Iterator[str]:
    """Write `fairness` of a run's summary: one row per metric."""
    if not isinstance(found, Mapping) or not found:
        yield '<p class="note">The run left no figures of its sites at its end.</p>'
        return
    head = "".join(f"<th>{title}</th>" for title in ("metric", *_COLUMNS))
    yield f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>'
    for name, figures in found.items():
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in _cells(figures))
        yield f"<tr><td>{escape(reads(str(name)))}</td>{cells}</tr>"
    yield "</tbody></table></div>"
    yield (
        '<p class="note">Mean and standard deviation count each site once, the weighted mean each by its test'
        " samples; sites where a metric is undefined are counted apart.</p>"
    )


def label_table(nodes: Mapping[str, Mapping[str, Any]], root: str, sites: Sequence[str]) -> Iterator[str]:
    """Write what the federation's thresholds give for several labels of each sample: one row per label, and the site at
    which each figure is lowest.
    """
    figures = {"AUC": "auc", "sensitivity": OPERATING[0], "specificity": OPERATING[1]}
    titles = ("label", "threshold", *(title for name in figures for title in (name, "lowest at a site")))
    head = "".join(f"<th>{title}</th>" for title in titles)
    yield f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>'
    whole = nodes[root]
    for label, threshold in by_label(whole, THRESHOLD).items():
        cells = [metric(threshold)]
        for name in (figure_of(name, label) for name in figures.values()):
            values = {site: value for site in sites if (value := finite(nodes.get(site, {}).get(name))) is not None}
            lowest = min(values, key=values.__getitem__, default=None)
            cells.append(metric(whole.get(name)) + interval(whole, name))
            cells.append(UNDEFINED if lowest is None else f"{metric(values[lowest])} ({lowest})")
        yield f"<tr><td>{escape(label)}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
    yield "</tbody></table></div>"


def left_out_table(found: Mapping[str, Any]) -> Iterator[str]:
    """Write what `hierfl run --leave-out` has kept: one row per site, without it in the training and with it; of the
    site itself, and of the others.
    """
    yield from _without_and_with(table(found))
    yield (
        '<p class="note">How the model does at a site that had no part in its training, in a run of its own with the'
        " same seed, beside how this run's does there.</p>"
    )
    of_others = table(found, others=True)
    if of_others:
        yield from _without_and_with(of_others)
        yield f'<p class="note">{escape(OTHERS[0].upper() + OTHERS[1:])}.</p>'


def _without_and_with(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Write a table of the figures without and with each site."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    head = "".join(f"<th>{escape(title)}</th>" for title in ("site", *columns))
    yield f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>'
    for site, row in rows.items():
        cells = "".join(f"<td>{escape(metric(row.get(column)))}</td>" for column in columns)
        yield f"<tr><td>{escape(site)}</td>{cells}</tr>"
    yield "</tbody></table></div>"


def statistics_table(told: Told) -> Iterator[str]:
    """Write what sites have told of their records: a row for each column of their tables, a column for each node."""
    names = short(list(told.nodes))
    head = "".join(f"<th>{escape(title)}</th>" for title in ("", *names.values()))
    yield f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>'
    for name, row in told.cells().items():
        cells = "".join(f"<td>{escape(row[path])}</td>" for path in names)
        yield f"<tr><td>{escape(name)}</td>{cells}</tr>"
    yield "</tbody></table></div>"
    yield f'<p class="note">{escape(told.legend())}.</p>'


def _cells(figures: Mapping[str, Any]) -> Iterator[str]:
    for which in ("worst", "best"):
        yield metric(figures.get(f"{which}_value"))
        yield str(figures.get(which, ""))
    yield from (metric(figures.get(name)) for name in ("mean", "weighted_mean", "std"))
    yield from (count(figures.get(name)) for name in ("num_sites", "num_undefined"))
