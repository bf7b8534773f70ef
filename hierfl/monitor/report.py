"""The report of a run, from its folder alone: `report.html` (one file, no network) and its PNGs beside it.

What is missing is said, not guessed: a run that was cut off has no `summary.json`, one that never measured no metrics.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hierfl.errors import OutputError
from hierfl.monitor.pictures import curves, heat, histograms, png, reliability, timeline, trajectory, tree
from hierfl.monitor.report_page import page
from hierfl.monitor.run_record import RunRecord, read_run
from hierfl.monitor.thin import CURVES
from hierfl.monitor.words import finite, metric, plural, spoken

__all__ = ["write_report"]

REPORT = "report.html"
_MOST_CURVES = 4


def write_report(run_dir: Path) -> Path:
    """Write the report of the run in `run_dir`, finished or not, and return the path of `report.html`.

    Errors: OutputError where the folder is no run, cannot be read, or cannot be written.
    """
    record = read_run(run_dir)
    pictures = dict(_pictures(record))
    try:
        for name, content in pictures.items():
            (run_dir / f"{name}.png").write_bytes(content)
        target = run_dir / REPORT
        target.write_text(page(record, pictures), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write the report to {run_dir}: {error.strerror or error}") from error
    return target


def _pictures(record: RunRecord) -> Iterator[tuple[str, bytes]]:
    """Draw what there is data for."""
    if record.paths:
        yield "tree", png(tree(record.paths, _notes(record)))
    if record.statistics is not None and record.statistics.has_histograms:
        yield "histograms", png(histograms(record.statistics.nodes))
    if record.trained:
        order = {path: record.trained[path] for path in record.paths if path in record.trained}
        yield "trajectory", png(trajectory(order or record.trained, record.started.get("in_turn", ()), record.mixed))
    shown = [name for name in (*CURVES, *record.own) if any(finite(row.get(name)) is not None for row in record.rows)]
    if shown:
        yield "curves", png(curves(record.rows, shown[:_MOST_CURVES], record.every))
    if any(found.get("reliability") for found in record.nodes.values()):
        yield "calibration", png(reliability({path: record.nodes.get(path, {}) for path in record.paths}))
    if record.matrix is not None and record.matrix.models:
        yield "cross_site", png(heat(record.matrix))
    if record.tape.bars:
        yield "timeline", png(timeline(record.tape))


def _notes(record: RunRecord) -> dict[str, str]:
    """Say under each node's name how many samples it trains on and how the model does there."""
    samples, nodes = record.started.get("num_samples", {}), record.nodes
    notes = {}
    for path in record.paths:
        said = [_of_samples(samples[path])] if path in samples else []
        found = nodes.get(path, {})
        shown = next((name for name in ("auc", "accuracy", *record.own) if finite(found.get(name)) is not None), None)
        if shown:
            said.append(f"{'AUC' if shown == 'auc' else spoken(shown)} {metric(found[shown])}")
        notes[path] = " · ".join(said)
    return notes


def _of_samples(number: int | None) -> str:
    """Say how many samples a node trains on, or that nobody knows."""
    return "samples unknown" if number is None else plural(number, "sample")
