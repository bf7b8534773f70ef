"""How far predicted probabilities can be believed: the curves of the root, the hubs and the sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hierfl.monitor.outline import members_by_hub
from hierfl.monitor.pictures.curves import SITE_LINES, hues_of, keys
from hierfl.monitor.pictures.style import BLUE, GREY, HUES, INK, SIZE, figure, heading, legend, tidy
from hierfl.monitor.words import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["reliability"]


def reliability(nodes: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw the last measured `reliability` of every node by path; beside it, on how many predictions the root's stands.

    Many sites are not drawn one by one. Errors: ValueError where no node has a curve.
    """
    found = {path: scalars["reliability"] for path, scalars in nodes.items() if scalars.get("reliability")}
    if not found:
        raise ValueError("no node has a reliability curve")
    members = members_by_hub(nodes)
    root = min(nodes, key=lambda path: path.count("/"))
    hubs = [path for path in nodes if path in members and path != root]
    sites = [path for path in nodes if path not in members]
    hues = hues_of(hubs)
    made = figure(12, 5.6)
    axes, beside = made.add_axes((0.06, 0.2, 0.42, 0.58)), made.add_axes((0.56, 0.2, 0.4, 0.58))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, zorder=1)
    for path in sites if len(sites) <= SITE_LINES else ():
        look = {"color": hues.get(path.rpartition("/")[0], GREY), "alpha": 0.6, "linestyle": (0, (4, 2))}
        _line(axes, found.get(path, ()), linewidth=1.1, markersize=3, **look)
    for path in hubs:
        _line(axes, found.get(path, ()), color=hues.get(path, BLUE), linewidth=2, markersize=4)
    _line(axes, found.get(root, ()), color=INK, linewidth=3, markersize=6)
    _bars(beside, found.get(root, ()))
    for each, what in ((axes, "share that came true"), (beside, "predictions at the root")):
        tidy(each)
        each.set_xlim(-0.02, 1.02)
        each.set_title(what, loc="left", size=SIZE + 1, weight="bold", color=INK, pad=10)
        each.set_xlabel("predicted probability", size=SIZE, color=GREY, loc="right", labelpad=1)
    axes.set_ylim(-0.02, 1.02)
    told = keys(root, hubs, hues, len(sites))
    told = told[:-1] if len(sites) > SITE_LINES else told
    legend(made, told, across=len(HUES))
    heading(made, "Calibration", "on the grey line what is predicted with 70% comes true 7 times of 10")
    return made


def _line(axes: Axes, rows: Sequence[Sequence[float]], **look: Any) -> None:
    """Draw one curve through the bins that have samples, at their mean probability."""
    if rows:
        axes.plot([row[2] for row in rows], [row[1] / row[0] for row in rows], marker="o", **look)


def _bars(axes: Axes, rows: Sequence[Sequence[float]]) -> None:
    """Draw the number of each bin, at their mean probability."""
    axes.bar([row[2] for row in rows], [row[0] for row in rows], width=0.03, color=BLUE)
    for number, _, mean in rows:
        axes.annotate(count(number), (mean, number), (0, 3), textcoords="offset points", ha="center", size=SIZE - 2)
