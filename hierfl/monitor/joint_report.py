"""The report of runs that shared devices: `joint.html` and its picture, in the first run's folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from hierfl.errors import OutputError
from hierfl.monitor.joint import JointRecord
from hierfl.monitor.pictures import png, sharing
from hierfl.monitor.report_page import image, whole
from hierfl.monitor.words import WHAT_FIGURES_MEAN, percent, seconds

__all__ = ["write_joint"]

REPORT, PICTURE = "joint.html", "joint.png"
_ALT = "Which run had which device when"


def write_joint(record: JointRecord) -> Path:
    """Write the joint report of two runs or more and return the path of `joint.html`.

    Errors: OutputError where the first run's folder cannot be written.
    """
    joint = record.joint
    folder = next(iter(record.run_dirs.values()))
    said = f"busy {percent(1 - joint.idle.idle)}, idle {percent(joint.idle.idle)}; white: no run wanted a device"
    picture = png(sharing(record.calls, joint.idle.busy, joint.wanted, said))
    target = folder / REPORT
    try:
        (folder / PICTURE).write_bytes(picture)
        target.write_text(_page(record, picture), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write the joint report to {folder}: {error.strerror or error}") from error
    return target


def _page(record: JointRecord, picture: bytes) -> str:
    """Write the whole page."""
    names = " + ".join(record.run_dirs)
    under = f"{len(record.run_dirs)} runs on the devices of one cluster"
    shown = [f"<h2>{_ALT}</h2>", image(_ALT, picture)]
    parts = [*_facts(record), *shown, *_devices(record), *_runs(record)]
    return whole(names, under, parts)


def _facts(record: JointRecord) -> Iterator[str]:
    """Write the figures of all together."""
    idle = record.joint.idle
    facts = {
        "Devices wanted for": seconds(idle.makespan_s),
        "Devices busy": percent(1.0 - idle.idle),
        "Devices idle": percent(idle.idle),
        "Floor of idle": percent(idle.floor),
        "Avoidable idle": percent(idle.avoidable),
        "Efficiency": percent(idle.efficiency),
        "Goodput": percent(idle.goodput),
    }
    yield "<dl>" + "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in facts.items()) + "</dl>"
    yield f'<p class="note">Of the time in which at least one run wanted a device. {escape(WHAT_FIGURES_MEAN)}</p>'


def _devices(record: JointRecord) -> Iterator[str]:
    """Write a row per device: busy with which run, and idle, of the time in which a run wanted it."""
    joint = record.joint
    rows = [
        [
            device,
            seconds(wanted_s),
            percent(joint.idle.busy[device]),
            *(percent(spent / wanted_s) for spent in joint.busy_s[device].values()),
            percent(1.0 - joint.idle.busy[device]),
        ]
        for device, wanted_s in joint.wanted_s.items()
    ]
    yield from _table("Devices", ["device", "wanted for", "busy", *record.run_dirs, "idle"], rows)


def _runs(record: JointRecord) -> Iterator[str]:
    """Write a row per run: what it had of the devices."""
    joint = record.joint
    rows = [[run, percent(joint.fraction(run)), percent(joint.share(run))] for run in record.run_dirs]
    yield from _table("Runs", ["run", "of the devices' time", "of all that was used"], rows)
    yield from (f'<p class="note">{escape(run)}: {escape(str(path))}</p>' for run, path in record.run_dirs.items())


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    titles = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    yield f'<h2>{title}</h2><div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>'
    for row in rows:
        yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
    yield "</tbody></table></div>"
