"""The report's HTML: one page, styles and pictures inside, light or dark as the reader's screen.

Every text that comes from a run passes `_esc`; nothing is loaded from a network.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from hierfl.learning.operating import OPERATING, THRESHOLD
from hierfl.learning.own_metrics import by_label
from hierfl.learning.patients import RECORD
from hierfl.monitor.consensus import distance
from hierfl.monitor.fairness import reads
from hierfl.monitor.outline import members_by_hub
from hierfl.monitor.report_evaluation import fairness_table, label_table, left_out_table, statistics_table
from hierfl.monitor.words import (
    FIGURES,
    UNDEFINED,
    WHAT_FIGURES_MEAN,
    WHY_UNDEFINED,
    count,
    gigabytes,
    interval,
    metric,
    num_bytes,
    percent,
    plural,
    seconds,
    spoken,
)

if TYPE_CHECKING:
    from hierfl.monitor.run_record import RunRecord
    from hierfl.monitor.statistics import Told

__all__ = ["image", "page", "whole"]

_MAX_ROWS = 1000
_MAX_CONFIG = 200_000
_COLUMNS = (
    *(("num_test", "test samples", count), ("num_test_patients", "test patients", count)),
    *(("accuracy", "accuracy", metric), ("auc", "AUC", metric), ("loss", "loss", metric)),
    *(("ece", "calibration error", metric), *((name, reads(name), metric) for name in OPERATING)),
    ("consensus_distance", "consensus distance", distance),
    ("epsilon", "epsilon", distance),
    *(("held_out_num_test", "held-out samples", count), ("held_out_accuracy", "held-out accuracy", metric)),
    *(("held_out_auc", "held-out AUC", metric), ("num_left_out", "left out", count)),
    *(("personal_accuracy", "fine-tuned accuracy", metric), ("personal_auc", "fine-tuned AUC", metric)),
    ("personal_loss", "fine-tuned loss", metric),
    *(("true_positives", "true +", count), ("false_positives", "false +", count)),
    *(("true_negatives", "true -", count), ("false_negatives", "false -", count)),
)
_OF_SCHEDULE = {
    "device": "The floor is what devices of this sort must be idle on average, whatever the schedule.",
    "hub": "Of the devices that may take a hub's sites, while its rounds were open.",
}
_ALT = {
    "tree": "The federation's tree, hubs with their members",
    "trajectory": "Who trained from whom in the last round of each hub",
    "histograms": "How numbers are spread at each node, by the bins of the agreed ranges",
    "curves": "Metrics over the rounds, for the root, the hubs and the sites",
    "calibration": "How often came true what was predicted, by predicted probability",
    "cross_site": "Every model on every site's data",
    "timeline": "What each device and hub did over time",
}

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --grey: #5b6570; --line: #d9dee3; --paper: #ffffff; --tint: #f4f6f8;
  --accent: #0072B2; --warn: #8a5a00; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --grey: #9aa4ae; --line: #333a41; --paper: #15181c;
  --tint: #1d2126; --accent: #56B4E9; --warn: #e6b450; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; margin: 0 0 .2rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .8rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
.under { color: var(--grey); margin: 0 0 1.4rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem 1.5rem; margin: 0; }
dt { color: var(--grey); font-size: .85rem; } dd { margin: 0; font-size: 1.1rem; font-weight: 600; }
.wide { grid-column: 1 / -1; } .wide dd { font: .9rem/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
img { display: block; max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: 8px; }
.scroll { overflow-x: auto; } .scroll + .scroll { margin-top: 1.6rem; }
table { border-collapse: collapse; width: 100%; font-size: .95rem; }
th, td { padding: .35rem .8rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; } th { color: var(--grey); font-weight: 500; }
tr.hub td:first-child { font-weight: 600; }
.note { color: var(--grey); font-size: .9rem; } .missing { border-left: 4px solid var(--warn); background: var(--tint);
  padding: .6rem 1rem; margin: 1.2rem 0; }
.warning { color: var(--warn); } .error { color: var(--bad); }
td.text { white-space: pre-wrap; text-align: left; overflow-wrap: anywhere; }
pre { background: var(--tint); border: 1px solid var(--line); border-radius: 8px; padding: 1rem; overflow-x: auto;
  font: .85rem/1.5 ui-monospace, monospace; }
"""


