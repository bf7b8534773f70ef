"""The run live at a terminal: the tree with state and metrics, progress, idle figure, notices; a table at the end."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hierfl.learning.own_metrics import own_among
from hierfl.monitor.board import Board
from hierfl.monitor.consensus import consensus
from hierfl.monitor.outline import Row
from hierfl.monitor.plain import closing_lines
from hierfl.monitor.records import Notice, Record, Scalars
from hierfl.monitor.words import UNDEFINED, WHY_UNDEFINED, count, metric, percent, plural, seconds, spoken

if TYPE_CHECKING:
    from hierfl.config.schema import RunConfig

__all__ = ["REFRESH_PER_SECOND", "Terminal"]

REFRESH_PER_SECOND = 6
_MAX_ROWS = 40
_NOTICE_LINES = 12
_MIN_ROWS = 5
_BESIDE_ROWS = 10
"""Lines of the screen that are not the tree: heading, progress, notices."""

_STYLES = {
    "waiting": "dim",
    "training": "cyan",
    "late": "yellow",
    "aggregating": "magenta",
    "evaluating": "blue",
    "trained": "green",
    "done": "green",
    "skipped": "yellow",
    "failed": "bold red",
}
_STATE_WIDTH = 11
_OWN_WIDTHS = 8, 20
"""Least and most letters of a column of a task's own metric."""
_BESIDE = 9
"""Letters of a closing line's first column."""
_LEVELS = {"info": "dim", "warning": "yellow", "error": "bold red"}


@dataclass(frozen=True, slots=True)
class _Column:
    """One column of the tree's table: heading, what it shows of a node's metrics, letters, and from what width on."""

    title: str
    key: str
    width: int
    at_least: int = 0


_TRAIN = _Column("train", "num_train", 9, 76)
_TEST = _Column("test", "num_test", 9, 88)
_AUC = _Column("AUC", "auc", 6)
_ACCURACY = _Column("accuracy", "accuracy", 8, 50)
_LOSS = _Column("loss", "loss", 8, 64)


class Terminal:
    """Draws the run a few times a second in a thread of its own; `on` only notes what happened."""

    def __init__(self, config: RunConfig, console: Console) -> None:
        self._config = config
        self._console = console
        self._board = Board(config.federation)
        self._lock = Lock()
        self._since = time.monotonic()
        self._live = Live(
            get_renderable=self._screen,
            console=console,
            refresh_per_second=REFRESH_PER_SECOND,
            transient=True,
        )
        self._closed = False
        self._live.start()

    def on(self, record: Record) -> None:
        """Note one record; the next drawing shows it."""
        with self._lock:
            self._board.on(record)

    def close(self) -> None:
        """Take the live screen away and leave the final table and lines."""
        if self._closed:
            return
        self._closed = True
        self._live.stop()
        self._console.print(self._final())
        for place, line in enumerate(self._closing()):
            text = Text(_broken(line, self._console.width), style="bold" if place == 0 else "")
            self._console.print(text, soft_wrap=True)

    def _screen(self) -> RenderableType:
        """Draw the run as it stands."""
        with self._lock:
            width, height = self._console.size
            rows = self._board.rows(max(_MIN_ROWS, min(_MAX_ROWS, height - _BESIDE_ROWS)))
            parts: list[RenderableType] = [self._heading(), self._tree(rows, width, final=False)]
            if any(_undefined(self._board, row) for row in rows):
                parts.append(Text(WHY_UNDEFINED, style="dim"))
            parts += [self._progress(width), self._workers()]
            parts += [_notice(record, one_line=True) for record in self._board.notices]
            return Group(*parts)

    def _final(self) -> RenderableType:
        """Draw what stays: heading, table, warnings."""
        board = self._board
        rows = board.rows(_MAX_ROWS)
        parts: list[RenderableType] = []
        if board.started is not None:
            parts += [self._heading(), self._tree(rows, self._console.width, final=True)]
            if any(_undefined(board, row) for row in rows):
                parts.append(Text(WHY_UNDEFINED, style="dim"))
        if board.num_warnings > len(board.warnings):
            parts.append(Text(f"{board.num_warnings:,} warnings, the last {len(board.warnings)}:", style="yellow"))
        parts += [_notice(record) for record in board.warnings]
        return Group(*parts)

    def _closing(self) -> list[str]:
        """Say how the run ended and where it is."""
        board = self._board
        status = board.ended.status if board.ended else f"cut off after {board.committed} of {board.rounds} rounds"
        run_dir = board.started.run_dir if board.started else board.summary().get("run_dir", "")
        return closing_lines(status, board.summary(), run_dir)

    def _heading(self) -> Text:
        """Name the run and say what it runs on."""
        started = self._board.started
        text = Text(self._config.name, style="bold")
        if started is None:
            return text.append(f"  starting ... {seconds(time.monotonic() - self._since)}", style="not bold dim")
        facts = f"  {plural(self._board.num_sites, 'site')} · {plural(started.num_parameters, 'parameter')}"
        return text.append(
            f"{facts} · {plural(len(started.workers), 'worker')} ({started.runtime})", style="not bold dim"
        )

    def _tree(self, rows: Sequence[Row], width: int, *, final: bool) -> Group:
        """Draw the outline with as many columns as the width has room for."""
        board = self._board
        with_state = not final or board.lasting()
        columns = _columns(width, self._config.evaluation.auc != "none", board.metrics.get(board.root, {}))
        beside = sum(column.width + 2 for column in columns) + (_STATE_WIDTH + 2 if with_state else 0)
        names = max(cell_len(row.guide + row.name) for row in rows)
        room = max(8, min(names, width - beside))
        head = Text(set_cell_size("node", room) + ("  state      " if with_state else ""), style="dim")
        head.append("".join(f"  {column.title:>{column.width}}" for column in columns))
        lines = (
            _more(row, board) if row.hidden else _line(row, board, room, columns, with_state=with_state) for row in rows
        )
        return Group(head, *lines)

    def _progress(self, width: int) -> Table:
        """Draw the rounds done, the bar, and the time to come."""
        board = self._board
        left = f"about {_about(board.left_s)} left" if board.left_s else ""
        grid = Table.grid(padding=(0, 1))
        for _ in range(3):
            grid.add_column(no_wrap=True)
        bar = ProgressBar(total=board.rounds, completed=board.progress, width=max(8, min(40, width - 44)))
        at = min(board.committed + 1, board.rounds)
        grid.add_row(f"round {at}/{board.rounds}", bar, Text(left, style="dim"))
        return grid

    def _workers(self) -> Text:
        """Say how busy the workers were in the last round, and how far the round at work is."""
        board = self._board
        text = Text(f"trained {count(board.num_trained)}/{count(board.num_sites)} sites", style="dim")
        if board.busy_fraction is not None:
            text.append(f" · workers busy {percent(board.busy_fraction)}, idle {percent(1 - board.busy_fraction)}")
        return text.append(f"\n{consensus(board.apart)}" if board.apart else "")


