"""Which replicas of aggregators were replaced in a run, and why."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

from hierfl.monitor.records import Record, ReplicaReplaced

__all__ = ["Replaced"]

NEWEST = 100
"""So many are told one by one."""


class Replaced:
    """A monitor that remembers them; since this process took the run up."""

    heeds: ClassVar = (ReplicaReplaced,)

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}
        self._newest: list[dict[str, Any]] = []

    def on(self, record: Record) -> None:
        """Take a record."""
        if not isinstance(record, ReplicaReplaced):
            return
        self._counts.setdefault(record.node, Counter())[record.cause] += 1
        said = ("round_number", "node", "replica", "cause", "reason")
        self._newest = [*self._newest, {name: getattr(record, name) for name in said}][-NEWEST:]

    def close(self) -> None:
        """Nothing is open."""

    def record(self) -> dict[str, Any]:
        """Give what the summary says: how many by hub and cause, the newest one by one; nothing if there are none."""
        if not self._counts:
            return {}
        return {
            "replaced": {"hubs": {hub: dict(counts) for hub, counts in self._counts.items()}, "newest": self._newest}
        }