def page(record: RunRecord, pictures: Mapping[str, bytes]) -> str:
    """Write the whole page; `pictures` are PNGs by name (tree, curves, timeline), the missing ones are said so."""
    parts = [
        *_rehearsal(record),
        *_missing(record),
        *_facts(record),
        *_section("Federation", _picture("tree", pictures)),
        *(_section("What sites have", _records(record.statistics, pictures)) if record.statistics else ()),
        *(_section("Hubs and sites", _table(record)) if record.only_tells else _model(record, pictures)),
        *_section("Timeline", _picture("timeline", pictures)),
        *(() if record.only_tells else _section(f"Workers and devices{_of_last(record)}", _workers(record))),
        *_section("Notices and failures", _notices(record)),
        *_section("Configuration", _config(record)),
        *_section("Versions", _versions(record)),
    ]
    title = str(_find(record, "name") or record.run_dir.name)
    return whole(title, f"{_status(record)} · {record.run_dir}", parts)


def _model(record: RunRecord, pictures: Mapping[str, bytes]) -> Iterator[str]:
    """Write what became of the model that was trained."""
    own = _find(record, "personal_fairness")
    yield from _section("The model's way", _picture("trajectory", pictures))
    yield from _section("Curves by tier", _picture("curves", pictures))
    yield from _section("Hubs and sites", _table(record))
    yield from _section("Fairness over sites", fairness_table(_find(record, "fairness")))
    if any(by_label(_root_of(record), THRESHOLD)):
        members = members_by_hub(record.paths)
        sites = [path for path in record.paths if path not in members]
        yield from _section("Labels", label_table(record.nodes, record.paths[0], sites))
    if own:
        yield from _section("Fairness of fine-tuned models", fairness_table(own))
    if "calibration" in pictures:
        yield from _section("Calibration", _picture("calibration", pictures))
    if "cross_site" in pictures:
        yield from _section("Across sites", _picture("cross_site", pictures))
    if record.left_out:
        yield from _section("Each site left out", left_out_table(record.left_out))


def whole(title: str, under: str, parts: Iterable[str]) -> str:
    """Write a report's page around its parts, which are HTML."""
    lines = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_esc(title)} - hierfl report</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body><main>",
        f'<h1>{_esc(title)}</h1><p class="under">{_esc(under)}</p>',
        *parts,
        "</main></body></html>\n",
    ]
    return "\n".join(lines)


def image(alt: str, content: bytes) -> str:
    """Write a PNG into the page."""
    return f'<img alt="{_esc(alt)}" src="data:image/png;base64,{base64.b64encode(content).decode("ascii")}">'


def _esc(value: object) -> str:
    return escape(str(value), quote=True)


def _records(told: Told, pictures: Mapping[str, bytes]) -> Iterator[str]:
    """Write what sites have told of their records, a row for each column; the pictures of those with bins."""
    yield from statistics_table(told)
    if "histograms" in pictures:
        yield from _picture("histograms", pictures)


def _find(record: RunRecord, name: str) -> Any:
    """Look a fact up: the summary knows best, then how the run ended, then how it started."""
    for source in (record.summary, record.ended.get("summary", {}), record.ended, record.started):
        if source.get(name) is not None:
            return source[name]
    return None


def _status(record: RunRecord) -> str:
    """Say how the run ended, as far as the folder tells."""
    found = _find(record, "status")
    return str(found) if found else "unfinished: no end was recorded"


def _rehearsal(record: RunRecord) -> Iterator[str]:
    """Say loudly of a run in which faults were injected that it is one."""
    faults = _find(record, "faults")
    if faults:
        planned = "; ".join(map(str, faults["planned"])) or "none any more"
        said = f"it injects faults on purpose: {planned}. Struck {plural(len(faults['injected']), 'time')} so far."
        yield f'<p class="missing error"><strong>A rehearsal, and no production run:</strong> {_esc(said)}</p>'


def _missing(record: RunRecord) -> Iterator[str]:
    if record.missing:
        items = "<br>".join(_esc(text) for text in record.missing)
        yield f'<div class="missing">{items}</div>'


def _facts(record: RunRecord) -> Iterator[str]:
    """Write the run's figures; what is not known is left out."""
    done = record.summary.get("rounds", record.tape.commits[-1][0] if record.tape.commits else 0)
    planned = record.summary.get("rounds_planned", record.started.get("rounds"))
    wall = record.summary.get("wall_s_total", record.tape.commits[-1][1] if record.tape.commits else None)
    last = _of_last(record)
    members = members_by_hub(record.paths)
    facts = [
        ("Rounds", f"{count(done)} of {count(planned)}"),
        ("Hubs", count(len(members))),
        ("Sites", count(len(record.paths) - len(members))),
        ("Parameters", count(_find(record, "num_parameters"))),
        ("Wall time", seconds(wall)),
        (f"Start-up{last}", seconds(_find(record, "startup_s"))),
        (f"Devices busy{last}", percent(_find(record, "busy_fraction"))),
        (f"Devices idle{last}", percent(_find(record, "idle_fraction"))),
        (f"Floor of idle{last}", percent(_find(record, "idle_floor"))),
        (f"Avoidable idle{last}", percent(_find(record, "idle_avoidable"))),
        (f"Efficiency{last}", percent(_find(record, "efficiency"))),
        (f"Goodput{last}", percent(_find(record, "goodput"))),
        *_traffic(record.summary.get("traffic", {}), last),
        ("Runtime", str(record.started.get("runtime", UNDEFINED))),
        ("Seed", str(record.summary.get("seed", UNDEFINED))),
        ("Processes", f"{record.sessions} (resumed)" if record.sessions > 1 else UNDEFINED),
    ]
    yield "<dl>"
    yield from (f"<div><dt>{label}</dt><dd>{_esc(value)}</dd></div>" for label, value in facts if value != UNDEFINED)
    digest = _find(record, "model_digest")
    if digest:
        yield f'<div class="wide"><dt>Model digest (sha256)</dt><dd>{_esc(digest)}</dd></div>'
    yield "</dl>"


