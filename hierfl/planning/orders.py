"""A hub's orders as jobs for the dispatcher, numbered and predicted as a run's crew does it (`hierfl.runtime.crew`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from hierfl.planning.case import Case
from hierfl.runtime.chains import Chains
from hierfl.runtime.forecasts import forecasts
from hierfl.runtime.foresight import LEARN_AT
from scheduler.dispatch import Dispatcher
from scheduler.eligibility import usual_kind
from scheduler.forecast import Forecast, Learned
from scheduler.views import Job

__all__ = ["Orders", "group_of"]


class Orders:
    """Makes the jobs of one tree; `numbers` counts the jobs of all trees, `run` names this one.

    `forecast`: what is learned; where it learns nothing, the tree's durations are known from the beginning.
    """

    def __init__(
        self, case: Case, dispatcher: Dispatcher, forecast: Forecast, numbers: Iterator[int], run: str
    ) -> None:
        self.jobs: dict[tuple[str, str], Job] = {}
        self._case = case
        self._dispatcher = dispatcher
        self._forecast = forecast
        self._numbers = numbers
        self._run = run
        self._chains = Chains(case.tree)
        self._kinds: dict[frozenset[str], str] = {}
        self._num_heard = 0

    def begin(self, root_round: int) -> None:
        """A round of the root begins."""
        self._chains.begin(root_round, self._site_s)

    def ask(self, hub: str, number: int, sites: Iterable[str], then: Iterable[str] = ()) -> list[Job]:
        """Ask for the training of sites in a hub's round; `then`: the members whose turn comes afterwards."""
        chain_s = self._chains.remaining_s(hub, number, then)
        made = []
        for site in sites:
            work = self._case.sites[site]
            job = Job(
                *(group_of(hub, number), site, work.steps, None, next(self._numbers), self._run, chain_s),
                *(work.labels, work.memory_bytes),
            )
            made.append(self._predicted(job))
        self.jobs.update((job.key, job) for job in made)
        self._dispatcher.ask(made)
        return made

    def ended(self, num_sites: int) -> None:
        """So many sites have ended, and were learned from: predict anew what waits, where that may tell something."""
        seen, self._num_heard = self._num_heard, self._num_heard + num_sites
        if isinstance(self._forecast, Learned) and any(seen < count <= self._num_heard for count in LEARN_AT):
            self._dispatcher.refresh(self._predicted)

    def forecasts_s(self, hub: str) -> dict[str, float]:
        """Predict when the members of a hub have answered, for its deadline."""
        places = sum(device.places for device in self._case.devices)
        return forecasts(self._case.tree, hub, self._p90_s, places)

    def _predicted(self, job: Job) -> Job:
        return replace(job, estimate_s=self._forecast.predict(job, self._kind(job.labels)))

    def _site_s(self, site: str) -> float | None:
        """Predict a site's seconds in any round; None where nothing is known."""
        work = self._case.sites.get(site)
        if work is None or not isinstance(self._forecast, Learned):
            return None if work is None else work.seconds
        return self._forecast.predict(Job("", site, work.steps, None, 0), self._kind(work.labels))

    def _p90_s(self, site: str) -> float | None:
        """Predict what a site takes at most, nine times of ten."""
        work = self._case.sites.get(site)
        if work is None or not isinstance(self._forecast, Learned):
            return None if work is None else work.seconds
        return self._forecast.durations.p90("train", site, work.steps, self._kind(work.labels))

    def _kind(self, labels: frozenset[str]) -> str:
        """Name the usual kind of device among those that may take a site."""
        if labels not in self._kinds:
            self._kinds[labels] = usual_kind(self._case.devices, labels)
        return self._kinds[labels]


def group_of(hub: str, number: int) -> str:
    """Name the jobs of a hub's round, counted from 0."""
    return f"{hub}#{number}"
