"""How numbers are spread over the agreed ranges: the root bold, hubs in colour, sites light in their hub's colour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hierfl.monitor.outline import members_by_hub
from hierfl.monitor.pictures.curves import SITE_LINES, hues_of, keys
from hierfl.monitor.pictures.style import BLUE, GREY, INK, SIZE, figure, heading, legend, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["histograms"]

_IN_A_ROW = 3
_MOST = 12
"""Columns that are drawn; the file has all."""


def histograms(nodes: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw a panel for each column that has a histogram at the root, of `statistics.json`'s nodes by path: the share of
    a node's values in each bin; what is beyond the range is left out.

    Errors: ValueError where no column has one.
    """
    root = next(iter(nodes), "")
    whole = nodes[root]["columns"] if nodes else {}
    every = [name for name, column in whole.items() if column.get("histogram")]
    if not every:
        raise ValueError("no column has a histogram")
    names = every[:_MOST]
    members = members_by_hub(nodes)
    hubs = [path for path in nodes if path in members and path != root]
    sites = [path for path in nodes if path not in members]
    hues, light = hues_of(hubs), {"alpha": 0.6, "linewidth": 1.1, "linestyle": (0, (4, 2))}
    rows = -(-len(names) // _IN_A_ROW)
    height = 1.6 + 2.6 * rows
    made = figure(12, height)
    for place, name in enumerate(names):
        row, column = divmod(place, _IN_A_ROW)
        axes = made.add_axes((0.05 + 0.32 * column, 1 - (3.2 + 2.6 * row) / height, 0.27, 1.75 / height))
        for path in sites if len(sites) <= SITE_LINES else ():
            _steps(axes, nodes[path], name, color=hues.get(path.rpartition("/")[0], GREY), **light)
        for path in hubs:
            _steps(axes, nodes[path], name, color=hues.get(path, BLUE), linewidth=1.6)
        _steps(axes, nodes[root], name, color=INK, linewidth=2.4)
        tidy(axes)
        axes.set_ylim(bottom=0)
        axes.set_title(name, loc="left", size=SIZE + 1, weight="bold", color=INK, parse_math=False)
    told = keys(root, hubs, hues, len(sites))
    told = told[:-1] if len(sites) > SITE_LINES else told
    legend(made, told, bottom=0.0)
    what = f"; the first {_MOST} of {len(every)} columns" if len(every) > _MOST else ""
    heading(made, "Numbers by site", f"the share of a node's values in each bin of the agreed range{what}")
    return made


def _steps(axes: Axes, node: Mapping[str, Any], name: str, **look: Any) -> None:
    """Draw one node's histogram, if it has any."""
    found = node["columns"].get(name, {})
    histogram, there = found.get("histogram"), found.get("count")
    if histogram and there:
        shares = [number / there for number in histogram["counts"][1:-1]]
        axes.stairs(shares, histogram["edges"], **look)
