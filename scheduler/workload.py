"""A workload: federations of hubs of sites with their true durations, and the devices that are to carry it.

What the simulator runs and the lower bounds are about. Two tiers: a hub holds sites, a federation holds hubs; a
global round is over once every hub has done its own rounds (HierFAVG's kappa, Liu et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from scheduler.views import Device, JobKey

__all__ = [
    "Actual",
    "Federation",
    "Hub",
    "Site",
    "Steady",
    "Workload",
    "cohort",
    "draw",
    "eligible",
    "group_name",
    "nominal",
    "num_at_once",
    "site_path",
    "split_site",
]

Actual = Mapping[JobKey, float]
"""What each job takes, in seconds, alone on a device of speed 1. A site without an entry sits that round out."""


@dataclass(frozen=True, slots=True)
class Site:
    """A site: `duration_s` of its local training, alone at speed 1; `size` in samples; its peak of memory."""

    name: str
    duration_s: float
    size: int = 1
    memory_bytes: int = 0
    model: str = ""

    def __post_init__(self) -> None:
        assert math.isfinite(self.duration_s) and self.duration_s > 0, f"{self.name}: duration {self.duration_s} s"


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub: `rounds` of its own per global round (kappa), `labels` that its sites' devices must carry.

    `transfer_s`: from the last site's end to the hub's new model at its sites (sums up, aggregation, model down); no
    device is busy with it.
    """

    name: str
    sites: tuple[Site, ...]
    rounds: int = 1
    labels: frozenset[str] = frozenset()
    transfer_s: float = 0.0

    def __post_init__(self) -> None:
        assert self.sites and self.rounds >= 1 and self.transfer_s >= 0, f"hub {self.name} without sites or rounds"
        assert len({site.name for site in self.sites}) == len(self.sites), f"hub {self.name}: a site's name twice"


@dataclass(frozen=True, slots=True)
class Federation:
    """A federation: `rounds` global rounds, the first of which may begin at `start_s`."""

    name: str
    hubs: tuple[Hub, ...]
    rounds: int = 1
    start_s: float = 0.0

    def __post_init__(self) -> None:
        assert self.hubs and self.rounds >= 1 and self.start_s >= 0, f"federation {self.name} without hubs or rounds"
        assert len({hub.name for hub in self.hubs}) == len(self.hubs), f"federation {self.name}: a hub's name twice"


@dataclass(frozen=True)
class Workload:
    """Federations and devices.

    `speeds`: work per second by device kind, 1 where a kind is missing; `rates`: the total rate of a device with 1, 2,
    ... jobs at once, relative to one alone, the last one for all above; `load_s`: seconds to load a model by its name;
    `call_s`: what a device idles between two calls unless the second one waits there already.
    """

    federations: tuple[Federation, ...]
    devices: tuple[Device, ...]
    speeds: Mapping[str, float] = field(default_factory=dict)
    rates: tuple[float, ...] = (1.0,)
    load_s: Mapping[str, float] = field(default_factory=dict)
    call_s: float = 0.0

    def __post_init__(self) -> None:
        assert len({device.name for device in self.devices}) == len(self.devices), "a device's name twice"
        assert len({federation.name for federation in self.federations}) == len(self.federations)
        assert all(speed > 0 for speed in self.speeds.values()), f"speeds {self.speeds}"
        assert self.rates[0] == 1.0 and all(0 < rate <= k for k, rate in enumerate(self.rates, 1)), self.rates
        for _, hub, site in self.sites():
            assert any(eligible(hub.labels, site.memory_bytes, device) for device in self.devices), (
                f"no device can take {hub.name}/{site.name}: labels {set(hub.labels)}, {site.memory_bytes} bytes"
            )

    def sites(self) -> Iterator[tuple[Federation, Hub, Site]]:
        """Walk over all sites."""
        for federation in self.federations:
            for hub in federation.hubs:
                for site in hub.sites:
                    yield federation, hub, site

    def speed(self, device: Device) -> float:
        """Give a device's work per second."""
        return self.speeds.get(device.kind, 1.0)

    def rate(self, num_jobs: int) -> float:
        """Give the total rate of a device with so many jobs at once."""
        return self.rates[min(num_jobs, len(self.rates)) - 1]


