"""What the sites have counted in one measurement, and of whom it does not fit the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hierfl.learning.alike import Form
from hierfl.learning.metrics import Tally
from hierfl.monitor.words import few, plural
from hierfl.runtime.jobs import Evaluated
from tiers.federation import parent

__all__ = ["Counted"]

_SAME = "as many classes in predict's scores"
_SAME_LABELS = "predict names all that any site labels, in one order, with -1 or NaN where that is not known"


class Counted:
    """Tallies by hub. Who is told to be unlike the others does not hang on who was first to answer."""

    def __init__(self) -> None:
        self._totals: dict[str, list[tuple[Form | None, Tally]]] = {}
        self._forms: dict[str, Form] = {}

    def add(self, evaluated: Evaluated) -> None:
        """Keep what a worker has counted at sites of one hub."""
        self._totals.setdefault(evaluated.hub, []).extend(evaluated.totals.items())
        self._forms.update({site: form for site, form in evaluated.forms.items() if form is not None})

    def unlike(self, order: Iterable[str]) -> dict[str, str]:
        """Name the sites that measure something else than most, each with what is wrong. `order`: of the tree."""
        chosen = self._chosen(order)
        alike = [site for site in order if self._forms.get(site) == chosen]
        return {
            site: f"it measures {self._forms[site]}, and {plural(len(alike), 'site')} ({few(alike)}) {chosen}; all"
            f" measure the same: {_SAME_LABELS if self._forms[site].labels else _SAME}, and the same metrics of the"
            " task's own"
            for site in order
            if self._forms.get(site, chosen) != chosen
        }

    def added_up(self, hubs: Iterable[str], order: Iterable[str]) -> dict[str, Tally]:
        """Add up every hub's sites, but for those that are unlike most, and the hubs below. `hubs`: the root first."""
        known = None, self._chosen(order)
        found = {path: [tally for form, tally in given if form in known] for path, given in self._totals.items()}
        totals: dict[str, Tally] = {}
        for path in reversed([*hubs]):
            totals[path] = Tally.total(found.get(path, []))
            above = parent(path)
            if above is not None:
                found.setdefault(above, []).append(totals[path])
        return totals

    def _chosen(self, order: Iterable[str]) -> Form | None:
        """Give what most sites measure; of several that are as frequent, that of the first site."""
        counts = Counter(self._forms[site] for site in order if site in self._forms)
        return max(counts, key=counts.__getitem__, default=None)
