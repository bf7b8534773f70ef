"""Work that no device which is there can take: said once it has waited a while, and once for each reason."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Patience"]

PATIENCE_S = 15.0
"""A worker that is replaced is back before."""


class Patience:
    """Notes since when sites wait, and for what reason. Seconds are the caller's."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._since: dict[str, float] = {}
        self._told: set[str] = set()

    def look(self, refusals: Mapping[str, str], now_s: float) -> list[str]:
        """Take the sites that wait now, each with its reason; return what is to be said of it."""
        reasons: dict[str, list[str]] = {}
        for site, reason in refusals.items():
            reasons.setdefault(reason, []).append(site)
        self._since = {reason: self._since.get(reason, now_s) for reason in reasons}
        self._told &= set(reasons)
        due = [reason for reason, since in self._since.items() if now_s - since >= self._patience_s]
        new = [reason for reason in due if reason not in self._told]
        self._told.update(new)
        return [f"{_named(reasons[reason])} for a device: {reason}" for reason in new]


def _named(sites: list[str]) -> str:
    """Name a few sites, and count the rest."""
    more = f" and {len(sites) - 3} more sites" if len(sites) > 3 else ""
    return f"{', '.join(sites[:3])}{more} wait{'s' if len(sites) == 1 else ''}"
