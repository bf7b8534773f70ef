"""The measurements of a run, as many of them as a picture can show: a run of weeks has millions of lines.

Of the rounds that were measured every n-th is kept, and the last; n doubles as they become too many. Lines of the
others are not parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from hierfl.learning.own_metrics import is_own_name
from hierfl.monitor.files import Raw

__all__ = ["CURVES", "Thinned", "thinned"]

CURVES = ("auc", "accuracy", "loss")
"""hierfl's own metrics that have curves; a task's own have them too."""

MOST_ROUNDS, MOST_ROWS = 1000, 200_000
"""Rounds that are kept at most, and about how many points: fewer rounds of a larger tree."""

LEAST_ROUNDS = 50
_ROW = re.compile(rb'\{"round":(\d+),"node":("(?:[^"\\]|\\.)*")')


@dataclass
class Thinned:
    """Rows of kept rounds, in order, with what is drawn of them; `last`: all that was measured last, by node; `every`:
    one round is kept of so many.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    last: dict[str, dict[str, Any]] = field(default_factory=dict)
    every: int = 1


def thinned(lines: Iterable[Raw]) -> Thinned:
    """Thin out the lines of `metrics.jsonl`. Errors: OutputError of a line that is needed and is not JSON."""
    found = Thinned()
    kept: list[list[dict[str, Any]]] = []
    newest: dict[bytes, Raw] = {}
    place, own = -1, list[Raw]()
    for place, (own, names) in enumerate(_rounds(lines)):
        newest.update(zip(names, own, strict=True))
        if place % found.every == 0:
            kept.append([_drawn(line.value()) for line in own])
        if len(kept) > max(LEAST_ROUNDS, min(MOST_ROUNDS, MOST_ROWS // len(newest))):
            kept, found.every = kept[::2], 2 * found.every
    if place % found.every:
        kept.append([_drawn(line.value()) for line in own])
    found.rows = [row for own in kept for row in own]
    for row in (line.value() for line in newest.values()):
        found.last[str(row["node"])] = {key: value for key, value in row.items() if key not in ("node", "round")}
    return found


def _rounds(lines: Iterable[Raw]) -> Iterator[tuple[list[Raw], list[bytes]]]:
    """Gather the lines of each round, with how their nodes are written."""
    own: list[Raw] = []
    names: list[bytes] = []
    number: int | None = None
    for line in lines:
        match = _ROW.match(line.text)
        if match is not None:
            of, name = int(match[1]), match[2]
        else:
            row = line.value()
            of, name = row["round"], str(row["node"]).encode()
        if of != number and own:
            yield own, names
            own, names = [], []
        number = of
        own.append(line)
        names.append(name)
    if own:
        yield own, names


def _drawn(row: Mapping[str, Any]) -> dict[str, Any]:
    """Leave what curves are drawn of."""
    return {key: value for key, value in row.items() if key in ("node", "round", *CURVES) or _is_own(key)}


@lru_cache(maxsize=1024)
def _is_own(name: str) -> bool:
    return is_own_name(name)