def _of_last(record: RunRecord) -> str:
    """Say of figures that they are the last process's, where a run had several."""
    return " (last process)" if record.sessions > 1 else ""


def _traffic(found: Mapping[str, Any], last: str) -> Iterator[tuple[str, str]]:
    """Say how much went up the tree, and what compression spared, where it did."""
    if found:
        yield f"Sent up{last}", num_bytes(found["bytes_up"])
        if found["bytes_spared"]:
            yield f"Spared by compression{last}", num_bytes(found["bytes_spared"])


def _section(title: str, body: Iterator[str]) -> Iterator[str]:
    yield f"<section><h2>{title}</h2>"
    yield from body
    yield "</section>"


def _picture(name: str, pictures: Mapping[str, bytes]) -> Iterator[str]:
    """Embed a picture; say so where the run left no data for it."""
    if name in pictures:
        yield image(_ALT[name], pictures[name])
    else:
        yield '<p class="note">The run left no data for this picture.</p>'


def _table(record: RunRecord) -> Iterator[str]:
    """Write one row per node, indented by tier, up to a thousand."""
    nodes, paths = record.nodes, record.paths
    if not paths:
        yield '<p class="note">No node was recorded.</p>'
        return
    members, trained = members_by_hub(paths), record.started.get("num_samples", {})
    measured = {name for found in nodes.values() for name in found}
    own = ((name, spoken(name), metric) for name in record.own)
    columns = [column for column in (*_COLUMNS, *own) if column[0] in measured]
    head = "".join(f"<th>{title}</th>" for _, title, _ in columns)
    yield f'<div class="scroll"><table><thead><tr><th>node</th><th>training samples</th>{head}</tr></thead><tbody>'
    undefined = False
    for path in paths[:_MAX_ROWS]:
        found = nodes.get(path, {})
        undefined |= "auc" in found and metric(found.get("auc")) == UNDEFINED
        cells = "".join(f"<td>{write(found.get(name))}{interval(found, name)}</td>" for name, _, write in columns)
        indent = f' style="padding-left: {0.8 + 1.4 * path.count("/"):.1f}rem"'
        name = f"<td{indent}>{_esc(path.rpartition('/')[2])}</td>"
        kind = "hub" if path in members else "site"
        yield f'<tr class="{kind}" title="{_esc(path)}">{name}<td>{count(trained.get(path))}</td>{cells}</tr>'
    yield "</tbody></table></div>"
    yield from _confusion(record)
    if len(paths) > _MAX_ROWS:
        yield f'<p class="note">{len(paths) - _MAX_ROWS:,} more nodes stand in metrics.jsonl.</p>'
    if "epsilon" in measured:
        sites = (_find(record, "privacy") or {}).get("sites", {})
        deltas = sorted({f"{site['delta']:g}" for site in sites.values()})
        at = f", at delta {' or '.join(deltas)}" if deltas else ""
        whose = " or ".join(sorted({site.get("unit", RECORD) for site in sites.values()})) or RECORD
        said = f"what a site's training so far may tell of any one {whose}{at}; at a hub the most of any site below"
        yield f'<p class="note">Epsilon is {said}.</p>'
    if "num_test_patients" in measured:
        yield '<p class="note">Intervals, in brackets, are over test patients, each with all of his or her samples.</p>'
    if "num_left_out" in measured:
        said = (
            "Left out are the test samples of sites where a prediction, a metric of the task's own or the loss is not"
        )
        yield f'<p class="note">{said} finite: they count in no figure, there or above.</p>'
    if undefined:
        yield f'<p class="note">{WHY_UNDEFINED} They still count in the hub above, which adds up scores and labels.</p>'


def _root_of(record: RunRecord) -> Mapping[str, Any]:
    """Give the root's last metrics."""
    return record.nodes.get(record.paths[0], {}) if record.paths else {}


