"""Who worked when: a row per device and hub, a bar per phase, and between them waiting, or nothing to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.patches import Patch
from matplotlib.transforms import blended_transform_factory

from hierfl.monitor.busy import PHASES, without
from hierfl.monitor.pictures.rows import IDLE, by_number, draw_spans, title, unit_of
from hierfl.monitor.pictures.style import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PINK,
    SIZE,
    SKY,
    figure,
    heading,
    tidy,
    width_in,
)
from hierfl.monitor.tape import Bar, Tape
from hierfl.monitor.words import percent, plural
from scheduler.eventlog import merge, union_s

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["timeline"]

_HUES = {"train": BLUE, "evaluate": ORANGE, "aggregate": PINK, "transfer": GREEN, "load": SKY}
"""In the order in which they are drawn: loading within a training lies on it."""

_WORDS = {
    "load": "loading",
    "train": "training",
    "evaluate": "measuring",
    "aggregate": "aggregating",
    "transfer": "handing up",
}
_WAITING, _FREE = "#f3dcb0", "#ffffff"
_MAX_DEVICES, _MAX_HUBS = 24, 12
_MOST_LINES = 200
"""Rounds that each have a line at their end."""

_LABELS = 21
"""Numbers of rounds that stand beside each other at most."""

_LANE, _MAX_LANES = 0.3, 8
"""The height of a worker's lane where several share a device, and how many lanes a row grows by."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A device with its workers, or a hub: `place` is its middle, `half` its half height."""

    name: str
    actors: tuple[str, ...]
    is_device: bool
    place: float
    half: float


@dataclass(frozen=True, slots=True)
class _Frame:
    """What all rows of a picture have in common."""

    since: float
    until: float
    scale: float
    open: Sequence[tuple[float, float]]

    @property
    def whole_s(self) -> float:
        return self.until - self.since


def timeline(tape: Tape) -> Figure:
    """Draw a tape, the devices first and hubs below; a line ends each round.

    Workers that share a device have a lane each in its row. A device that is free while a round or a measurement is
    open waits; otherwise there is nothing to do.

    Errors: ValueError without a bar.
    """
    if not tape.bars:
        raise ValueError("no phase was recorded")
    since = min(bar.start_s for bar in tape.bars)
    commits = [commit for commit in tape.commits if commit[1] >= since]
    until = max([bar.end_s for bar in tape.bars] + [time_s for _, time_s in commits])
    rows, left_out = _rows(tape)
    labels = max(width_in(title(row.name)) for row in rows) + 0.4
    deep = rows[-1].place + rows[-1].half + 0.19
    height = 1.95 + 0.36 * deep
    made = figure(12, height)
    axes = made.add_axes((labels / 12, 0.95 / height, 1 - (labels + 0.75) / 12, 0.36 * deep / height))
    scale, unit = unit_of(until - since)
    frame = _Frame(since, until, scale, [(max(a, since), min(b, until)) for a, b in merge(tape.open) if b > since])
    by_actor: dict[str, list[Bar]] = {}
    for bar in tape.bars:
        by_actor.setdefault(bar.actor, []).append(bar)
    shares = [share for row in rows if (share := _draw_row(axes, row, by_actor, frame)) is not None]
    _draw_commits(axes, commits, frame)
    axes.set_xlim(since / scale, until / scale)
    axes.set_ylim(deep, 0.0)
    tidy(axes)
    axes.grid(visible=False)
    axes.set_yticks([row.place for row in rows], [title(row.name) for row in rows], color=INK, parse_math=False)
    axes.set_xlabel(f"{unit} since the start", size=SIZE, color=GREY, loc="right", labelpad=2)
    phases = {bar.phase for bar in tape.bars}
    keys = [Patch(color=_HUES[name], label=_WORDS[name]) for name in PHASES if name in phases]
    keys += [Patch(color=_WAITING, label="waiting"), Patch(color=IDLE, label="nothing to do")]
    made.legend(
        handles=keys, loc="lower left", bbox_to_anchor=(0.012, 0), ncols=7, frameon=False, fontsize=SIZE, handlelength=1
    )
    of = f" of the last {plural(len(commits), 'round')}" if tape.is_cut else ""
    heading(made, f"Timeline{of}", _under(shares, are_all=len(commits) <= _MOST_LINES) + left_out)
    return made


