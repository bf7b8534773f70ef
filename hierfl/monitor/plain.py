"""The run as plain lines, for logs and pipes: one line per round, notices as they come, no control characters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from hierfl.learning.own_metrics import own_among
from hierfl.learning.patients import RECORD
from hierfl.monitor.absent import absent_lines
from hierfl.monitor.consensus import apart_in, consensus
from hierfl.monitor.fairness import fairness_lines, held_out_lines, interval_lines, threshold_lines
from hierfl.monitor.lateness import lateness
from hierfl.monitor.records import (
    Evaluated,
    Notice,
    Record,
    RoundClosed,
    RoundCommitted,
    RunEnded,
    RunStarted,
    Scalars,
)
from hierfl.monitor.traffic import traffic_lines
from hierfl.monitor.words import UNDEFINED, count, gigabytes, metric, percent, plural, seconds

__all__ = ["Plain", "closing_lines"]

_MOST_NAMED = 4
_SHOWN = ("auc", "accuracy", "loss", "consensus_distance")


class Plain:
    """Prints a run to `stream`: how it starts, each committed round, who is late, notices, how it ends.

    `notify` takes the level, node and message of a notice in place of a line. A line that cannot be written is dropped:
    a full disk under a log, or a reader that has gone, ends no run.
    """

    def __init__(self, stream: TextIO, notify: Callable[[str, str, str], object] | None = None) -> None:
        self._stream = stream
        self._notify = notify
        self._root: Scalars = {}
        self._measured = -1
        self._run_dir = ""

    def on(self, record: Record) -> None:
        """Print the line of one record, if it has one."""
        if isinstance(record, RunStarted):
            self._run_dir = record.run_dir
            self._line(_started(record))
        elif isinstance(record, Evaluated):
            self._root = record.metrics[min(record.metrics, key=len)] if record.metrics else {}
            self._measured = record.round_number
        elif isinstance(record, RoundCommitted):
            self._line(self._committed(record))
        elif isinstance(record, RoundClosed):
            for notice in lateness(record):
                self._notice(notice)
        elif isinstance(record, Notice):
            self._notice(record)
        elif isinstance(record, RunEnded):
            run_dir = self._run_dir or record.summary.get("run_dir", "")
            for line in closing_lines(record.status, record.summary, run_dir):
                self._line(line)

    def close(self) -> None:
        """Leave the stream open: it is not ours."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def _committed(self, record: RoundCommitted) -> str:
        """Say what a round brought; a round that was not measured says nothing of metrics."""
        place = f"round {record.round_number:>{len(str(record.rounds))}}/{record.rounds}"
        own = own_among(self._root)[:_MOST_NAMED]
        metrics = [f"{name} {_or_undefined(self._root[name])}" for name in (*_SHOWN, *own) if name in self._root]
        if self._measured != record.round_number:
            metrics = []
        return "  ".join([place, *metrics, seconds(record.duration_s), f"busy {percent(record.busy_fraction)}"])

    def _notice(self, record: Notice) -> None:
        if self._notify is not None:
            self._notify(record.level, record.node, record.message)
            return
        self._line(f"{record.level}: {record.node + ': ' if record.node else ''}{record.message}")

    def _line(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text + "\n")
            self._stream.flush()


def _privacy(found: Mapping[str, Any]) -> list[str]:
    """Say what a run has cost the site that paid the most."""
    sites = found.get("sites", {})
    if not sites:
        return []
    most = max(sites, key=lambda path: float(sites[path]["epsilon"]))
    whose = f" for any {unit}" if (unit := sites[most].get("unit", RECORD)) != RECORD else ""
    said = f"epsilon {sites[most]['epsilon']:.3g} at delta {sites[most]['delta']:g}{whose}"
    return [f"privacy  {said} ({most})" + (", the most of any site" if len(sites) > 1 else "")]


def _or_undefined(value: object) -> str:
    """Write a metric in letters that every log can hold."""
    return metric(value).replace(UNDEFINED, "undefined")


