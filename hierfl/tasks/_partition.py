"""Cutting one data set into the shards of many sites, the same ones in every process.

Chance comes from `numpy.random.RandomState`, whose stream is frozen for good (NEP 19), so a shard stays the same under
every version of NumPy.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import ConfigError, DataError, Problem

__all__ = [
    "PARTITIONS",
    "Shard",
    "bundled",
    "partition",
    "shard",
    "site_names",
    "site_number",
    "test_mask",
    "test_mask_of_groups",
]

PARTITIONS = ("dirichlet", "by_class", "iid")

Indices = NDArray[np.int64]
Shard: TypeAlias = tuple[Indices, NDArray[np.bool_]]
"""A site's samples, as indices into the data set, and which of them are for the test."""


def site_names(num_sites: int) -> list[str]:
    """List the keys of the sites: site-0, site-1, ..."""
    return [f"site-{i}" for i in range(num_sites)]


def site_number(site: str, num_sites: int) -> int:
    """Return n of site-n. Errors: DataError for an unknown site."""
    digits = site.removeprefix("site-")
    number = int(digits) if digits.isdecimal() else num_sites
    if number >= num_sites or site != f"site-{number}":
        raise DataError(f"site {site!r}: the task has site-0 to site-{num_sites - 1} (num_sites sets how many)")
    return number


@lru_cache(maxsize=4)
def bundled(name: str) -> tuple[NDArray[np.float64], Indices]:
    """Load features (n, d) and labels (n,) of a data set that comes with scikit-learn ("digits", "breast_cancer").

    Errors: ConfigError where scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise ConfigError(
            [Problem("kind", f"{name} needs scikit-learn, which is not installed: pip install 'hierfl[tasks]'")]
        ) from error
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return x, y.astype(np.int64)


def shard(name: str, site: str, num_sites: int, how: str, alpha: float, seed: int) -> Indices:
    """Return one site's samples of a bundled data set, as indices in a random order.

    Errors: DataError for an unknown site; ConfigError for more sites than samples.
    """
    return _shards(name, num_sites, how, alpha, seed)[site_number(site, num_sites)]


def partition(labels: Indices, num_sites: int, how: str, alpha: float, seed: int) -> list[Indices]:
    """Deal out n samples to sites; every sample goes to one site and every site gets at least one.

    "iid": at random, in equal numbers. "by_class": sorted by class, then cut, so that a site sees few classes (McMahan
    et al. 2017, with one cut per site). "dirichlet": each class is dealt out by shares from a symmetric Dirichlet
    (alpha) over the sites, uneven in classes and in number (Yurochkin et al. 2019); a small alpha is more uneven.
    """
    if num_sites > len(labels):
        raise ConfigError([Problem("num_sites", f"{num_sites} sites cannot share {len(labels)} samples")])
    random = np.random.RandomState(seed)
    order = random.permutation(len(labels))
    if how == "iid":
        return np.array_split(order, num_sites)
    by_class = order[np.argsort(labels[order], kind="stable")]
    if how == "by_class":
        return [random.permutation(part) for part in np.array_split(by_class, num_sites)]
    sites: list[list[Any]] = [[] for _ in range(num_sites)]
    for members in np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1):
        shares = random.dirichlet(np.full(num_sites, alpha))
        if not np.isfinite(shares).all():  # a tiny alpha underflows; its limit is one site for the whole class
            shares = np.eye(num_sites)[random.randint(num_sites)]
        cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for mine, part in zip(sites, np.split(members, cuts), strict=True):
            mine.extend(part)
    for mine in sites:
        if not mine:
            mine.append(max(sites, key=len).pop())
    return [random.permutation(np.array(mine, dtype=np.int64)) for mine in sites]


def test_mask(num_samples: int, fraction: float, site: str, seed: int) -> NDArray[np.bool_]:
    """Choose a site's test samples, round(fraction * n) of n but never all; bool (n,), by seed and site."""
    num_test = min(round(fraction * num_samples), max(num_samples - 1, 0))
    random = np.random.RandomState([seed, zlib.crc32(site.encode())])
    mask = np.zeros(num_samples, dtype=np.bool_)
    mask[random.permutation(num_samples)[:num_test]] = True
    return mask


def test_mask_of_groups(groups: NDArray[np.int64], fraction: float, site: str, seed: int) -> NDArray[np.bool_]:
    """Choose a site's test samples by whole groups, (n,) their numbers from 0 on: as near to fraction * n samples as
    the first of the drawn groups come, and never all.
    """
    sizes = np.bincount(groups)
    random = np.random.RandomState([seed, zlib.crc32(site.encode())])
    drawn = random.permutation(len(sizes))
    filled = np.concatenate([[0], np.cumsum(sizes[drawn])[:-1]])
    num_groups = int(np.argmin(np.abs(filled - fraction * len(groups))))
    return np.isin(groups, drawn[:num_groups])


@lru_cache(maxsize=4)
def _shards(name: str, num_sites: int, how: str, alpha: float, seed: int) -> list[Indices]:
    """Deal out a bundled data set once per process."""
    return partition(bundled(name)[1], num_sites, how, alpha, seed)
