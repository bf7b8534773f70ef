"""Which workers hold which sites' data, as far as the supervisor can tell from what they report.

A worker keeps the data of the sites that it used last. One that had to load what it was thought to hold has dropped it,
and with it all that it had not used since: nothing older is believed any more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Set

__all__ = ["CACHE_SITES", "Warmth"]

CACHE_SITES = 256
"""Sites whose data a worker keeps at most."""


class Warmth:
    """Sites by worker, least recently used first."""

    def __init__(self) -> None:
        self._held: dict[str, OrderedDict[str, None]] = {}
        self._holders: dict[str, set[str]] = {}

    def used(self, worker: str, site: str, *, was_loaded: bool, is_kept: bool) -> None:
        """A worker has used a site's data, loaded for it or not, and keeps them now or not."""
        held = self._held.setdefault(worker, OrderedDict())
        if was_loaded and site in held:
            for older in list(held):
                self._drop(worker, older)
                if older == site:
                    break
        if not is_kept:
            return
        held[site] = None
        held.move_to_end(site)
        self._holders.setdefault(site, set()).add(worker)
        if len(held) > CACHE_SITES:
            self._drop(worker, next(iter(held)))

    def lost(self, worker: str) -> None:
        """A worker's process is gone, with all that it held."""
        for site in list(self._held.pop(worker, ())):
            self._holders[site].discard(worker)

    def clear(self) -> None:
        """All workers have dropped everything."""
        self._held.clear()
        self._holders.clear()

    def holders(self, site: str) -> Set[str]:
        """Give the workers that hold a site's data."""
        return self._holders.get(site, set())

    def _drop(self, worker: str, site: str) -> None:
        del self._held[worker][site]
        self._holders[site].discard(worker)
