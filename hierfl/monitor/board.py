"""What the live screen shows, as plain state: takes records, knows nothing of terminals."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hierfl.monitor.lateness import lateness
from hierfl.monitor.outline import Row, members_by_hub, outline, sites_below
from hierfl.monitor.records import (
    Consensus,
    Evaluated,
    NodesChanged,
    Notice,
    Record,
    RoundClosed,
    RoundCommitted,
    RunEnded,
    RunStarted,
    Scalars,
    SiteTrained,
)

if TYPE_CHECKING:
    from tiers.federation import Federation

__all__ = ["STATES", "Board"]

STATES = ("failed", "skipped", "done", "trained", "evaluating", "aggregating", "late", "training", "waiting")
"""The states of a node, in the order in which a count of many is told."""

_LASTING = ("failed", "skipped")
_KEPT = (*_LASTING, "late")
_AT_WORK = ("waiting", "training", "aggregating", "evaluating", "late")


class Board:
    """The state of every node, the latest metrics, the progress, and the notices that matter."""

    def __init__(self, federation: Federation) -> None:
        self.root = federation.root.name
        self._draw(federation.nodes)
        self.rounds = federation.root.rounds
        self.committed = 0
        self.busy_fraction: float | None = None
        self.started: RunStarted | None = None
        self.ended: RunEnded | None = None
        self.metrics: dict[str, Scalars] = {}
        self.apart: dict[str, float] = {}
        self.notices: deque[Notice] = deque(maxlen=3)
        self.warnings: deque[Notice] = deque(maxlen=10)
        self.num_warnings = 0
        self._states: dict[str, str] = {}
        self._trained: set[str] = set()
        self._durations: deque[float] = deque(maxlen=5)

    def _draw(self, paths: Iterable[str]) -> None:
        """Begin from the tree of these nodes."""
        self.paths = dict.fromkeys(paths).keys()
        self.members: Mapping[str, Sequence[str]] = members_by_hub(self.paths)
        self.num_sites = len(self.paths - self.members.keys())
        self._outlines: dict[int, list[Row]] = {}

    def on(self, record: Record) -> None:
        """Take one record; costs the same whatever the size of the tree, but for a commit."""
        if isinstance(record, SiteTrained):
            self._trained.add(record.node)
            if self.state(record.node) in _AT_WORK:
                self._states[record.node] = "trained"
        elif isinstance(record, NodesChanged):
            self._states.update(dict.fromkeys(record.nodes, record.state))
        elif isinstance(record, RunStarted):
            self.started, self.rounds, self.committed = record, record.rounds, record.first_round - 1
            if record.num_samples.keys() > self.paths:  # an amended run has more nodes than its configuration had
                self._draw(record.num_samples)
        elif isinstance(record, Evaluated):
            self.metrics.update(record.metrics)
        elif isinstance(record, Consensus):
            self.apart[record.node] = record.distance
        elif isinstance(record, RoundCommitted):
            self._commit(record)
        elif isinstance(record, RoundClosed):
            self.notices.extend(lateness(record))
        elif isinstance(record, Notice):
            self._notice(record)
        elif isinstance(record, RunEnded):
            self.ended = record
            self.metrics.update(record.summary.get("nodes", {}))

    def state(self, path: str) -> str:
        """Name the state of a node; "waiting" until something is heard of it."""
        return self._states.get(path, "waiting")

    def rows(self, limit: int) -> list[Row]:
        """Give the tree's outline in at most `limit` rows; the tree does not change, so each is made once."""
        if limit not in self._outlines:
            self._outlines[limit] = outline(self.members, self.root, rows=limit)
        return self._outlines[limit]

    def hidden(self, row: Row) -> str:
        """Say what a row stands for: "88 more: 80 trained, 8 waiting"; sites are counted where hubs are hidden."""
        sites = sites_below(self.members, row.hidden)
        num_hubs = sum(path in self.members for path in row.hidden)
        what = f"{len(row.hidden):,} more"
        if num_hubs:
            what += f" ({len(sites):,} sites)"
        counts = Counter(self.state(path) for path in sites)
        told = sorted(counts, key=lambda state: STATES.index(state) if state in STATES else -1)
        return f"{what}: " + ", ".join(f"{counts[state]:,} {state}" for state in told)

    def lasting(self) -> bool:
        """Tell whether any node was skipped or has failed."""
        return any(state in _LASTING for state in self._states.values())

    @property
    def num_trained(self) -> int:
        """Count the sites that were trained in the round at work."""
        return len(self._trained)

    @property
    def progress(self) -> float:
        """Measure the run's progress in rounds, the round at work by its share of trained sites."""
        return min(self.committed + self.num_trained / self.num_sites, self.rounds)

    @property
    def left_s(self) -> float | None:
        """Guess the seconds to the end by the mean of the last rounds; None before the first."""
        if not self._durations:
            return None
        return (self.rounds - self.progress) * sum(self._durations) / len(self._durations)

    def summary(self) -> Mapping[str, Any]:
        """The run's summary; empty while it runs or when it was cut off."""
        return self.ended.summary if self.ended else {}

    def _commit(self, record: RoundCommitted) -> None:
        """Begin the next round: all wait again, but for those that were skipped, have failed or are late."""
        self.committed, self.rounds = record.round_number, record.rounds
        self.busy_fraction = record.busy_fraction
        self._durations.append(record.duration_s)
        if record.round_number < record.rounds:
            self._trained.clear()
            self._states = {path: state for path, state in self._states.items() if state in _KEPT}

    def _notice(self, record: Notice) -> None:
        self.notices.append(record)
        if record.level in ("warning", "error"):
            self.warnings.append(record)
            self.num_warnings += 1
