"""How much longer one kind of device takes than another: from sites that both have worked for, and from nothing else.

Which sites a kind of device was given says nothing of its speed. So the ratio is the median over the shared sites of
each one's own ratio, as a logarithm, and shrunk to 0 by what so few of them may err: `1 - error / median^2` of it
counts (James and Stein 1961), so that a difference within the noise reads as none, and a large one is believed at once.

Where nothing is shared yet, a prediction may still go by the two lines, as far as their difference is larger than what
chance in the choice of the sites makes of it; two sites on either side are the least that can tell.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from zlib import crc32

from scheduler.line import MEDIAN, PRIOR_SPREAD
from scheduler.pace import Pace

__all__ = ["Shared", "best_known", "by_lines", "shrunk"]

MAX_SHARED = 32
"""Shared sites that are compared: those with the smallest hashes, the same ones whatever the order of the work."""


class Shared:
    """The sites that kinds of devices have in common in one work, by pair of kinds."""

    def __init__(self) -> None:
        self._sites: dict[tuple[str, str], list[tuple[int, str]]] = {}
        self._logs: dict[tuple[str, str], Sequence[float]] = {}

    @classmethod
    def of(cls, paces: Mapping[str, Pace]) -> Shared:
        """Find again what was known of these."""
        shared = cls()
        for device, pace in paces.items():
            for site in pace.sites:
                shared.saw(paces, device, site)
        return shared

    def saw(self, paces: Mapping[str, Pace], device: str, site: str) -> None:
        """Note that a kind of device has worked for a site."""
        self._logs.clear()
        if len(paces) == 1:
            return
        entry = crc32(site.encode()), site
        for other, pace in paces.items():
            if other != device and site in pace.sites:
                for pair in ((device, other), (other, device)):
                    sites = self._sites.setdefault(pair, [])
                    if entry not in sites:
                        insort(sites, entry)
                        del sites[MAX_SHARED:]

    def logs(self, paces: Mapping[str, Pace], device: str, reference: str) -> Sequence[float]:
        """Give the logarithm of each shared site's seconds on one kind of device over those on another."""
        pair = device, reference
        if pair not in self._logs:
            sites = [site for _, site in self._sites.get(pair, ())]
            here, there = (paces[kind].sites for kind in pair) if sites else ({}, {})
            line = paces[reference].line if sites else None
            self._logs[pair] = [
                math.log(here[site].seconds / there[site].seconds * line(there[site].units) / line(here[site].units))
                for site in sites
                if line is not None and site in here and site in there
            ]
        return self._logs[pair]


def shrunk(logs: Sequence[float]) -> float:
    """Give the ratio that sites tell together; 1 without any."""
    if not logs:
        return 1.0
    num, middle = len(logs), median(logs)
    apart = MEDIAN * median(abs(log - middle) for log in logs)
    return math.exp(_trusted(middle, (PRIOR_SPREAD**2 + (num - 1) * apart**2) / num**2))


def by_lines(here: Pace, there: Pace) -> float:
    """Give the ratio of two lines that no site ties together, as far as the choice of the sites does not explain it."""
    if min(len(here.sites), len(there.sites)) < 2:
        return 1.0
    error = sum(max(PRIOR_SPREAD, pace.spread) ** 2 / (len(pace.sites) - 1) for pace in (here, there))
    units = here.usual_units
    return math.exp(_trusted(math.log(here.line(units) / there.line(units)), error))


def _trusted(log: float, error: float) -> float:
    """Shrink a logarithm whose variance is `error`."""
    return log * max(0.0, 1.0 - error / log**2) if log else 0.0


def best_known(paces: Mapping[str, Pace], site: str, devices: Iterable[str]) -> str | None:
    """Name the kind of device that has worked most for a site, the first seen of these where several have."""
    counts = {device: paces[device].sites[site].count for device in devices if site in paces[device].sites}
    return max(counts, key=counts.__getitem__, default=None)