def _broken(line: str, width: int) -> str:
    """Break a closing line between words, below its second column; the run's path is to be copied whole."""
    if line.startswith("run "):
        return line
    below = " " * _BESIDE
    return textwrap.fill(line, width, subsequent_indent=below, break_long_words=False, break_on_hyphens=False)


def _about(left_s: float) -> str:
    """Write a guessed duration no finer than it deserves."""
    return f"{max(1, round(left_s))} s" if left_s < 59.5 else seconds(left_s)


def _columns(width: int, with_auc: bool, found: Scalars) -> list[_Column]:
    """Choose what fits beside the node's name and state of what is measured; `found` is the root's, once there is any.

    Metrics of a task's own come last, or in the place of those of classes where there are none.
    """
    own = own_among(found)
    is_classes = "accuracy" in found or not own
    auc = [_AUC] if with_auc else []
    accuracy = _ACCURACY if with_auc else replace(_ACCURACY, at_least=0)
    wanted = [_TRAIN, _TEST, *([*auc, accuracy, _LOSS] if is_classes else [replace(_LOSS, at_least=0)])]
    at_least = _TEST.at_least if is_classes else _ACCURACY.at_least - _LOSS.width - 2
    least, most = _OWN_WIDTHS
    for name in own:
        title = spoken(name)
        letters = min(most, max(least, len(title)))
        at_least += letters + 2
        wanted.append(_Column(title if len(title) <= most else title[: most - 1] + "…", name, letters, at_least))
    if not is_classes:  # what it is measured by goes before how much there is of it
        beyond = max(column.at_least for column in wanted[3:])
        wanted[:2] = [
            replace(column, at_least=max(column.at_least, beyond + column.width + 2)) for column in wanted[:2]
        ]
    return [column for column in wanted if width >= column.at_least]


def _cell(board: Board, path: str, column: _Column) -> str:
    """Fill one cell; empty until there is a figure, a dash where it is undefined."""
    if column.key == _TRAIN.key:
        samples = board.started.num_samples if board.started else {}
        return count(samples[path]) if path in samples else ""
    found = board.metrics.get(path)
    if found is None or column.key not in found:
        return ""
    return count(found[column.key]) if column.key == _TEST.key else metric(found[column.key])


def _undefined(board: Board, row: Row) -> bool:
    """Tell whether a shown node's AUC reads undefined."""
    return not row.hidden and _cell(board, row.path, _AUC) == UNDEFINED


def _line(row: Row, board: Board, room: int, columns: Sequence[_Column], *, with_state: bool) -> Text:
    """Write one node: its place in the tree, state, metrics. Names are text, never markup."""
    guide, name = row.guide, row.name
    if cell_len(guide + name) > room:
        name = set_cell_size(name, max(1, room - cell_len(guide) - 1)) + "…"
    text = Text(no_wrap=True, overflow="ellipsis", style="bold" if row.depth == 0 else "")
    text.append(guide, style="dim").append(set_cell_size(name, max(1, room - cell_len(guide))))
    if with_state:
        state = board.state(row.path)
        text.append(f"  {state:<{_STATE_WIDTH}}", style=_STYLES.get(state, ""))
    return text.append("".join(f"  {_cell(board, row.path, column):>{column.width}}" for column in columns))


def _more(row: Row, board: Board) -> Text:
    """Write the row that stands for many; it has no figures, so it may take the whole width."""
    return Text(f"{row.guide}… {board.hidden(row)}", style="dim", no_wrap=True, overflow="ellipsis")


def _notice(record: Notice, *, one_line: bool = False) -> Text:
    """Write a notice; on the live screen only its first line, cut to the width; the log has it whole."""
    where = f"{record.node}: " if record.node else ""
    lines = record.message.splitlines() or [""]
    message = "\n".join(lines[: 1 if one_line else _NOTICE_LINES])
    text = Text(f"{record.level}: {where}{message}", style=_LEVELS.get(record.level, ""))
    if one_line:
        text.no_wrap, text.overflow = True, "ellipsis"
    return text
