"""Whose updates a run's rounds did without: who failed, or was lost, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from hierfl.monitor.records import Record, RoundClosed
from hierfl.monitor.words import count, plural

__all__ = ["Absent", "absent_lines"]

_NAMED = 4
"""Members that are named at the end of a run; the summary has all."""


class Absent:
    """A monitor that remembers them, since this process took the run up; who is late or was not asked is not absent."""

    heeds: ClassVar = (RoundClosed,)

    def __init__(self) -> None:
        self._closed: dict[str, dict[str, int]] = {}
        self._found: dict[str, dict[str, Any]] = {}

    def on(self, record: Record) -> None:
        """Take a record."""
        if not isinstance(record, RoundClosed):
            return
        before = self._closed.get(record.node, {"rounds": 0})
        self._closed[record.node] = {"rounds": before["rounds"] + 1, "last_round": record.round_number}
        for member in record.missing.keys() - set(record.late):
            self._add(f"{record.node}/{member}", record, record.missing[member])
        for reason, num_members in record.others.items():
            self._add(record.node, record, reason, members=num_members)

    def close(self) -> None:
        """Nothing is open."""

    def record(self, unloaded: Mapping[str, str]) -> dict[str, Any]:
        """Give what the summary says, `absent`: by path in how many rounds of its hub, the last of these, and why then;
        under a hub's own path `members`, how many were, where it was too many to name. Nothing if all took part.

        `unloaded`: sites whose data could not be loaded, which are never asked, by path, and why.
        """
        found = dict(self._found)
        for path, reason in unloaded.items():
            if hub := self._closed.get(path.rpartition("/")[0]):
                found[path] = {**hub, "reason": reason}
        return {"absent": dict(sorted(found.items()))} if found else {}

    def _add(self, path: str, record: RoundClosed, reason: str, **more: int) -> None:
        rounds = self._found.get(path, {"rounds": 0})["rounds"] + 1
        self._found[path] = {"rounds": rounds, "last_round": record.round_number, "reason": reason, **more}


def absent_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Say who took no part, the most absent first; nothing where all did."""
    order = sorted(found, key=lambda path: (-found[path]["rounds"], path))
    for path in order[:_NAMED]:
        said = found[path]
        whom = f"{count(said['members'])} members of {path}" if "members" in said else path
        rounds = f"{plural(said['rounds'], 'round')}, last in {count(said['last_round'])}"
        yield f"without  {whom} in {rounds}: {said['reason']}"
    if len(order) > _NAMED:
        yield f"without  {count(len(order) - _NAMED)} more (absent in summary.json)"
