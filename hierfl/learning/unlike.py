"""Sites whose features are not what the others call so: another unit (m for cm, Fahrenheit), a code for what is missing
(-9, 999) among the values, a column that was never filled in, words that are others to a category "*". The model would
learn which site it is from them.

Found in the moments by which the federation standardises anyway, or in those that sites tell of their tables' columns:
nothing more leaves a site.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.standardise import Moments
from hierfl.learning.task import IS_MISSING

__all__ = ["Unlike", "asked", "unlike", "unlike_columns"]

FEWEST = 20
"""Records of a site from which on its figures are judged: those of a few say little."""

TIMES = 10.0
"""Deviations by which a mean, or times by which a deviation, departs from the typical site's."""

ANOTHER_UNIT = 2.0
"""Times by which both mean and deviation depart, about alike, where ten deviations are seen from the nearer side."""

CHANCE = 1e-9
"""How likely a feature is the same in all records of a site, at most, if it is there as it is typically."""

MOST = 1_000_000
"""Figures of all sites together that are looked through at a run's start, which is a second's work."""

SHOWN = 3
"""Features that a warning names of a site."""

OF_VALUES = "is it the same quantity, in the same unit, with no code for gaps?"
OF_GAPS = (
    "if it stands there under another name, rename the column; if it is not measured there, the model learns from that"
    " which site a record is of: do without the column, or without the feature that says so (flag_gaps)"
)

_Table: TypeAlias = NDArray[np.float64]
"""Figures by site and feature, (S, d)."""


@dataclass(frozen=True, slots=True)
class Unlike:
    """A feature of a site that departs from the typical site's, in a few words; `is_gap`: it says that a column has no
    value in all records of the site, which the others have.
    """

    said: str
    is_gap: bool = False


def unlike(moments: Mapping[str, Moments], names: object = None) -> dict[str, list[Unlike]]:
    """Say by site which of its features depart from the typical site's, the median's.

    `moments`: of all sites, alike in their features; `names`: a list of the features' names, if it is one.

    Of features of 0 and 1, which may be rare, those are told that have the value that is rarer in all records of a
    site; where they vary at no site, of one site alone: several have them as they have a country. Left out are others
    that vary at fewer than half of the sites, and sites of fewer than 20 records.
    """
    judged = {site: one for site, one in moments.items() if one.count >= FEWEST}
    num_features = len(next(iter(judged.values())).sums) if judged else 0
    if len(judged) < 2 or len(judged) * num_features > MOST:
        return {}
    called: Sequence[Any] = [f"feature {place}" for place in range(num_features)]
    if isinstance(names, list | tuple) and len(names) == num_features:
        called = names
    return _compared({site: _Figures.of([one]) for site, one in judged.items()}, called, "records")


def unlike_columns(told: Mapping[str, Mapping[str, Moments]]) -> dict[str, list[Unlike]]:
    """Say by site which of its columns depart from the typical site's, as `unlike` does of features.

    `told`: by site, the moments of each column that it tells those of. What the same sites tell is looked at together.
    """
    tellers: dict[str, list[str]] = {}
    for site, columns in told.items():
        for name, one in columns.items():
            if one.count >= FEWEST:
                tellers.setdefault(name, []).append(site)
    if sum(map(len, tellers.values())) > MOST:
        return {}
    together: dict[tuple[str, ...], list[str]] = {}
    for name, sites in tellers.items():
        if len(sites) > 1:
            together.setdefault(tuple(sites), []).append(name)
    found: dict[str, list[Unlike]] = {}
    for group, names in together.items():
        figures = {site: _Figures.of([told[site][name] for name in names]) for site in group}
        for site, said in _compared(figures, names, "values").items():
            found.setdefault(site, []).extend(said)
    return {site: found[site] for site in told if site in found}


class _Figures(NamedTuple):
    """One site's features, each of shape (d,): mean and deviation, 0 of a constant one, how many values they are of,
    and whether these are as if they were 0 and 1.
    """

    means: NDArray[np.float64]
    stds: NDArray[np.float64]
    counts: NDArray[np.int64]
    is_share: NDArray[np.bool_]

    @classmethod
    def of(cls, parts: Sequence[Moments]) -> _Figures:
        """Take the features of moments one after the other; those of as many values at once, which is much faster."""
        found = []
        for count, alike in groupby(parts, key=lambda one: one.count):
            sums, squares = zip(*((one.sums, one.squares) for one in alike), strict=True)
            whole = Moments(count, tuple(chain.from_iterable(sums)), tuple(chain.from_iterable(squares)))
            means, stds = whole.mean_and_std()
            stds[whole.is_constant] = 0.0
            found.append((means, stds, np.full(len(means), count), np.array(whole.is_indicator)))
        return cls(*map(np.concatenate, zip(*found, strict=True)))