def _confusion(record: RunRecord) -> Iterator[str]:
    """Write the root's table of true and predicted classes, where there are more than two."""
    table = _root_of(record).get("confusion")
    if not table:
        return
    head = "".join(f"<th>{predicted}</th>" for predicted in range(len(table)))
    yield f'<div class="scroll"><table><thead><tr><th>true class, predicted as</th>{head}</tr></thead><tbody>'
    for true, row in enumerate(table):
        yield f"<tr><td>{true}</td>" + "".join(f"<td>{count(number)}</td>" for number in row) + "</tr>"
    yield "</tbody></table></div>"


def _workers(record: RunRecord) -> Iterator[str]:
    """Write each worker's busy and idle share, and the figures of devices and hubs."""
    workers, schedule = _find(record, "workers"), _find(record, "schedule")
    if not isinstance(workers, Mapping):
        yield '<p class="note">The run left no figures of its workers.</p>'
        return
    shares = {"busy_fraction": "busy", "idle_fraction": "idle"}
    yield from _shares("worker", workers, list(workers), shares)
    yield f'<p class="note">{_esc(WHAT_FIGURES_MEAN)}</p>'
    yield from _gpus(record)
    for what, note in _OF_SCHEDULE.items():
        found = schedule.get(f"{what}s") if isinstance(schedule, Mapping) else None
        if isinstance(found, Mapping) and found:
            order = sorted(found, key=lambda name: -found[name].get("idle_avoidable", 0.0))
            yield from _shares(what, found, order, FIGURES)
            yield f'<p class="note">{note}</p>'


def _gpus(record: RunRecord) -> Iterator[str]:
    """Write how much the GPUs were used, where they could be read."""
    schedule = _find(record, "schedule")
    found = schedule.get("gpus") if isinstance(schedule, Mapping) else None
    if not isinstance(found, Mapping) or not found:
        return
    head = "".join(f"<th>{title}</th>" for title in ("device", "GPU", "used", "peak memory", "memory"))
    yield f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>'
    for device, gpu in list(found.items())[:_MAX_ROWS]:
        figures = (
            percent(gpu.get("utilisation")),
            *(gigabytes(gpu[key]) for key in ("peak_memory_bytes", "memory_bytes")),
        )
        cells = "".join(f"<td>{cell}</td>" for cell in figures)
        yield f"<tr><td>{_esc(device)}</td><td>{_esc(gpu.get('gpu', ''))}</td>{cells}</tr>"
    yield "</tbody></table></div>"
    yield '<p class="note">Of the time in which the run had the device; memory is all that was in use there.</p>'


def _shares(
    what: str, found: Mapping[str, Mapping[str, Any]], order: Sequence[str], figures: Mapping[str, str]
) -> Iterator[str]:
    """Write a table of fractions, a row for each name in its order."""
    head = "".join(f"<th>{title}</th>" for title in (what, *figures.values()))
    yield f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>'
    for name in order[:_MAX_ROWS]:
        cells = "".join(f"<td>{percent(found[name].get(key))}</td>" for key in figures)
        yield f"<tr><td>{_esc(name)}</td>{cells}</tr>"
    yield "</tbody></table></div>"


def _notices(record: RunRecord) -> Iterator[str]:
    """Write the notices, the last two hundred."""
    if not record.notices:
        yield '<p class="note">None.</p>'
        return
    if record.num_notices > len(record.notices):
        yield f'<p class="note">The last {len(record.notices):,} of {record.num_notices:,}.</p>'
    yield '<div class="scroll"><table><thead><tr><th>level</th><th>at</th><th>node</th><th></th></tr></thead><tbody>'
    for notice in record.notices:
        level = _esc(notice.get("level", ""))
        cells = f"<td>{seconds(notice.get('time_s'))}</td><td>{_esc(notice.get('node', ''))}</td>"
        text = f'<td class="text">{_esc(notice.get("message", ""))}</td>'
        yield f'<tr><td class="{level}">{level}</td>{cells}{text}</tr>'
    yield "</tbody></table></div>"


def _config(record: RunRecord) -> Iterator[str]:
    if record.config:
        rest = "\n... the rest stands in config.yaml" if len(record.config) > _MAX_CONFIG else ""
        yield f"<pre>{_esc(record.config[:_MAX_CONFIG] + rest)}</pre>"
    else:
        yield '<p class="note">config.yaml is missing.</p>'


def _versions(record: RunRecord) -> Iterator[str]:
    versions = _find(record, "versions")
    if isinstance(versions, Mapping) and versions:
        yield "<p>" + " · ".join(f"{_esc(name)} {_esc(version)}" for name, version in versions.items()) + "</p>"
        if code := _find(record, "task_code"):
            yield f"<p class='note'>The task's code: {_esc(code)} (SHA-256 of its files and of hierfl's version)</p>"
    else:
        yield '<p class="note">Not recorded.</p>'
