"""What sites keep from round to round, as handles: it goes from a site's training to its next one, and to no hub.

What a training gave counts once its update is handed up: work that is done again begins from what was kept before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hierfl.runtime.driver import Handle
from hierfl.runtime.jobs import SiteReport

__all__ = ["Keeper"]


class Keeper:
    """A handle is of a mapping by site; a site's is the newest that counts."""

    def __init__(self) -> None:
        self._kept: dict[str, Handle] = {}
        self._given: dict[tuple[str, str], dict[str, Handle]] = {}

    def of(self, sites: Iterable[str]) -> tuple[dict[str, int], list[Handle]]:
        """Give what sites keep: in which of the handles each finds its own; a site without one keeps nothing yet."""
        places: dict[int, int] = {}
        handles: list[Handle] = []
        found = {}
        for site in sites:
            if site in self._kept:
                handle = self._kept[site]
                if id(handle) not in places:
                    places[id(handle)] = len(handles)
                    handles.append(handle)
                found[site] = places[id(handle)]
        return found, handles

    def trained(self, worker: str, group: str, reports: Iterable[SiteReport], given: Sequence[Handle]) -> None:
        """Note what a training gave, if it gave something to keep."""
        for handle in given:
            sites = [report.site for report in reports if report.error is None]
            self._given.setdefault((worker, group), {}).update(dict.fromkeys(sites, handle))

    def keep(self, sites: Iterable[str], handle: Handle) -> None:
        """Keep at once what sites were given by work that nothing is handed up of."""
        self._kept.update(dict.fromkeys(sites, handle))

    def handed_up(self, worker: str, group: str, sites: Iterable[str]) -> None:
        """Let what these sites' training gave count."""
        given = self._given.get((worker, group), {})
        self._kept.update({site: given.pop(site) for site in list(sites) if site in given})

    def lost(self, worker: str) -> None:
        """Drop what a worker's trainings gave and what was not handed up."""
        self._given = {key: given for key, given in self._given.items() if key[0] != worker}

    def finish(self, group: str) -> None:
        """Drop what is left of a group's work."""
        self._given = {key: given for key, given in self._given.items() if key[1] != group}

    def kept(self) -> dict[str, Handle]:
        """Give what every site keeps, as handles of mappings that hold it."""
        return dict(self._kept)

    def restore(self, kept: Mapping[str, Handle]) -> None:
        """Go on from what was kept at a commit."""
        self._kept = dict(kept)