def eligible(labels: frozenset[str], memory_bytes: int, device: Device) -> bool:
    """Say whether a device may take work with these labels and could hold it."""
    return labels <= device.labels and (device.memory_bytes is None or memory_bytes <= device.memory_bytes)


def num_at_once(device: Device, memory_bytes: int) -> int:
    """Count how many jobs of this memory a device runs beside each other."""
    if device.memory_bytes is None or memory_bytes == 0:
        return device.places
    return min(device.places, device.memory_bytes // memory_bytes)


def group_name(federation: Federation, hub: Hub, number: int) -> str:
    """Name the jobs of a hub's round; `number` counts the hub's rounds through, from 0."""
    return f"{federation.name}/{hub.name}#{number}"


def site_path(federation: Federation, hub: Hub, site: Site) -> str:
    """Name a site across the workload."""
    return f"{federation.name}/{hub.name}/{site.name}"


def cohort(federation: Federation, hub: Hub, number: int, actual: Actual) -> list[tuple[Site, float]]:
    """List who takes part in a hub's round, each with the seconds that its job takes."""
    group = group_name(federation, hub, number)
    found = ((site, actual.get((group, site_path(federation, hub, site)))) for site in hub.sites)
    return [(site, duration_s) for site, duration_s in found if duration_s is not None]


def draw(workload: Workload, generator: np.random.Generator, noise: float) -> dict[JobKey, float]:
    """Draw what each job takes: its site's duration times log-normal noise of mean 1 and log-sd `noise`."""
    actual: dict[JobKey, float] = {}
    for federation, hub, site in workload.sites():
        num_rounds = federation.rounds * hub.rounds
        factors = np.exp(noise * generator.standard_normal(num_rounds) - noise * noise / 2)
        path = site_path(federation, hub, site)
        for number, factor in enumerate(factors.tolist()):
            actual[group_name(federation, hub, number), path] = site.duration_s * factor
    return actual


class Steady(Mapping[JobKey, float]):
    """Durations that stay the same from round to round: `seconds` by site's path, but for some jobs `exceptions`."""

    def __init__(
        self, workload: Workload, seconds: Mapping[str, float], exceptions: Mapping[JobKey, float] | None = None
    ) -> None:
        self._workload = workload
        self._seconds = seconds
        self._exceptions = exceptions or {}

    def __getitem__(self, key: JobKey) -> float:
        """Give a job's seconds."""
        found = self._exceptions.get(key)
        return self._seconds[key[1]] if found is None else found

    def __iter__(self) -> Iterator[JobKey]:
        """Go through the jobs of all rounds."""
        for federation, hub, site in self._workload.sites():
            for number in range(federation.rounds * hub.rounds):
                yield group_name(federation, hub, number), site_path(federation, hub, site)

    def __len__(self) -> int:
        """Count the jobs of all rounds."""
        return sum(federation.rounds * hub.rounds for federation, hub, _ in self._workload.sites())


def nominal(workload: Workload) -> Actual:
    """Give each job its site's own duration, without noise."""
    return Steady(workload, {site_path(fed, hub, site): site.duration_s for fed, hub, site in workload.sites()})


def split_site(hub: Hub, name: str, num_parts: int, overhead: float = 0.0) -> Hub:
    """Split a site that dominates its round into parts that devices of its residency train at once.

    `overhead`: what the parts take together beyond the whole, as a fraction of it.
    """
    assert num_parts >= 1 and overhead >= 0
    sites: list[Site] = []
    for site in hub.sites:
        if site.name != name:
            sites.append(site)
            continue
        size, duration_s = max(1, site.size // num_parts), site.duration_s * (1 + overhead) / num_parts
        sites.extend(
            replace(site, name=f"{name}.{part}", size=size, duration_s=duration_s) for part in range(num_parts)
        )
    assert len(sites) == len(hub.sites) + num_parts - 1, f"hub {hub.name} has no site {name}"
    return replace(hub, sites=tuple(sites))
