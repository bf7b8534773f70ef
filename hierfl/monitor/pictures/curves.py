"""Metrics over the rounds, tier by tier: the root bold, hubs in colour, sites light in their hub's colour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from hierfl.monitor.outline import members_by_hub
from hierfl.monitor.pictures.style import BLUE, GREY, HUES, INK, SIZE, figure, heading, legend, short, tidy
from hierfl.monitor.words import finite, metric, spoken

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SITE_LINES", "curves", "hues_of", "keys"]

_TITLES = {"auc": "AUC", "accuracy": "Accuracy", "loss": "Loss", "brier": "Brier score"}
SITE_LINES = 24
"""More sites than this are drawn as one band."""
_ROOM = 0.011
"""What a letter of the root's last value takes of a panel's width, where it is the only panel."""
_BELOW = -0.19
"""Where a panel says that nodes are undefined: below its axis, in its heights. Beside a long title is no room."""


@dataclass(slots=True)
class _Data:
    """The points (round, value) by metric and path; `undefined` counts the nodes without a value in any round."""

    points: dict[str, dict[str, list[tuple[int, float]]]] = field(default_factory=dict)
    paths: dict[str, None] = field(default_factory=dict)

    def undefined(self, name: str) -> list[str]:
        return [path for path in self.paths if path not in self.points[name]]


def curves(rows: Iterable[Mapping[str, Any]], metrics: Sequence[str], every: int = 1) -> Figure:
    """Draw one panel per metric from the lines of `metrics.jsonl`, or of one round of `every`; a metric that no node
    has is left out.

    Errors: ValueError where no row has any of the metrics.
    """
    data = _collect(rows, metrics)
    names = [name for name in metrics if data.points.get(name)]
    if not names:
        raise ValueError(f"no row has a value of {', '.join(metrics)}")
    members = members_by_hub(data.paths)
    root = min(data.paths, key=lambda path: path.count("/"))
    hubs = [path for path in data.paths if path in members and path != root]
    hues = hues_of(hubs)

    made = figure(12, 4.9)
    many = len(names)
    gap, left, right = 0.055, 0.05, 0.965
    room = (right - left - gap * (many - 1)) / many
    for place, name in enumerate(names):
        axes = made.add_axes((left + place * (room + gap), 0.235, room, 0.535))
        _panel(axes, name, data, root, hubs, hues, many)
    told = keys(root, hubs, hues, len(data.paths) - len(members))
    legend(made, told)
    when = "each round" if every == 1 else f"one round of {every:,}, and the last"
    heading(made, "Metrics by tier", f"of the model that each site uses, on its test samples, after {when}")
    return made


def hues_of(hubs: Sequence[str]) -> dict[str, str]:
    """Give each hub its colour; one for all where there are more than colours."""
    return {path: HUES[place] if len(hubs) <= len(HUES) else BLUE for place, path in enumerate(hubs)}


def keys(root: str, hubs: list[str], hues: Mapping[str, str], num_sites: int) -> list[Artist]:
    """Make the legend: root, hubs by name while colours last, and what the sites look like."""
    found: list[Artist] = [Line2D([], [], color=INK, linewidth=3, label=_plain(root))]
    if len(hubs) <= len(HUES):
        found += [Line2D([], [], color=hues[path], linewidth=2, label=_plain(_below(path))) for path in hubs]
    else:
        found.append(Line2D([], [], color=BLUE, linewidth=2, alpha=0.6, label=f"{len(hubs):,} hubs"))
    if num_sites > SITE_LINES:
        found.append(Patch(color=GREY, alpha=0.22, linewidth=0, label=f"middle 80% of {num_sites:,} sites"))
    else:
        found.append(
            Line2D([], [], color=GREY, linewidth=1.1, linestyle=(0, (4, 2)), label="sites, in their hub's colour")
        )
    return found


def _collect(rows: Iterable[Mapping[str, Any]], metrics: Sequence[str]) -> _Data:
    data = _Data({name: {} for name in metrics})
    for row in rows:
        path = str(row["node"])
        data.paths[path] = None
        for name in metrics:
            value = finite(row.get(name))
            if value is not None:
                data.points[name].setdefault(path, []).append((int(row["round"]), value))
    return data


def _panel(axes: Axes, name: str, data: _Data, root: str, hubs: list[str], hues: Mapping[str, str], many: int) -> None:
    """Draw one metric: sites below, hubs above them, the root on top with its last value."""
    points = data.points[name]
    sites = [path for path in points if path != root and path not in hues]
    if len(sites) > SITE_LINES:
        _band(axes, [points[path] for path in sites])
    else:
        for path in sites:
            hue = hues.get(path.rpartition("/")[0], GREY)
            _line(axes, points[path], color=hue, alpha=0.6, linewidth=1.1, linestyle=(0, (4, 2)))
    for path in hubs:
        if path in points:
            _line(axes, points[path], color=hues[path], linewidth=2, alpha=1 if len(hubs) <= len(HUES) else 0.4)
    said_last = ""
    if root in points:
        _line(axes, points[root], color=INK, linewidth=3)
        at, value = points[root][-1]
        said_last = metric(value)
        axes.annotate(
            said_last,
            (at, value),
            (5, 0),
            textcoords="offset points",
            color=INK,
            size=SIZE,
            weight="bold",
            va="center",
        )
    tidy(axes)
    words = _TITLES.get(name) or short(spoken(name).capitalize())
    axes.set_title(words, loc="left", size=SIZE + 1, weight="bold", color=INK, pad=10)
    axes.set_xlabel("round", size=SIZE, color=GREY, loc="right", labelpad=1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.margins(x=0.02, y=0.08)
    first, last = axes.get_xlim()
    ticks = MaxNLocator(integer=True, nbins=6).tick_values(first, last)
    axes.set_xticks([tick for tick in ticks if first <= tick <= last and tick == int(tick)])
    axes.set_xlim(first, last + _ROOM * len(said_last) * many * (last - first))
    missing = data.undefined(name)
    if missing:
        said = f"undefined at {len(missing):,} of {len(data.paths):,} nodes"
        axes.text(0.0, _BELOW, said, transform=axes.transAxes, size=SIZE - 1, color=GREY, va="top")


def _line(axes: Axes, points: list[tuple[int, float]], **look: Any) -> None:
    """Draw one curve; a single round is a dot."""
    rounds, values = zip(*points, strict=True)
    axes.plot(rounds, values, marker="o" if len(points) == 1 else "", markersize=5, solid_capstyle="round", **look)


def _band(axes: Axes, lines: list[list[tuple[int, float]]]) -> None:
    """Draw the middle 80% of many sites in each round."""
    by_round: dict[int, list[float]] = {}
    for line in lines:
        for number, value in line:
            by_round.setdefault(number, []).append(value)
    rounds = sorted(by_round)
    low, high = np.array([np.percentile(by_round[number], (10, 90)) for number in rounds]).T
    axes.fill_between(rounds, low, high, color=GREY, alpha=0.22, linewidth=0)


def _below(path: str) -> str:
    """Name a hub below the root: `us`, `europe/hungary`."""
    return path.partition("/")[2]


def _plain(name: str) -> str:
    """Cut a long name, and keep it from being read as mathematics or as "no legend" by matplotlib."""
    return short(name).replace("$", r"\$").removeprefix("_") or name
