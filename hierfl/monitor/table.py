"""Metrics by node as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hierfl.learning.intervals import NUM_PATIENTS
from hierfl.learning.operating import THRESHOLD
from hierfl.monitor.words import count, figure, finite, interval

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["tabulate"]

_TABLES = ("confusion", "intervals", "reliability")
"""Of which `--json` tells."""
_ONLY_THERE = (NUM_PATIENTS, "num_left_out", "num_not_finite", "role", "held_out_", "personal_", THRESHOLD)
"""How those figures begin that stand only at nodes that have some; the others stand at every one."""


def tabulate(metrics: Mapping[str, Mapping[str, object]], width: int) -> Table:
    """Make a rich table of metrics by node path; the first metrics that fit into `width`, the others are named below.

    The nodes come first: their column is never narrower than half the width, and folds what is longer still. What has
    no test samples has no metrics, and says so.
    """
    from rich.table import Table

    names = dict.fromkeys(name for scalars in metrics.values() for name in scalars if name not in _TABLES)
    columns = {name: [_cell(scalars, name) for scalars in metrics.values()] for name in names}
    room = width - min(max(map(len, metrics), default=0), width // 2)
    shown = list(columns)
    while len(shown) > 1 and sum(_wide(name, columns[name]) for name in shown) > room:
        shown.pop()
    table = Table(box=None, pad_edge=False)
    table.add_column("node", overflow="fold")
    for name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    for path, *cells in zip(metrics, *(columns[name] for name in shown), strict=True):
        table.add_row(path, *cells)
    if rest := list(columns)[len(shown) :]:
        table.caption = f"no room for {', '.join(rest)}: --json has all"
        table.caption_justify = "left"
    return table


def _wide(name: str, cells: Sequence[str]) -> int:
    """Give a column's width with the gap before it."""
    return max(len(name), *map(len, cells)) + 2


def _cell(scalars: Mapping[str, object], name: str) -> str:
    """Write one figure of a node: a word as it is, a count, a metric, or why there is none."""
    value = scalars.get(name)
    if isinstance(value, str):
        return value
    number = finite(value)
    if number is not None:
        return count(value) if isinstance(value, int) else f"{figure(number, 4, below=1e6)}{interval(scalars, name)}"
    if name not in scalars and (name.startswith(_ONLY_THERE) or "num_test" not in scalars):
        return ""
    return "no tests" if scalars.get("num_test") == 0 else "undefined"
