"""The federation tree from left to right: hubs with their members beside them, large trees summarised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from matplotlib.patches import PathPatch
from matplotlib.path import Path as Stroke

from hierfl.monitor.outline import Row, members_by_hub, outline, sites_below
from hierfl.monitor.pictures.boxes import Box, box_of, draw_box
from hierfl.monitor.pictures.style import figure, heading
from hierfl.monitor.words import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["tree"]

_ROWS, _SIBLINGS, _DEEPEST, _WIDEST = 34, 10, 8, 16.0
_GAP, _MARGIN, _TOP = 0.75, 0.25, 0.95


def tree(paths: Iterable[str], notes: Mapping[str, str] | None = None) -> Figure:
    """Draw the tree of `paths` (`world/us/cleveland`), with a second line of `notes` at the nodes that have one."""
    nodes = list(paths)
    members = members_by_hub(nodes)
    root = min(nodes, key=lambda path: path.count("/"))
    for depth in range(_DEEPEST, 0, -1):  # fewer tiers where all of them would be too wide to read
        rows = outline(members, root, rows=_ROWS, siblings=_SIBLINGS, depth=depth)
        boxes = [_box(row, members, notes or {}) for row in rows]
        parents = _parents(rows)
        _place(rows, boxes, parents)
        right = max(box.x + box.width for box in boxes)
        if right <= _WIDEST:
            break
    low = min(box.y - box.height / 2 for box in boxes)
    made = figure(max(right + 2 * _MARGIN, 7.0), _TOP - low + _MARGIN)
    width, height = made.get_size_inches()
    axes = made.add_axes((0, 0, 1, 1))
    axes.set_xlim(-_MARGIN, width - _MARGIN)
    axes.set_ylim(_TOP - height, _TOP)
    axes.axis("off")
    for box, above in zip(boxes, parents, strict=True):
        if above is not None:
            _draw_edge(axes, boxes[above], box)
    for box in boxes:
        draw_box(axes, box)
    num_sites = len(nodes) - len(members)
    counts = (plural(1 + max(path.count("/") for path in nodes), "tier"), f"{plural(len(members), 'hub')} (blue)")
    heading(made, f"Federation {root}", " · ".join((*counts, f"{plural(num_sites, 'site')} (yellow)")))
    return made


def _box(row: Row, members: Mapping[str, list[str]], notes: Mapping[str, str]) -> Box:
    """Make the box of one row of the outline, with the width that its text needs."""
    if row.hidden:
        hubs = sum(path in members for path in row.hidden)
        sites = len(sites_below(members, row.hidden))
        title = f"{len(row.hidden):,} more " + (
            "sites" if not hubs else "hubs" if hubs == len(row.hidden) else "members"
        )
        return box_of("more", title, f"{sites:,} sites" if hubs else "")
    kind = "root" if row.depth == 0 else "hub" if row.path in members else "site"
    return box_of(kind, row.name, notes.get(row.path, ""))


def _parents(rows: list[Row]) -> list[int | None]:
    """Find the place of each row's hub among the rows; None for the root."""
    at: list[int] = []
    found: list[int | None] = []
    for place, row in enumerate(rows):
        del at[row.depth :]
        found.append(at[-1] if at else None)
        at.append(place)
    return found


def _place(rows: list[Row], boxes: list[Box], parents: list[int | None]) -> None:
    """Set x by tier and y by leaf, the hubs at the middle of their members; the root's row stands at the top."""
    lefts = [0.0]
    for depth in range(max(row.depth for row in rows)):
        lefts.append(lefts[depth] + max(b.width for r, b in zip(rows, boxes, strict=True) if r.depth == depth) + _GAP)
    below: dict[int, list[float]] = {}
    step = max(box.height for box in boxes) + 0.14  # one for all, or a hub with a note would overlap the next
    y = -step / 2
    for place in range(len(rows)):
        boxes[place].x = lefts[rows[place].depth]
        is_leaf = place + 1 == len(rows) or rows[place + 1].depth <= rows[place].depth
        if is_leaf:
            boxes[place].y = y
            y -= step
    for place in range(len(rows) - 1, -1, -1):  # members stand after their hub
        if place in below:
            boxes[place].y = (min(below[place]) + max(below[place])) / 2
        above = parents[place]
        if above is not None:
            below.setdefault(above, []).append(boxes[place].y)


def _draw_edge(axes: Axes, hub: Box, member: Box) -> None:
    """Draw the curve from a hub's right to its member's left; all members' curves leave the column together."""
    start, end = (hub.x + hub.width, hub.y), (member.x, member.y)
    bend = (end[0] - _GAP / 2 + 0.05, end[0] - _GAP / 2)
    curve = [start, (end[0] - _GAP, hub.y), (bend[0], start[1]), (bend[1], end[1]), end]
    codes = [Stroke.MOVETO, Stroke.LINETO, Stroke.CURVE4, Stroke.CURVE4, Stroke.CURVE4]
    axes.add_patch(PathPatch(Stroke(curve, codes), fill=False, edgecolor="#9aa5b0", linewidth=1.5, zorder=1))
