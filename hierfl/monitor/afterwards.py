"""What is found after a run, or at its end, in the run's TensorBoard log too, where it has one.

| tag | what |
|---|---|
| `cross_site` | the picture of every model on every site's data |
| `left_out` | the table of each site with and without it in the training, as text; `left_out/others`: of the others |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hierfl.monitor.cross_site import Matrix
from hierfl.monitor.words import metric

__all__ = ["FOLDER", "log_left_out", "log_matrix"]

FOLDER = "tensorboard"


def log_matrix(run_dir: Path, matrix: Matrix) -> None:
    """Add the cross-site table's picture at the step of its rounds. Errors: OutputError."""
    if not (run_dir / FOLDER).is_dir() or not matrix.models:
        return
    from hierfl.monitor import pictures
    from hierfl.monitor.event_file import EventFile

    log = EventFile(run_dir / FOLDER)
    log.image("cross_site", pictures.png(pictures.heat(matrix)), matrix.rounds)
    log.close()


def log_left_out(
    run_dir: Path, rows: Mapping[str, Mapping[str, Any]], of_others: Mapping[str, Mapping[str, Any]]
) -> None:
    """Add the comparison of runs without a site, there and at the others, rows by site as in the terminal.

    Errors: OutputError.
    """
    if not (run_dir / FOLDER).is_dir() or not rows:
        return
    from hierfl.monitor.event_file import EventFile

    log = EventFile(run_dir / FOLDER)
    log.text("left_out", "\n".join(_table(rows)))
    log.text("left_out/others", "\n".join(_table(of_others)))
    log.close()


def _table(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Write rows as a Markdown table."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    yield f"| site | {' | '.join(columns)} |"
    yield "|" + " --- |" * (len(columns) + 1)
    for site, row in rows.items():
        yield f"| {site} | {' | '.join(metric(row.get(column)) for column in columns)} |"
