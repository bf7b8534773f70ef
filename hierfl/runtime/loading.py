"""The data of the sites that a worker was given lately: as the task gives them, scaled, with what hubs hand out."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hierfl.config.learning import Handed, Statistics
from hierfl.config.schema import SiteSettings
from hierfl.errors import QUOTED, DataError, HierflError
from hierfl.learning import standardise
from hierfl.learning.contract import checked_data, checked_table
from hierfl.learning.parts import part_of, together
from hierfl.learning.patients import PATIENT, codes_of, knows_patients, places_by_patient, unit_of
from hierfl.learning.shared import chosen, with_handed
from hierfl.learning.statistics import TableStatistics, as_table, statistics_of
from hierfl.learning.task import SiteData, Tabulates, Task, offers
from hierfl.runtime.footprint import Held, footprint
from hierfl.runtime.warmth import CACHE_SITES

__all__ = ["Loader", "Scale"]

CACHE_BYTES = 1 << 30

Scale: TypeAlias = tuple[NDArray[Any], NDArray[Any]]
"""The features' mean and deviation."""


class Loader:
    """Loads sites, and keeps the newest; `load_s`: seconds that went into loading, since it was set to 0."""

    def __init__(self, task: Task, sites: Mapping[str, SiteSettings], seed: int) -> None:
        self.load_s = 0.0
        self._task = task
        self._sites = sites
        self._seed = seed
        self._scale: Scale | None = None
        self._kept: OrderedDict[str, tuple[SiteData, Mapping[int, int]]] = OrderedDict()
        self._owners: dict[str, NDArray[np.int64]] = {}
        self._held = Held()

    def __contains__(self, site: str) -> bool:
        """Say whether a site's data are here."""
        return site in self._kept

    def rescale(self, scale: Scale | None) -> None:
        """Scale features so from now on; what was kept without is let go."""
        if scale is not None and self._scale is None:
            self._kept.clear()
            self._owners.clear()
            self._held = Held()
        self._scale = scale

    def get(self, site: str) -> SiteData:
        """Load one site's data, or take them from what was kept. Errors: DataError; whatever the task raises."""
        if site in self._kept:
            self._kept.move_to_end(site)
            return self._kept[site][0]
        started = time.perf_counter()
        data = self._whole(site)
        self.load_s += time.perf_counter() - started
        memory = footprint(data)
        if sum(memory.values()) <= CACHE_BYTES // 2:
            self._kept[site] = (data, memory)
            self._held.add(memory)
        while len(self._kept) > CACHE_SITES or self._held.num_bytes > CACHE_BYTES:
            gone, (_, dropped) = self._kept.popitem(last=False)
            self._owners.pop(gone, None)
            self._held.drop(dropped)
        return data

    def num_patients(self, site: str) -> int | None:
        """Count the patients in a site's training data, where its mechanism protects them. Errors: as of `get`."""
        is_counted = unit_of(self._sites[site].privacy) == PATIENT
        return len(places_by_patient(self._task, self.get(site).train)) if is_counted else None

    def test_owners(self, site: str) -> NDArray[np.int64] | None:
        """Say whose each of a site's test samples is, (n,), where there are any and the task knows patients.

        Errors: as of `get`.
        """
        test = self.get(site).test
        if not knows_patients(self._task) or not len(test):  # type: ignore[arg-type]
            return None
        if site in self._owners:
            return self._owners[site]
        found = codes_of(self._task, test, "test")
        if site in self._kept:
            self._owners[site] = found
        return found

    def own(self, site: str) -> SiteData:
        """Give what a site has itself, as the task gives it: unscaled, also where it joins a run that has its scale."""
        is_other = self._sites[site].handed or self._scale is not None
        return self._loaded(self._sites[site]) if is_other else self.get(site)

    def statistics(self, site: str, wanted: Statistics, *, has_data: bool = True) -> TableStatistics:
        """Count what a site has itself, as its task shows it: nothing is scaled; `has_data`: they can be loaded.

        Errors: as of `get`.
        """
        settings = self._sites[site]
        if offers(self._task, Tabulates):
            table = checked_table(self._task.table(settings.key, **settings.source))
            if settings.part is not None:
                table = table.take(list(range(settings.part[0], table.num_rows, settings.part[1])))
        else:
            table = as_table(self.own(site))
        told = statistics_of(table, wanted)
        if has_data and standardise.is_federated(self._task):
            return told.beside_training(len(self.own(site).train), wanted.min_count)  # type: ignore[arg-type]
        return told

    def _whole(self, site: str) -> SiteData:
        """Put what hubs hand to a site behind what it has itself."""
        settings = self._sites[site]
        data = self._scaled(self._loaded(settings))
        name = site.split("/")[-1 if settings.part is None else -2]
        for handed in settings.handed:
            public = self._scaled(self._public(handed))
            number = len(public.train)  # type: ignore[arg-type]
            data = with_handed(data, public, chosen(handed, number, name, settings.part, self._seed))
        return data

    def _scaled(self, data: SiteData) -> SiteData:
        return data if self._scale is None else standardise.apply(data, *self._scale)

    def _public(self, handed: Handed) -> SiteData:
        """Load a hub's public data. Errors: DataError, naming the hub."""
        try:
            return checked_data(self._task.data(handed.key, **handed.source))
        except Exception as error:
            said = f": {error}" if isinstance(error, HierflError) else f"{QUOTED}{type(error).__name__}: {error}"
            raise DataError(f"the data that {handed.hub} shares ({handed.key}) could not be loaded{said}") from error

    def _loaded(self, settings: SiteSettings) -> SiteData:
        """Load a site's data as the task gives them, its part of them, or those of all sites in a pool."""
        if settings.pools:
            return together([self._loaded(site) for site in settings.pools])
        data = checked_data(self._task.data(settings.key, **settings.source))
        return data if settings.part is None else part_of(data, *settings.part)
