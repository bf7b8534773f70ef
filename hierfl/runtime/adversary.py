"""The attackers' side of a worker: what sites send that rehearse an attack; see `hierfl.learning.attack`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from hierfl.config.schema import SiteSettings
from hierfl.held import held_attack
from hierfl.learning.local import Vector
from hierfl.learning.passes import Followed
from hierfl.learning.state import ModelState
from hierfl.runtime.jobs import TrainJob
from tiers.federation import parent

__all__ = ["Adversary"]

Follow = Callable[[str], Followed]
"""Trains a site as it would train for this job."""


class Adversary:
    """Knows who attacks, and what the honest sites of one round send, once an attacker has asked."""

    def __init__(self, sites: Mapping[str, SiteSettings]) -> None:
        self._sites = sites
        self._round: tuple[str, int] | None = None
        self._start: ModelState | None = None
        self._honest: Vector = np.zeros((0, 0))

    def attacked(self, job: TrainJob, site: str, start: ModelState, followed: Followed, follow: Follow) -> Followed:
        """Give what an attacker sends in place of what it was to send; all else of its training stays."""
        attack = self._sites[site].attack
        assert attack is not None
        own = followed.sent.floats - followed.base.floats
        base, ints = followed.base.floats, followed.sent.ints.copy()
        honest = own[:0].reshape(0, own.size)
        if attack.knows_honest:
            honest = self._changes(job, start, follow)
        bad = [other for other in self._of(job.hub) if self._sites[other].attack is not None]
        most = job.opening.clip  # it is public, and a longer change would be refused by name
        sent = np.clip(held_attack(attack).change(own, honest, len(bad)), -most, most)
        return replace(followed, sent=ModelState(base + sent, ints))

    def _changes(self, job: TrainJob, start: ModelState, follow: Follow) -> Vector:
        """Give the honest sites' changes, shape (n, P), in the order of their paths: by training each as it does."""
        known = self._round == (job.hub, job.round_number) and self._start is not None
        if not known or self._start is None or not np.array_equal(self._start.floats, start.floats):
            rows = []
            for site in self._of(job.hub):
                if self._sites[site].attack is None:
                    followed = follow(site)
                    rows.append(followed.sent.floats - followed.base.floats)
            self._round, self._start, self._honest = (job.hub, job.round_number), start, np.stack(rows)
        return self._honest

    def _of(self, hub: str) -> list[str]:
        """List the sites of a hub that train, by path."""
        return sorted(path for path, site in self._sites.items() if site.trains and parent(path) == hub)
