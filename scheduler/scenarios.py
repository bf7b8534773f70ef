"""Named workloads, drawn from a generator: what policies are compared on, and what their tests promise.

| scenario | what |
|---|---|
| `uniform-24x4` | one hub of 24 sites, U(0.5, 1.5) s, on 4 devices |
| `lognormal-48` | two hubs of 24 sites, log-sd 1, each on 4 devices of its own |
| `fets-23` | 23 hospitals, log-sd 1.27, the largest 41% of all (FeTS, Pati et al. 2022), pooled on 4 devices |
| `fets-23-own` | the same, each hospital on a device of its own |
| `fets-23-split` | pooled, the two largest split over two devices each |
| `fets-23-two` | pooled, a second federation of the same hospitals beside the first |
| `fets-33` | 33 hospitals, log-sd 1.13, the largest 14%, on 4 devices |
| `isic`, `lidc`, `kits` | the hospitals of FLamby (Ogier du Terrail et al. 2022), on 4 devices |
| `membound-mix` | four federations, each with a model of 1 to 14.5 GB, on 4 devices of 16 GB that hold up to 4 jobs |
| `multi-fed-3` | three federations over three nations, 6 sites each, kappa 2, on unequal devices |
| `multi-fed-6` | six federations over three nations, 4 sites each, kappa 2, on unequal devices |
| `multi-fed-kappa` | four federations over three nations, 5 sites each, kappa 1, 2 and 4 |

Durations follow the samples up to a site's own factor of log-sd 0.08: what was measured from site to site has a median
of 3.4% and a 90th percentile of 13.7%.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from scheduler.views import Device
from scheduler.workload import Federation, Hub, Site, Workload, split_site

__all__ = ["SCENARIOS", "several_share", "workload"]

ROUNDS = 10
SITE_SD = 0.08
GB = 10**9

ISIC = (9930, 3163, 2691, 1807, 655, 351)
LIDC = (530, 164, 59, 55)
KITS = (24, 12, 11, 9, 9, 9)
MODELS = {"densenet": 1.0, "unet": 3.5, "nnunet": 7.0, "swin-unetr": 14.5}
"""Peak memory in GB by model."""

NATIONS = {
    "de": ("a100", "v100", "v100", "v100"),
    "fr": ("v100", "v100", "v100", "v100"),
    "nl": ("a100", "v100", "t4", "t4"),
}
SPEEDS = {"a100": 2.0, "v100": 1.0, "t4": 0.5}

Generator = np.random.Generator


def workload(name: str, seed: int) -> Workload:
    """Draw a scenario by its name; the same seed gives the same workload."""
    assert name in SCENARIOS, f"unknown scenario {name!r}; there are {', '.join(SCENARIOS)}"
    return SCENARIOS[name](np.random.default_rng((seed, sum(name.encode()))))


def several_share(work: Workload) -> bool:
    """Say whether several federations share the devices, so that they could also run in sequence."""
    return len(work.federations) > 1


def _sites(
    generator: Generator, durations_s: Sequence[float], per_second: float = 1000.0, **given: object
) -> tuple[Site, ...]:
    """Make sites of these durations, whose samples tell them up to each site's own factor."""
    factors = np.exp(SITE_SD * generator.standard_normal(len(durations_s)))
    return tuple(
        Site(f"site{i:02}", float(duration_s), max(1, round(duration_s * per_second * factor)), **given)  # type: ignore[arg-type]
        for i, (duration_s, factor) in enumerate(zip(durations_s, factors, strict=True))
    )


def _pool(num: int) -> tuple[Device, ...]:
    """Make equal devices."""
    return tuple(Device(f"gpu{i}", "gpu") for i in range(num))


def _uniform(generator: Generator) -> Workload:
    hub = Hub("hub", _sites(generator, generator.uniform(0.5, 1.5, 24).tolist()))
    return Workload((Federation("uniform", (hub,), ROUNDS),), _pool(4))


def _lognormal(generator: Generator) -> Workload:
    hubs, devices = [], []
    for name in ("north", "south"):
        sites = _sites(generator, np.exp(generator.standard_normal(24)).tolist())
        hubs.append(Hub(name, sites, 1, frozenset({name})))
        devices += [Device(f"{name}{i}", "gpu", frozenset({name})) for i in range(4)]
    return Workload((Federation("lognormal", tuple(hubs), ROUNDS),), tuple(devices))


def _skewed(generator: Generator, num: int, log_sd: float, largest: float) -> list[float]:
    """Draw log-normal sizes, of which the largest is this share of all; 60 s on average."""
    while True:
        others = np.exp(log_sd * generator.standard_normal(num - 1))
        first = largest / (1.0 - largest) * others.sum()
        if first > others.max():
            sizes = generator.permutation(np.append(others, first))
            return [float(size) for size in 60.0 * num * sizes / sizes.sum()]


