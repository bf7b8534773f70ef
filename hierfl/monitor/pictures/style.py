"""One look for all pictures. Colours are Okabe and Ito's (2008), which colour-blind readers can tell apart."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.text import Text
from matplotlib.textpath import TextToPath

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

__all__ = [
    "BLUE",
    "FAINT",
    "GREY",
    "HUES",
    "INK",
    "SIZE",
    "figure",
    "heading",
    "legend",
    "png",
    "short",
    "tidy",
    "width_in",
]

INK, GREY, FAINT = "#1b1f24", "#66707b", "#e8ebee"
BLUE, SKY, GREEN, ORANGE, RED, PINK, YELLOW = (
    "#0072B2",
    "#56B4E9",
    "#009E73",
    "#E69F00",
    "#D55E00",
    "#CC79A7",
    "#B8A800",
)
HUES = (BLUE, RED, GREEN, PINK, ORANGE, SKY, YELLOW)
"""For categories, in this order; the yellow is darkened so that a line of it can be seen on white."""

SIZE = 11
"""Text size in points: 15 pixels in a picture 12 inches wide shown at 1200 pixels."""

_DPI = 150
_HANDLE = 0.65
"""Inches that an entry of a legend takes beside its text."""

_MEASURE = TextToPath()

_OTHER_SCRIPTS = (
    *("Noto Sans CJK", "Source Han Sans", "WenQuanYi", "Droid Sans Fallback", "IPAexGothic", "IPAGothic"),
    *("Nanum Gothic", "Hiragino Sans", "PingFang", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Microsoft YaHei", "Yu Gothic", "MS Gothic", "Malgun Gothic", "SimHei"),
)
"""How fonts are called that have Chinese, Japanese or Korean letters, of which matplotlib's own has none."""


def figure(width: float, height: float) -> Figure:
    """Make an empty white figure of `width` x `height` inches, with no tie to a display."""
    made = Figure(figsize=(width, height), dpi=100, facecolor="white")
    FigureCanvasAgg(made)
    return made


def heading(made: Figure, text: str, under: str = "") -> None:
    """Put a title at the top left, and a line of explanation under it."""
    width, height = made.get_size_inches()
    left = 0.25 / width
    made.text(left, 1 - 0.18 / height, text, size=SIZE + 4, weight="bold", color=INK, va="top", parse_math=False)
    if under:
        made.text(left, 1 - 0.52 / height, under, size=SIZE, color=GREY, va="top", parse_math=False)


def legend(made: Figure, told: Sequence[Artist], across: int = 6, bottom: float = 0.005) -> None:
    """Put a legend at the bottom left, `across` entries side by side at most, and no more than there is room for."""
    look: dict[str, Any] = {"frameon": False, "fontsize": SIZE, "labelcolor": INK, "handlelength": 1.8}
    widths = [width_in(str(artist.get_label())) + _HANDLE for artist in told]
    room = float(made.get_size_inches()[0]) - 0.3
    fitting = (many for many in range(min(len(told), across), 1, -1) if _width(widths, many) <= room)
    columns: dict[str, Any] = {"ncols": next(fitting, 1), "columnspacing": 1.6}
    made.legend(handles=told, loc="lower left", bbox_to_anchor=(0.012, bottom), **columns, **look)


def _width(widths: Sequence[float], columns: int) -> float:
    """Add up the widest entries of a legend's columns, which are filled from the left and differ by one entry."""
    return float(sum(part.max() for part in np.array_split(np.array(widths), columns)))


def tidy(axes: Axes) -> None:
    """Take away the box, keep a light grid and quiet ticks."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.grid(axis="y", color=FAINT, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SIZE, labelcolor=GREY, color=GREY, length=3)
    axes.tick_params(axis="y", length=0)


def short(name: str, most: int = 28) -> str:
    """Cut a name of more than `most` letters in its middle: both ends tell siblings apart."""
    half = most // 2
    return name if len(name) <= most else f"{name[:half]}…{name[1 - half :]}"


def width_in(text: str, size: float = SIZE, *, bold: bool = False) -> float:
    """Measure a text's width in inches."""
    font = FontProperties(family=_families(FontProperties()), size=size, weight="bold" if bold else "normal")
    return float(_MEASURE.get_text_width_height_descent(text, font, ismath=False)[0]) / 72


def png(made: Figure) -> bytes:
    """Draw a figure as PNG, at 150 dots per inch; letters that the usual font lacks in another that is installed."""
    for text in made.findobj(Text):
        if not text.get_text().isascii():
            text.set_fontfamily(_families(text.get_fontproperties()))
    out = io.BytesIO()
    made.savefig(out, format="png", dpi=_DPI)
    return out.getvalue()


def _families(font: FontProperties) -> list[str]:
    """Name the font's families, and behind them the installed ones that have other scripts."""
    return [*font.get_family(), *_installed(_OTHER_SCRIPTS)]


@cache
def _installed(starts: tuple[str, ...]) -> tuple[str, ...]:
    """Name the installed families whose names start with one of these; hundreds are looked through."""
    return tuple(sorted({entry.name for entry in fontManager.ttflist if entry.name.startswith(starts)}))
