"""Who worked when: a row per worker and hub, a bar per phase, and the idle time between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.patches import Patch
from matplotlib.transforms import blended_transform_factory

from hierfl.monitor.busy import PHASES, covered_s
from hierfl.monitor.pictures.rows import IDLE, by_number, draw_spans, unit_of
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
from hierfl.monitor.words import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Bar", "timeline"]

_HUES = {"load": SKY, "train": BLUE, "evaluate": ORANGE, "aggregate": PINK, "transfer": GREEN}
_MAX_WORKERS, _MAX_HUBS = 24, 12


@dataclass(frozen=True, slots=True)
class Bar:
    """One actor was busy with one phase from `start_s` to `end_s`."""

    actor: str
    phase: str
    start_s: float
    end_s: float


def timeline(bars: Sequence[Bar], workers: Sequence[str], commits: Sequence[tuple[int, float]] = ()) -> Figure:
    """Draw the bars, the `workers` first and hubs below; `commits` are (round, seconds) and drawn as lines.

    Errors: ValueError without a bar.
    """
    if not bars:
        raise ValueError("no phase was recorded")
    since = min(bar.start_s for bar in bars)
    until = max([bar.end_s for bar in bars] + [time_s for _, time_s in commits])
    rows, left_out = _rows(bars, workers)
    by_actor: dict[str, list[Bar]] = {actor: [] for actor in rows}
    for bar in bars:
        if bar.actor in by_actor:
            by_actor[bar.actor].append(bar)

    labels = max(width_in(actor) for actor in rows) + 0.4
    height = 1.95 + 0.36 * len(rows)
    made = figure(12, height)
    axes = made.add_axes((labels / 12, 0.95 / height, 1 - (labels + 0.75) / 12, 0.36 * len(rows) / height))
    scale, unit = unit_of(until - since)
    for place, actor in enumerate(rows):
        _draw_row(axes, place, by_actor[actor], (since, until), scale, is_worker=actor in workers)
    _draw_commits(axes, commits, scale)
    axes.set_xlim(since / scale, until / scale)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    tidy(axes)
    axes.grid(visible=False)
    axes.set_yticks(range(len(rows)), rows, color=INK, parse_math=False)
    axes.set_xlabel(f"{unit} since the start", size=SIZE, color=GREY, loc="right", labelpad=2)
    phases = {bar.phase for bar in bars}
    keys = [Patch(color=_HUES[name], label=name) for name in PHASES if name in phases]
    keys.append(Patch(color=IDLE, label="idle"))
    made.legend(
        handles=keys, loc="lower left", bbox_to_anchor=(0.012, 0), ncols=6, frameon=False, fontsize=SIZE, handlelength=1
    )
    heading(made, "Timeline", _under(bars, workers, until - since) + left_out)
    return made


def _rows(bars: Sequence[Bar], workers: Sequence[str]) -> tuple[list[str], str]:
    """Choose the rows: workers by number, then hubs by tier; say how many are left out."""
    hubs = sorted({bar.actor for bar in bars} - set(workers), key=lambda actor: (actor.count("/"), actor))
    mine = sorted(workers, key=by_number)
    more = len(mine[_MAX_WORKERS:]), len(hubs[_MAX_HUBS:])
    said = [f"{many:,} more {what}" for many, what in zip(more, ("workers", "hubs"), strict=True) if many]
    return mine[:_MAX_WORKERS] + hubs[:_MAX_HUBS], f" · not shown: {', '.join(said)}" if said else ""


def _draw_row(
    axes: Axes, place: int, bars: Sequence[Bar], span: tuple[float, float], scale: float, *, is_worker: bool
) -> None:
    """Draw one actor's bars; behind a worker's the idle time, beside them its busy fraction."""
    since, until = span
    if is_worker:
        axes.barh(place, (until - since) / scale, left=since / scale, height=0.62, color=IDLE, linewidth=0)
        share = covered_s((bar.start_s, bar.end_s) for bar in bars) / max(until - since, 1e-9)
        across = blended_transform_factory(axes.transAxes, axes.transData)
        axes.text(1.006, place, percent(share), transform=across, size=SIZE, color=GREY, va="center")
    else:
        axes.axhline(place, color=FAINT, linewidth=1, zorder=0)
    for phase, hue in _HUES.items():
        spans = [(bar.start_s, bar.end_s) for bar in bars if bar.phase == phase]
        draw_spans(axes, place, spans, hue, whole_s=until - since, scale=scale)


def _draw_commits(axes: Axes, commits: Sequence[tuple[int, float]], scale: float) -> None:
    """Draw a line where each round was committed, and number at most 20 of them."""
    every = 1 + (len(commits) - 1) // 20
    if len(commits) > 200:
        commits = commits[every - 1 :: every]
        every = 1
    across = blended_transform_factory(axes.transData, axes.transAxes)
    for place, (number, time_s) in enumerate(commits, start=1):
        axes.axvline(time_s / scale, color=INK, linewidth=0.8, alpha=0.55)
        if place % every == 0:
            axes.text(
                time_s / scale, 1.01, str(number), transform=across, size=SIZE - 1, color=GREY, ha="right", va="bottom"
            )
    if commits:
        axes.text(-0.005, 1.01, "round", transform=axes.transAxes, size=SIZE - 1, color=GREY, ha="right", va="bottom")


def _under(bars: Sequence[Bar], workers: Sequence[str], span_s: float) -> str:
    """Say how busy the workers were over the whole."""
    if not workers or span_s <= 0:
        return "no worker was recorded"
    spans: dict[str, list[tuple[float, float]]] = {worker: [] for worker in workers}
    for bar in bars:
        if bar.actor in spans:
            spans[bar.actor].append((bar.start_s, bar.end_s))
    share = sum(covered_s(found) for found in spans.values()) / (span_s * len(workers))
    return f"workers busy {percent(share)}, idle {percent(1 - share)}; grey is idle, a line ends each round"