def _hospitals(generator: Generator, num: int, log_sd: float, largest: float) -> Workload:
    hub = Hub("hub", _sites(generator, _skewed(generator, num, log_sd, largest), 1.0))
    return Workload((Federation("hospitals", (hub,), ROUNDS),), _pool(4))


_fets = partial(_hospitals, num=23, log_sd=1.27, largest=0.41)


def _own_devices(generator: Generator) -> Workload:
    """Each hospital is a hub with one device, as where nobody pools."""
    (hospitals,) = _fets(generator).federations
    hubs = tuple(Hub(site.name, (site,), 1, frozenset({site.name})) for site in hospitals.hubs[0].sites)
    devices = tuple(Device(f"gpu-{hub.name}", "gpu", hub.labels) for hub in hubs)
    return Workload((Federation("hospitals", hubs, ROUNDS),), devices)


def _split(generator: Generator) -> Workload:
    """Split the two largest sites over two devices each."""
    pooled = _fets(generator)
    (hospitals,) = pooled.federations
    (hub,) = hospitals.hubs
    for site in sorted(hub.sites, key=lambda site: -site.duration_s)[:2]:
        hub = split_site(hub, site.name, 2)
    return replace(pooled, federations=(replace(hospitals, hubs=(hub,)),))


def _second_federation(generator: Generator) -> Workload:
    """Train a second model at the same hospitals at once; it takes each of them 0.5 to 1.5 times as long."""
    pooled = _fets(generator)
    (first,) = pooled.federations
    factor = float(generator.uniform(0.8, 1.2))
    (hub,) = first.hubs
    sites = tuple(replace(site, duration_s=site.duration_s * factor) for site in hub.sites)
    second = Federation("second", (replace(hub, sites=sites),), ROUNDS)
    return replace(pooled, federations=(first, second))


def _counted(generator: Generator, sizes: Sequence[int]) -> Workload:
    """Take real sizes; a round is a minute of work on average at each site."""
    durations_s = 60.0 * len(sizes) * np.array(sizes) / sum(sizes)
    hub = Hub("hub", _sites(generator, durations_s.tolist(), sum(sizes) / (60.0 * len(sizes))))
    return Workload((Federation("flamby", (hub,), ROUNDS),), _pool(4))


def _memory_bound(generator: Generator) -> Workload:
    federations = []
    for model, gigabytes in MODELS.items():
        durations_s = 20.0 * np.exp(0.5 * generator.standard_normal(16))
        sites = _sites(generator, durations_s.tolist(), 10.0, memory_bytes=int(gigabytes * GB), model=model)
        federations.append(Federation(model, (Hub("hub", sites),), ROUNDS))
    devices = tuple(Device(f"gpu{i}", "gpu", memory_bytes=16 * GB, places=4) for i in range(4))
    load_s = {model: 0.1 * gigabytes for model, gigabytes in MODELS.items()}
    return Workload(tuple(federations), devices, {}, (1.0, 1.5, 1.8, 2.0), load_s)


def _nations(generator: Generator, kappas: Sequence[int], num_sites: int, rounds: int) -> Workload:
    federations = []
    for number, kappa in enumerate(kappas):
        scale = float(np.exp(0.3 * generator.standard_normal()))
        hubs = tuple(
            Hub(
                nation,
                _sites(generator, (30.0 * scale * np.exp(generator.standard_normal(num_sites))).tolist(), 10.0),
                kappa,
                frozenset({nation}),
            )
            for nation in NATIONS
        )
        federations.append(Federation(f"fed{number}", hubs, rounds))
    devices = tuple(
        Device(f"{nation}-{kind}-{i}", kind, frozenset({nation}))
        for nation, kinds in NATIONS.items()
        for i, kind in enumerate(kinds)
    )
    return Workload(tuple(federations), devices, SPEEDS)


SCENARIOS: dict[str, Callable[[Generator], Workload]] = {
    "uniform-24x4": _uniform,
    "lognormal-48": _lognormal,
    "fets-23": _fets,
    "fets-23-own": _own_devices,
    "fets-23-split": _split,
    "fets-23-two": _second_federation,
    "fets-33": partial(_hospitals, num=33, log_sd=1.13, largest=0.14),
    "isic": partial(_counted, sizes=ISIC),
    "lidc": partial(_counted, sizes=LIDC),
    "kits": partial(_counted, sizes=KITS),
    "membound-mix": _memory_bound,
    "multi-fed-3": partial(_nations, kappas=(2, 2, 2), num_sites=6, rounds=5),
    "multi-fed-6": partial(_nations, kappas=(2, 2, 2, 2, 2, 2), num_sites=4, rounds=5),
    "multi-fed-kappa": partial(_nations, kappas=(1, 2, 4, 2), num_sites=5, rounds=5),
}
