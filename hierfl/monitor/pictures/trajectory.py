"""The model's way in a round: at a star it goes to all members and is mixed of what they send, in a cycle it travels.
Without a centre members mix what others send, before the hub has a model again.

Compare Rieke et al. 2020, Fig. 2 e-g.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from hierfl.monitor.pictures.boxes import Box, box_of, draw_box
from hierfl.monitor.pictures.style import GREY, figure, heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["trajectory"]

_HUBS, _SHOWN = 8, 5
_GAP, _STEP, _BAND, _MARGIN, _TOP = 0.7, 0.5, 0.3, 0.25, 0.95


def trajectory(
    trained: Mapping[str, Sequence[str]],
    in_turn: Collection[str],
    mixed: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
) -> Figure:
    """Draw a band for each hub, of the first few. `trained`: by hub's path the names of the members whose updates were
    in its last round, as they came; `in_turn`: the hubs whose members trained one after another; `mixed`: by hub
    without a centre at which members whose updates were mixed.
    """
    shown = list(trained)[:_HUBS]
    bands: list[tuple[list[Box], list[tuple[Box, Box]]]] = []
    top = 0.0
    for path in shown:
        boxes, arrows, low = _band(path, trained, path in in_turn, top)
        if mixed and path in mixed:
            boxes, arrows = _exchange(boxes, mixed[path])
        bands.append((boxes, arrows))
        top = low - _BAND
    right = max(box.x + box.width for boxes, _ in bands for box in boxes)
    made = figure(max(right + 2 * _MARGIN, 7.0), _TOP - top)
    width, height = made.get_size_inches()
    axes = made.add_axes((0, 0, 1, 1))
    axes.set_xlim(-_MARGIN, width - _MARGIN)
    axes.set_ylim(_TOP - height, _TOP)
    axes.axis("off")
    for boxes, arrows in bands:
        for start, end in arrows:
            _draw_arrow(axes, start, end)
        for box in boxes:
            draw_box(axes, box)
    left_out = len(trained) - len(shown)
    more = f" · not shown: {left_out:,} more hubs" if left_out else ""
    heading(made, "The model's way in the last round", f"from a hub to its members and back to it, hub by hub{more}")
    return made


def _band(
    path: str, trained: Mapping[str, Sequence[str]], in_turn: bool, top: float
) -> tuple[list[Box], list[tuple[Box, Box]], float]:
    """Place the boxes of one hub below `top`; give them, who goes on from whom, and where the next band begins."""
    names = trained[path]
    members = [box_of("hub" if f"{path}/{name}" in trained else "site", name) for name in _ends(names, in_turn)]
    if len(names) > _SHOWN:
        members.insert(-1 if in_turn else len(members), box_of("more", f"{len(names) - len(members):,} more"))
    kind = "root" if "/" not in path else "hub"
    first, last = box_of(kind, path.rpartition("/")[2]), box_of(kind, path.rpartition("/")[2])
    depth = 1 if in_turn else max(1, len(members))
    first.y = last.y = top - _STEP * depth / 2
    x = first.width + _GAP
    for place, box in enumerate(members):
        box.x, box.y = x, first.y if in_turn else top - _STEP * (place + 0.5)
        x += box.width + _GAP if in_turn else 0.0
    last.x = x if in_turn else x + max((box.width for box in members), default=0.0) + _GAP
    boxes = [first, *members, last]
    arrows = list(pairwise(boxes)) if in_turn else []
    if not in_turn:
        arrows = [pair for box in members for pair in ((first, box), (box, last))]
    return boxes, arrows, top - _STEP * depth


def _exchange(band: list[Box], mixed: Mapping[str, Sequence[str]]) -> tuple[list[Box], list[tuple[Box, Box]]]:
    """Put those who mix between the members of a band and its hub; give the boxes, and who goes on from whom."""
    first, *members, last = band
    shown = {box.title: box for box in members}
    own = {name: shown.get(box_of("", name).title) for name in {*mixed, *chain.from_iterable(mixed.values())}}
    mixers = {at: replace(own[at] or box_of("site", at)) for at in mixed if own[at] is not None or len(mixed) == 1}
    for box in mixers.values():
        box.x, box.y = last.x, box.y or last.y
    last.x += max((box.width for box in mixers.values()), default=0.0) + _GAP
    sent = [(start, box) for at, box in mixers.items() for name in mixed[at] if (start := own[name]) is not None]
    arrows = [*((first, box) for box in members), *sent, *((box, last) for box in mixers.values())]
    return [first, *members, *mixers.values(), last], arrows


def _ends(names: Sequence[str], in_turn: bool) -> list[str]:
    """Take the members that there is room for; of a cycle the last one, too."""
    if len(names) <= _SHOWN:
        return list(names)
    return [*names[: _SHOWN - 2], names[-1]] if in_turn else list(names[: _SHOWN - 1])


def _draw_arrow(axes: Axes, start: Box, end: Box) -> None:
    """Draw an arrow from one box's right to another's left."""
    tail, head = (start.x + start.width, start.y), (end.x, end.y)
    axes.annotate("", head, tail, arrowprops={"arrowstyle": "-|>", "color": GREY, "linewidth": 1.3, "shrinkB": 0})