def closing_lines(status: str, summary: Mapping[str, Any], run_dir: str) -> list[str]:
    """Say how a run ended: status and rounds, time, the sites' spread, idle figure, the model's digest, the folder."""
    planned = summary.get("rounds_planned")
    rounds = f"{count(summary['rounds'])} of {count(planned)} rounds" if "rounds" in summary and planned != 0 else ""
    wall = f"in {seconds(summary['wall_s'])}" if "wall_s" in summary else ""
    startup = f"(start-up {seconds(summary['startup_s'])})" if "startup_s" in summary else ""
    lines = [" ".join(part for part in (f"{status}:" if rounds else status, rounds, wall, startup) if part)]
    lines += absent_lines(summary.get("absent", {}))
    lines += interval_lines(summary.get("nodes", {}))
    lines += threshold_lines(summary.get("nodes", {}))
    lines += fairness_lines(summary.get("fairness", {}))
    lines += fairness_lines(summary.get("personal_fairness", {}), " of models fine-tuned there")
    lines += fairness_lines(summary.get("on_all_data", {}).get("fairness", {}), " of their own models on all data")
    lines += held_out_lines(summary.get("nodes", {}))
    lines += [f"peers    {said}" for said in [consensus(apart_in(summary.get("nodes", {})))] if said]
    lines += traffic_lines(summary.get("traffic", {}))
    lines += _privacy(summary.get("privacy", {}))
    if percent(summary.get("idle_fraction")) != UNDEFINED:
        lines.append(f"devices  busy {percent(summary.get('busy_fraction'))}, {_figures(summary)}")
        lines += _idlest(summary.get("schedule", {}))
        lines += _gpus(summary.get("schedule", {}))
    if summary.get("model_digest"):
        parameters = f", {count(summary['num_parameters'])} parameters" if "num_parameters" in summary else ""
        lines.append(f"model    sha256 {summary['model_digest']}{parameters}")
    if run_dir:
        lines.append(f"run      {run_dir}")
    return lines


def _idlest(schedule: Mapping[str, Any]) -> Iterator[str]:
    """Tell the figures of the devices and the hubs with most to gain, where there are several."""
    for what, found in (("device", schedule.get("devices", {})), ("hub", schedule.get("hubs", {}))):
        order = sorted(found, key=lambda name: (-found[name]["idle_avoidable"], -found[name]["idle_fraction"]))
        for name in order[:_MOST_NAMED] if len(order) > 1 else ():
            yield f"{what:<8} {name}: {_figures(found[name])}"
        if len(order) > _MOST_NAMED:
            yield f"{'':<8} and {plural(len(order) - _MOST_NAMED, what)} with less to gain, in summary.json"


def _figures(found: Mapping[str, Any]) -> str:
    """Write the figures of idle time, of whatever they are."""
    return (
        f"idle {percent(found['idle_fraction'])} (floor of any schedule {percent(found.get('idle_floor'))},"
        f" avoidable {percent(found.get('idle_avoidable'))}); efficiency {_share(found.get('efficiency'))},"
        f" goodput {_share(found.get('goodput'))}"
    )


def _gpus(schedule: Mapping[str, Any]) -> list[str]:
    """Say how much the GPUs were used, the least used first; nothing where none could be read."""
    found = sorted(schedule.get("gpus", {}).items(), key=lambda item: item[1]["utilisation"])
    said = [
        f"{device} {percent(gpu['utilisation'])} used, peak {gigabytes(gpu['peak_memory_bytes'])}"
        f" of {gigabytes(gpu['memory_bytes'])} ({gpu['gpu']})"
        for device, gpu in found[:_MOST_NAMED]
    ]
    return [f"gpus     {'; '.join(said)}"] if said else []


def _share(value: Any) -> str:
    """Write a fraction with two places."""
    return f"{value:.2f}" if isinstance(value, int | float) else UNDEFINED


def _started(record: RunStarted) -> str:
    """Say what runs on what."""
    paths = record.num_samples
    hubs = {path.rpartition("/")[0] for path in paths} - {""}
    samples = paths[min(paths, key=len)] or 0 if paths else 0
    resumed = f", from round {record.first_round}" if record.first_round > 1 else ""
    return (
        f"{record.name}: {plural(len(paths) - len(hubs), 'site')} under {plural(len(hubs), 'hub')},"
        f" {plural(samples, 'training sample')}, {plural(record.num_parameters, 'parameter')},"
        f" {plural(record.rounds, 'round')}{resumed}; {plural(len(record.workers), 'worker')} ({record.runtime})"
    )
