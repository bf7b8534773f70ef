"""What privacy costs: epsilon of everything that a site's mechanism has released, counted by Google's dp-accounting.

Releases are composed by Renyi differential privacy (Mironov 2017; for a Gaussian on a Poisson sample Mironov, Talwar &
Zhang 2019, "Renyi Differential Privacy of the Sampled Gaussian Mechanism"), turned into (epsilon, delta) after Canonne,
Kamath & Steinke 2020. It is an upper bound: no true epsilon is above it. Its neighbours differ by a record that is
there in one of them only.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from hierfl.errors import ConfigError
from hierfl.learning.privacy import Release

__all__ = ["epsilon", "least_noise", "most_often"]

FINEST = 0.01
"""What the least noise multiplier is rounded up to."""

MOST_NOISE = 10_000.0


def epsilon(releases: Iterable[Release], delta: float) -> float:
    """Give the epsilon at delta of all releases together, on one site's records; 0 of none.

    Errors: ConfigError where dp-accounting is not installed.
    """
    counts: dict[tuple[float, float], int] = {}
    for release in releases:
        key = release.rate, release.noise_multiplier
        counts[key] = counts.get(key, 0) + release.count
    spent = {key: count for key, count in counts.items() if count}
    return _epsilon(tuple(sorted(spent.items())), delta) if spent else 0.0


def most_often(release: Release, delta: float, budget: float, most: int) -> int:
    """Give how often, at most `most` times, a release can be made for no more than the budget."""
    return _last(most, lambda times: epsilon([replace(release, count=release.count * times)], delta) <= budget)


def least_noise(release: Release, delta: float, budget: float) -> float | None:
    """Give the least noise multiplier, in hundredths, under which a release costs no more than the budget.

    None: no noise that makes sense does.
    """
    steps = math.ceil(MOST_NOISE / FINEST)

    def is_short(number: int) -> bool:
        noise = number * FINEST
        return epsilon([replace(release, noise_multiplier=noise)], delta) > budget

    number = 1 + _last(steps, is_short)
    return None if number > steps else round(number * FINEST, 2)


def _last(most: int, holds: Callable[[int], bool]) -> int:
    """Find the last number, from 0 to `most`, of those from 1 on for which something holds without a gap."""
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


@lru_cache(maxsize=4096)
def _epsilon(spent: tuple[tuple[tuple[float, float], int], ...], delta: float) -> float:
    """Add up Renyi divergences and turn them into epsilon."""
    from dp_accounting.rdp import compute_epsilon

    orders: Any = ()
    total: Any = 0.0
    for (rate, noise), count in spent:
        orders, divergences = _curve(rate, noise)
        total = total + count * divergences
    found = float(compute_epsilon(orders, total, delta)[0])
    assert found >= 0
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what the library says of orders that it leaves out: the bound holds without them."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@lru_cache(maxsize=4096)
def _curve(rate: float, noise_multiplier: float) -> tuple[Any, Any]:
    """Give the Renyi divergences of one release, and their orders; to find them takes a while."""
    try:
        import dp_accounting
        from dp_accounting.rdp import RdpAccountant
    except ModuleNotFoundError as error:
        raise ConfigError("what privacy costs is counted by dp-accounting: pip install 'hierfl[privacy]'") from error
    counted = RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    gaussian = dp_accounting.GaussianDpEvent(noise_multiplier)
    with _quiet():
        counted.compose(gaussian if rate >= 1.0 else dp_accounting.PoissonSampledDpEvent(rate, gaussian))
    return counted._orders, counted._rdp  # the library gives them no name; to add them up costs nothing then