def _rows(tape: Tape) -> tuple[list[_Row], str]:
    """Choose the rows: devices by number, then hubs by tier; say how many are left out."""
    hubs = sorted({bar.actor for bar in tape.bars} - set(tape.devices), key=lambda actor: (actor.count("/"), actor))
    workers: dict[str, list[str]] = {}
    for worker in sorted(tape.devices, key=by_number):
        workers.setdefault(tape.devices[worker], []).append(worker)
    mine = sorted(workers, key=by_number)
    more = len(mine[_MAX_DEVICES:]), len(hubs[_MAX_HUBS:])
    said = [f"{many:,} more {what}" for many, what in zip(more, ("devices", "hubs"), strict=True) if many]
    rows, top = [], 0.0
    for name in mine[:_MAX_DEVICES] + hubs[:_MAX_HUBS]:
        actors = tuple(workers.get(name, (name,)))
        high = max(0.62, _LANE * min(len(actors), _MAX_LANES))
        rows.append(_Row(name, actors, name in workers, top + 0.19 + high / 2, high / 2))
        top += high + 0.38
    return rows, f" · not shown: {', '.join(said)}" if said else ""


def _draw_row(axes: Axes, row: _Row, bars: Mapping[str, Sequence[Bar]], frame: _Frame) -> tuple[float, float] | None:
    """Draw a row; behind a device's bars its idle time. Return a device's fractions of the whole, busy and waiting."""
    whole_s, shares = frame.whole_s, None
    if row.is_device:
        busy = merge((bar.start_s, bar.end_s) for actor in row.actors for bar in bars.get(actor, ()))
        waiting = without(frame.open, busy)
        shared = busy if len(row.actors) > 1 else []  # a place that is free beside others is no idle device
        for hue, spans in ((IDLE, [(frame.since, frame.until)]), (_WAITING, waiting), (_FREE, shared)):
            draw_spans(axes, row.place, spans, hue, whole_s=whole_s, scale=frame.scale, half=row.half)
        shares = union_s(busy) / max(whole_s, 1e-9), union_s(waiting) / max(whole_s, 1e-9)
        across = blended_transform_factory(axes.transAxes, axes.transData)
        axes.text(1.006, row.place, percent(shares[0]), transform=across, size=SIZE, color=GREY, va="center")
    else:
        axes.axhline(row.place, color=FAINT, linewidth=1, zorder=0)
    half = row.half / len(row.actors)
    for number, actor in enumerate(row.actors):
        place = row.place - row.half + (2 * number + 1) * half
        for phase, hue in _HUES.items():
            spans = [(bar.start_s, bar.end_s) for bar in bars.get(actor, ()) if bar.phase == phase]
            draw_spans(axes, place, spans, hue, whole_s=whole_s, scale=frame.scale, half=half)
    return shares


def _draw_commits(axes: Axes, commits: Sequence[tuple[int, float]], frame: _Frame) -> None:
    """Draw a line where each round was committed, of many where some were; number those that there is room for."""
    every = 1 + (len(commits) - 1) // 20
    shown, least_s, last_s = _shown(commits), frame.whole_s / _LABELS, frame.since
    across = blended_transform_factory(axes.transData, axes.transAxes)
    for place, (number, time_s) in enumerate(shown, start=1):
        at = time_s / frame.scale
        axes.axvline(at, color=INK, linewidth=0.8, alpha=0.55)
        if (place % every == 0 or len(shown) < len(commits)) and time_s - last_s >= least_s:
            axes.text(at, 1.01, str(number), transform=across, size=SIZE - 1, color=GREY, ha="right", va="bottom")
            last_s = time_s
    if commits:
        axes.text(-0.005, 1.01, "round", transform=axes.transAxes, size=SIZE - 1, color=GREY, ha="right", va="bottom")


def _shown(commits: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    """Choose some 20 of many rounds."""
    every = 1 + (len(commits) - 1) // 20
    return commits[every - 1 :: every] if len(commits) > _MOST_LINES else commits


def _under(shares: Sequence[tuple[float, float]], *, are_all: bool) -> str:
    """Say how busy the devices were over the whole."""
    if not shares:
        return "no device was recorded"
    busy, waiting = (sum(share) / len(shares) for share in zip(*shares, strict=True))
    return (
        f"devices busy {percent(busy)}, waiting {percent(waiting)}, nothing to do {percent(1 - busy - waiting)};"
        f" {'a line ends each round' if are_all else 'lines end some of the rounds'}"
    )