def _compared(judged: Mapping[str, _Figures], names: Sequence[Any], what: str) -> dict[str, list[Unlike]]:
    """Hold the features of sites against each other, those of which there are as many `names`; `what` are counted."""
    means, stds, counts, is_share = map(np.array, zip(*judged.values(), strict=True))
    is_everywhere = np.all(is_share, axis=0)
    is_number = ~is_everywhere & (2 * (stds > 0.0).sum(axis=0) >= len(judged))
    told = {
        **_unlike_shares(means, stds, counts, is_everywhere),
        **_unlike_numbers(means, stds, counts, is_share, is_number),
    }
    found: dict[str, list[Unlike]] = {}
    for (row, place), typically in sorted(told.items()):
        site, mean, std, name = list(judged)[row], means[row, place], stds[row, place], str(names[place])
        counted = f"{counts[row, place]:,} {what}"
        own = f"{mean:.4g} ± {std:.3g}" if std else f"{mean:.4g} in all {counted}"
        one = Unlike(f"{name} is {own}, typically {typically}")
        if is_everywhere[place] and name.endswith(IS_MISSING):  # of 0 and 1, and here one of them in all records
            none = f"{name} in none of {counted}, typically {typically.removeprefix('1 ')}"
            one = Unlike(f"{name} in all {counted}, and others have it", is_gap=True) if mean else Unlike(none)
        found.setdefault(site, []).append(one)
    return found


def asked(differing: Sequence[Unlike]) -> Iterator[str]:
    """Give the warnings of one site: what departs there, and what may be the reason, with the way out."""
    for question, is_gap in ((OF_VALUES, False), (OF_GAPS, True)):
        said = [one.said for one in differing if one.is_gap is is_gap]
        if said:
            more = f"; and {len(said) - SHOWN} more" if said[SHOWN:] else ""
            yield f"{'; '.join(said[:SHOWN])}{more}: {question}"


def _unlike_numbers(
    means: _Table, stds: _Table, counts: NDArray[np.int64], is_share: NDArray[np.bool_], at: NDArray[np.bool_]
) -> dict[tuple[int, int], str]:
    """Find features that lie elsewhere, or vary otherwise, and say what is typical; by places of site and feature.

    A value c in all n records is chance for what is rarely another one, days on a ventilator say: with mean m and
    deviation s a draw is c with a probability of s^2 / (s^2 + (m - c)^2) at most (Cantelli's inequality).
    """
    varies = stds > 0.0
    of_mean, of_std = (_typical(values, varies, at) for values in (means, stds))
    off = np.abs(means - of_mean)
    with np.errstate(all="ignore"):
        is_chance = ~varies & (counts * np.log1p((off / of_std) ** 2) < -np.log(CHANCE))
        by_mean, by_std = means / of_mean, stds / of_std
        is_unit = (by_std / 2 < by_mean) & (by_mean < by_std * 2) & (np.maximum(by_std, 1 / by_std) > ANOTHER_UNIT)
    is_far = off > TIMES * np.where(is_unit, np.minimum(stds, of_std), np.maximum(stds, of_std))
    is_far |= (stds > TIMES * of_std) | ((stds < of_std / TIMES) & ~is_chance)
    is_mostly_share = 2 * (is_share & varies).sum(axis=0) >= varies.sum(axis=0)
    is_far |= is_mostly_share & ((means < 0.0) | (means > 1.0))  # 1 and 2 for 0 and 1, or a code among them
    return {(r, c): f"{of_mean[r, c]:.4g} ± {of_std[r, c]:.3g}" for r, c in np.argwhere(is_far & at).tolist()}


def _unlike_shares(
    means: _Table, stds: _Table, counts: NDArray[np.int64], at: NDArray[np.bool_]
) -> dict[tuple[int, int], str]:
    """Find features of 0 and 1 that are everywhere what is rarer, and say how frequent 1 is typically; likewise."""
    of_mean = _typical(means, np.ones_like(means, np.bool_), at)
    with np.errstate(divide="ignore"):
        chance = np.log(np.where(means == 0.0, 1.0 - of_mean, of_mean)) * counts
    is_rarer = ((means == 0.0) & (of_mean >= 0.5)) | ((means == 1.0) & (of_mean <= 0.5))
    is_far = is_rarer & (chance < np.log(CHANCE)) & at
    is_of_sites = ~(stds > 0.0).any(axis=0)
    lone = is_far & is_of_sites & (is_far.sum(axis=0) == 1)
    if 2 * lone.any(axis=1).sum() > len(means):  # each has a country of its own
        lone[:] = False
    is_far = np.where(is_of_sites, lone, is_far)
    return {(r, c): f"1 in {of_mean[r, c]:.0%} of them" for r, c in np.argwhere(is_far).tolist()}


def _typical(values: _Table, varies: NDArray[np.bool_], at: NDArray[np.bool_]) -> _Table:
    """Give what is typical beside each site: the median of the sites where a feature varies, of two the other's value;
    0 where no feature is looked `at`.
    """
    if len(values) == 2:
        return np.where(at, np.where(varies[::-1], values[::-1], values), 0.0)
    medians = np.zeros(values.shape[1])
    medians[at] = np.nanmedian(np.where(varies, values, np.nan)[:, at], axis=0)
    return np.broadcast_to(medians, values.shape)
