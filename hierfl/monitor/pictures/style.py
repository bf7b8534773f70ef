"""One look for all pictures. Colours are Okabe and Ito's (2008), which colour-blind readers can tell apart."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

__all__ = ["BLUE", "FAINT", "GREY", "HUES", "INK", "SIZE", "figure", "heading", "legend", "png", "tidy", "width_in"]

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
_MEASURE = TextToPath()


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
    """Put a legend at the bottom left, `across` entries side by side at most."""
    look: dict[str, Any] = {"frameon": False, "fontsize": SIZE, "labelcolor": INK, "handlelength": 1.8}
    columns: dict[str, Any] = {"ncols": min(len(told), across), "columnspacing": 1.6}
    made.legend(handles=told, loc="lower left", bbox_to_anchor=(0.012, bottom), **columns, **look)


def tidy(axes: Axes) -> None:
    """Take away the box, keep a light grid and quiet ticks."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.grid(axis="y", color=FAINT, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SIZE, labelcolor=GREY, color=GREY, length=3)
    axes.tick_params(axis="y", length=0)


def width_in(text: str, size: float = SIZE, *, bold: bool = False) -> float:
    """Measure a text's width in inches."""
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    return float(_MEASURE.get_text_width_height_descent(text, font, ismath=False)[0]) / 72


def png(made: Figure) -> bytes:
    """Draw a figure as PNG, at 150 dots per inch."""
    out = io.BytesIO()
    made.savefig(out, format="png", dpi=_DPI)
    return out.getvalue()
