"""Boxes of nodes, as all pictures of a tree draw them: hubs blue, sites yellow, what is left out dashed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.patches import FancyBboxPatch

from hierfl.monitor.pictures.style import BLUE, GREY, INK, ORANGE, SIZE, short, width_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Box", "box_of", "draw_box"]

_PAD, _LINE = 0.16, 0.22


@dataclass(slots=True)
class Box:
    """One node's box: left edge and middle, size, in inches; `kind` is root, hub, site or more."""

    kind: str
    title: str
    note: str
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0

    @property
    def height(self) -> float:
        """The height that its lines need."""
        return _LINE * (2 if self.note else 1) + _PAD


_LOOK: dict[str, dict[str, Any]] = {
    "root": {"facecolor": "#12344d", "edgecolor": "#12344d"},
    "hub": {"facecolor": "#e3eff8", "edgecolor": BLUE},
    "site": {"facecolor": "#fdf4e0", "edgecolor": ORANGE},
    "more": {"facecolor": "white", "edgecolor": "#aab2ba", "linestyle": (0, (4, 3))},
}


def box_of(kind: str, name: str, note: str = "") -> Box:
    """Make a node's box, with the width that its text needs."""
    box = Box(kind, short(name), note)
    box.width = max(width_in(box.title, SIZE, bold=True), width_in(note, SIZE - 1.5), 0.5) + 2 * _PAD
    return box


def draw_box(axes: Axes, box: Box) -> None:
    """Draw one box with its name and note."""
    corner = (box.x, box.y - box.height / 2)
    shape = "round,pad=0,rounding_size=0.09"
    patch = FancyBboxPatch(corner, box.width, box.height, boxstyle=shape, linewidth=1.4, zorder=2, **_LOOK[box.kind])
    axes.add_patch(patch)
    title, note = ("white", "#c9d6e0") if box.kind == "root" else (GREY if box.kind == "more" else INK, GREY)
    left, lift = box.x + _PAD, _LINE / 2 if box.note else 0.0
    weight = "normal" if box.kind == "more" else "bold"
    axes.text(left, box.y + lift, box.title, size=SIZE, weight=weight, color=title, va="center", parse_math=False)
    if box.note:
        axes.text(left, box.y - lift, box.note, size=SIZE - 1.5, color=note, va="center", parse_math=False)
