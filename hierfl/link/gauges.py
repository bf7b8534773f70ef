"""What a process that serves a node tells Prometheus, at `GET /metrics` beside `/healthz`.

Names and units follow Prometheus' own rules (prometheus.io/docs/practices/naming). All of it is what the process's log
and the run's folder have too, the newest of each: who is there, how the rounds go, how the model does.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from hierfl import __version__
from hierfl.monitor.records import (
    Evaluated,
    NodesChanged,
    Notice,
    Record,
    RoundClosed,
    RoundCommitted,
    RunStarted,
    Scalars,
    SiteTrained,
)
from hierfl.monitor.words import finite

__all__ = ["Gauges"]

MOST_NODES = 1000
"""Nodes whose metrics are told, those nearest to the root first: each is a time series for every metric."""


class Gauges(Collector):
    """A monitor that keeps what was said last, for as long as the process lives. `say`: as `/healthz` has it."""

    def __init__(self, say: Callable[[], Mapping[str, Any]]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._rounds: dict[str, float] = {}
        self._metrics: Mapping[str, Scalars] = {}
        self._closed: dict[str, RoundClosed] = {}
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
        self._counts["notices"].update(info=0, warning=0, error=0)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def on(self, record: Record) -> None:
        """Take a record."""
        with self._lock:
            if isinstance(record, RunStarted):
                self._rounds |= {"rounds_planned": record.rounds, "rounds_committed": record.first_round - 1}
            elif isinstance(record, RoundCommitted):
                self._rounds |= {
                    "rounds_planned": record.rounds,
                    "rounds_committed": record.round_number,
                    "round_duration_seconds": record.duration_s,
                    "last_commit_timestamp_seconds": time.time(),
                    "devices_busy_ratio": record.busy_fraction,
                    "devices_idle_floor_ratio": record.idle_floor,
                }
            elif isinstance(record, Evaluated):
                self._metrics = record.metrics
            elif isinstance(record, RoundClosed):
                self._closed[record.node] = record
                self._counts["missing_updates"][record.node] += _num_missing(record)
            elif isinstance(record, SiteTrained):
                self._counts["trainings"][record.node.rpartition("/")[0]] += 1
            elif isinstance(record, NodesChanged) and record.state == "failed":
                self._counts["failures"].update(record.nodes)
            elif isinstance(record, Notice):
                self._counts["notices"][record.level] += 1

    def close(self) -> None:
        """Go on telling: another run may follow, of a process that stands by."""

    def page(self) -> tuple[str, bytes]:
        """Give the content's type, and the content."""
        return CONTENT_TYPE_LATEST, generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Name nothing before it is asked for: that would ask who is there."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Give all that is known now."""
        said = self._say()
        who = {"federation": str(said["federation"]), "node": str(said["node"]), "version": __version__}
        yield _gauge("node_info", "What this process serves.", [(tuple(who.values()), 1.0)], who)
        yield _gauge("leads", "Whether it serves the node now, and does not stand by.", [((), float(said["leads"]))])
        if "up" in said:
            yield _gauge("hub_up", "Whether the hub above is reached.", [((), float(said["up"]))])
        up = [((member,), float(is_up)) for member, is_up in said.get("members", {}).items()]
        yield _gauge("member_up", "Whether a member has joined.", up, ["member"])
        if "certificate_until" in said:
            until = datetime.fromisoformat(str(said["certificate_until"])).timestamp()
            yield _gauge("certificate_expiry_timestamp_seconds", "When the kit's certificate ends.", [((), until)])
        with self._lock:
            rounds, closed, metrics = dict(self._rounds), dict(self._closed), self._metrics
            counts = {name: dict(counter) for name, counter in self._counts.items()}
        for name, help_ in _ROUNDS.items():
            if name in rounds:
                yield _gauge(name, help_, [((), rounds[name])])
        found = [((node,), float(len(one.members))) for node, one in closed.items()]
        yield _gauge("round_updates", "Updates in the last round of a hub.", found, ["node"])
        found = [((node,), float(_num_missing(one))) for node, one in closed.items()]
        yield _gauge("round_missing_updates", "Updates that the last round of a hub is without.", found, ["node"])
        yield _gauge("metric", "The model at a node, as measured last.", _numbers(metrics), ["node", "metric"])
        for name, (label, help_) in _COUNTED.items():
            family = CounterMetricFamily(f"hierfl_{name}", help_, labels=[label])
            for value, count in sorted(counts[name].items()):
                family.add_metric([value], count)
            yield family


_ROUNDS = {
    "rounds_planned": "Rounds of the root that the run is to have.",
    "rounds_committed": "Rounds of the root whose model is published.",
    "round_duration_seconds": "How long the last round of the root took.",
    "last_commit_timestamp_seconds": "When the last round of the root was published.",
    "devices_busy_ratio": "How busy the devices were in the last round's training.",
    "devices_idle_floor_ratio": "How idle they had to be in it, whatever the schedule.",
}

_COUNTED = {
    "missing_updates": ("node", "Updates that rounds of a hub went on without."),
    "trainings": ("node", "Trainings of a hub's sites, and members with links, that have ended well."),
    "failures": ("node", "Trainings, measurements and members that have failed."),
    "notices": ("level", "What a person should know, by level; the log has the words."),
}
"""What is counted since the process began, each by what."""


def _gauge(
    name: str, help_: str, values: Iterable[tuple[tuple[str, ...], float]], labels: Iterable[str] = ()
) -> GaugeMetricFamily:
    """Make a family of gauges: each with the values of its labels, and its own."""
    made = GaugeMetricFamily(f"hierfl_{name}", help_, labels=list(labels))
    for of, value in values:
        made.add_metric(list(of), value)
    return made


def _numbers(metrics: Mapping[str, Scalars]) -> Iterator[tuple[tuple[str, ...], float]]:
    """Give the numbers among nodes' metrics; what is undefined, and tables, are left out."""
    for node in sorted(metrics, key=lambda path: (path.count("/"), path))[:MOST_NODES]:
        for name, value in metrics[node].items():
            number = finite(value)
            if number is not None:
                yield (node, name), number


def _num_missing(record: RoundClosed) -> int:
    """Count the members whose update a round is without."""
    return len(record.missing) + sum(record.others.values())
