"""Work that no device which is there can take: said once it has waited a while, given up in the end.

Who was left out of a round's training so is not waited for once more at the round's measurement, unless it is back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from hierfl.runtime.results import TRAIN
from scheduler import JobKey

__all__ = ["Patience"]

PATIENCE_S = 15.0
"""A worker that is replaced is back before."""


class Patience:
    """Notes since when work waits, and for what reason. Seconds are the caller's; `limit_s`: how long it may wait."""

    def __init__(self, patience_s: float = PATIENCE_S, limit_s: float = math.inf) -> None:
        self._patience_s = patience_s
        self._limit_s = limit_s
        self._since: dict[JobKey, float] = {}
        self._told: set[str] = set()
        self._round = 0
        self._left_out: set[str] = set()

    def look(self, refusals: Mapping[JobKey, str], now_s: float, round_number: int = 0) -> list[str]:
        """Take the work of a round that waits now, each with its reason; return what is to be said of it, once per
        reason.
        """
        if round_number != self._round:
            self._round = round_number
            self._left_out.clear()
        self._since = {key: self._since.get(key, now_s) for key in refusals}
        self._told &= set(refusals.values())
        due = {refusals[key] for key, since_s in self._since.items() if now_s - since_s >= self._patience_s}
        sites: dict[str, list[str]] = {}
        for (_, site), reason in refusals.items():
            if reason in due and reason not in self._told:
                sites.setdefault(reason, []).append(site)
        self._told.update(sites)
        return [f"{_named(waiting)} for a device: {reason}" for reason, waiting in sites.items()]

    def spent(self, refusals: Mapping[JobKey, str], now_s: float) -> dict[JobKey, str]:
        """Give the work that has waited as long as it may, as of the last look."""
        found = {
            key: f"{reason}, as in this round's training"
            for key, reason in refusals.items()
            if key[1] in self._left_out and not key[0].startswith(TRAIN)
        }
        for key, reason in refusals.items():
            if now_s - self._since.get(key, now_s) >= self._limit_s and key not in found:
                found[key] = f"{reason}, and none has come within {self._limit_s:g} s (runtime.device_timeout_s)"
                if key[0].startswith(TRAIN):
                    self._left_out.add(key[1])
        return found


def _named(sites: list[str]) -> str:
    """Name a few sites, and count the rest."""
    more = f" and {len(sites) - 3} more sites" if len(sites) > 3 else ""
    return f"{', '.join(sites[:3])}{more} wait{'s' if len(sites) == 1 else ''}"
