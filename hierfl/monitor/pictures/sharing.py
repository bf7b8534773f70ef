"""Who had which device when: a row per device, a colour per run, and the idle time between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.patches import Patch
from matplotlib.transforms import blended_transform_factory

from hierfl.monitor.pictures.rows import IDLE, by_number, draw_spans, title, unit_of
from hierfl.monitor.pictures.style import GREY, HUES, INK, SIZE, figure, heading, tidy, width_in
from hierfl.monitor.words import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["sharing"]

_MAX_DEVICES = 32


def sharing(
    calls: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    busy: Mapping[str, float],
    wanted: Mapping[str, Sequence[tuple[float, float]]],
    under: str,
) -> Figure:
    """Draw the calls by run and device; `busy`: fraction by device; `wanted`: when a device was wanted, else white.

    Seconds of all are on one clock; the picture begins when a device is first wanted.
    """
    since, until = min(spans[0][0] for spans in wanted.values()), max(spans[-1][1] for spans in wanted.values())
    devices = sorted(busy, key=by_number)
    rows, left_out = devices[:_MAX_DEVICES], len(devices[_MAX_DEVICES:])
    labels = max(width_in(title(device)) for device in rows) + 0.4
    height = 1.95 + 0.36 * len(rows)
    made = figure(12, height)
    axes = made.add_axes((labels / 12, 0.95 / height, 1 - (labels + 0.75) / 12, 0.36 * len(rows) / height))
    scale, unit = unit_of(until - since)
    hues = {run: HUES[number % len(HUES)] for number, run in enumerate(calls)}
    across = blended_transform_factory(axes.transAxes, axes.transData)
    whole_s = until - since
    for place, device in enumerate(rows):
        for hue, spans in [(IDLE, wanted[device]), *((hues[run], own.get(device, ())) for run, own in calls.items())]:
            moved = [(start - since, end - since) for start, end in spans]
            draw_spans(axes, place, moved, hue, whole_s=whole_s, scale=scale)
        axes.text(1.006, place, percent(busy[device]), transform=across, size=SIZE, color=GREY, va="center")
    axes.set_xlim(0.0, whole_s / scale)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    tidy(axes)
    axes.grid(visible=False)
    axes.set_yticks(range(len(rows)), [title(device) for device in rows], color=INK, parse_math=False)
    axes.set_xlabel(f"{unit} since the first round", size=SIZE, color=GREY, loc="right", labelpad=2)
    keys = [Patch(color=hue, label=run) for run, hue in hues.items()] + [Patch(color=IDLE, label="idle")]
    made.legend(
        handles=keys, loc="lower left", bbox_to_anchor=(0.012, 0), ncols=6, frameon=False, fontsize=SIZE, handlelength=1
    )
    heading(made, "Devices", under + (f" · not shown: {left_out:,} more devices" if left_out else ""))
    return made
