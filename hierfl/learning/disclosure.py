"""What a site may tell of a column, so that no number stands for few records: rules on its own values, before any sum.

Rare values and bins are put together with others (microaggregation and suppression, Hundepool et al. 2012, *Statistical
Disclosure Control*, ch. 3 and 5). Moments are kept back where they would count few, or tell one value, far from all
others: the p% rule (ch. 4 there), with Samuelson's bound (1968, "How Deviant Can You Be?") as what sum and sum of
squares say of it together. What else is told of a column counts as known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_CHARACTERS", "alike", "pooled", "tells_few", "tells_one", "together"]

MOST_CHARACTERS = 64
"""A longer word is told as one of the others: it may be free text."""

_DOMINANT = 0.1
"""The p of the p% rule: as near as that nobody shall be able to tell the one value that is farthest from all others."""

_FINE = 0.01
"""Rounding that moves a value on average by half of this part of a column's range changes no figure a person reads."""

_FEW = 20
"""With so many different values, or fewer, one may know what they can be, whatever is counted one by one."""

_BLUR = 2.0**-22
"""A decimal as float32 lies no nearer, relative to itself."""

_WINDOWS, _WIDEST = 16, 4096
"""At how many places of a column a step is looked for, and to how many values on either side it is fitted."""


def tells_few(distinct: NDArray[np.float64], counts: NDArray[np.int64], least: int, counted: int, bins: int) -> bool:
    """Say whether moments tell a number of few records; `counts`: of each of the `distinct` values; `counted`: how many
    are counted one by one; `bins`: 0 where there are none.

    With the count, sum and sum of squares are three equations in how often each value is there. Of a code nobody has to
    guess which values there can be: each has to be frequent, and bins would say which is not. Else the rare ones have
    to be as many as records are asked for, or none; or there are more values than are counted one by one, or nearly so.
    """
    num_rare = int((counts < least).sum())
    if not np.mod(distinct, 1).any() and distinct[-1] - distinct[0] < _FEW:
        return bool(num_rare) or (bins > 0 and len(distinct) > 1)
    return 0 < num_rare < least and len(distinct) <= max(_FEW, counted, 2 * bins)


def tells_one(values: NDArray[np.float64], least: int) -> bool:
    """Say whether count, sum and sum of squares of values (n,) tell how far the farthest is from the middle, to one who
    knows the second farthest.

    Of m = n - 1 numbers none is above mean + deviation * sqrt(m - 1): it is as far as that if all others are alike. The
    farthest is told if that bound is less than `_DOMINANT` of its distance from the median beyond it.
    """
    if least < 3 or len(values) < 3:
        return False
    order = np.argsort(np.abs(values - np.median(values)))
    one, others = values[order[-1]] - np.median(values), values[order[:-2]] - np.median(values)
    number, from_mean = len(others), abs(one - others.mean())
    spread = float(np.square(others - others.mean()).sum())
    share = number / (number + 1)
    bound = from_mean / (number + 1) + math.sqrt(share * spread + (share * from_mean) ** 2)
    return bool(bound - from_mean < _DOMINANT * abs(one))


def alike(distinct: NDArray[np.float64], counts: NDArray[np.int64], least: int) -> NDArray[np.float64] | None:
    """Round those of the `distinct` values (k,), sorted, that are given more finely than most, if they are fewer than
    `least`: what a sum has beyond the others' grid, 0.25 of ages in whole years, is theirs alone. None where that would
    change more than digits. `counts`: how often each is there.
    """
    for start, step, share in sorted(_grids(distinct, counts, least), key=lambda one: -round(math.log(one[1]), 6)):
        blur = _BLUR * np.maximum(np.abs(distinct), abs(start))
        if float(blur.max()) >= step / 4:
            break
        rounded = start + step * np.round((distinct - start) / step)
        is_off = np.abs(distinct - rounded) > blur
        num_off = int(counts[is_off].sum())
        if 0 < num_off < least and share * num_off <= counts.sum():
            is_fine = step * num_off <= _FINE * (distinct[-1] - distinct[0]) * counts.sum()
            return np.where(is_off, rounded, distinct) if is_fine else None
    return distinct


def pooled(counts: Mapping[str, int], total: int, least: int, most: int) -> tuple[dict[str, int], int]:
    """Give the `most` values that enough records of `total` share, the most frequent first, and how many have another.

    Where fewer than `least` have, the rarest value that was to be told is put to them.
    """
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    told = [one for one in ordered if one[1] >= least and len(one[0]) <= MOST_CHARACTERS][:most]
    others = total - sum(count for _, count in told)
    while 0 < others < least and told:
        others += told.pop()[1]
    return dict(told), others


def together(counts: Sequence[int], least: int) -> tuple[tuple[int, ...], list[int]]:
    """Put bins of fewer than `least` values together with the next, empty ones between included; give the counts as
    they are told, each half way of its group, and where those of each bin are told.

    There are `least` values in all. A group begins behind the last one, and ends where it has enough; the last ends
    with the bins. A bin that has enough left for itself lends what lacks, and stays where it is.
    """
    groups = list[tuple[int, int, int]]()  # first bin, last bin, values
    behind, few = 0, 0
    for place, count in enumerate(counts):
        is_few, few = few > 0, few + count
        if few < least:
            continue
        if is_few and few - least >= least:
            groups += [(behind, place, least), (place, place, few - least)]
        else:
            groups.append((behind if is_few else place, place, few))
        behind, few = place + 1, 0
    if few:
        first, last, count = groups.pop()
        lends = count + few - least >= least
        groups += [(first, last, count + few - least), (last, len(counts) - 1, least)] if lends else []
        groups += [] if lends else [(first, len(counts) - 1, count + few)]
    told, where = [0] * len(counts), list(range(len(counts)))
    for first, last, count in sorted(groups, key=lambda one: one[0] - one[1]):  # lenders after those they lend to
        middle = (first + last) // 2
        told[middle] += count
        where[first : last + 1] = [middle] * (last + 1 - first)
    return tuple(told), where


def _grids(distinct: NDArray[np.float64], counts: NDArray[np.int64], least: int) -> Iterator[tuple[float, float, int]]:
    """Give grids on which values (k,), sorted, may lie: one point, the step, and how many values there have to be for
    each that is off it. Of powers of ten anybody would think; others may be there by chance.

    A value that is frequent is on the grid; of the others, looked at four by four, most are.
    """
    yield from ((0.0, 10.0**power, 2) for power in range(6, -7, -1))
    frequent, seen = np.flatnonzero(counts >= least)[:_WINDOWS], set[tuple[float, float]]()
    starts = np.unique(np.linspace(0, len(distinct) - 4, _WINDOWS if len(distinct) > 3 else 0).astype(int))
    for places in [*([frequent] if len(frequent) > 2 else []), *(np.arange(start, start + 4) for start in starts)]:
        start = float(distinct[places[0]])
        step = _fitted(distinct, int(places[0]), _common(np.diff(distinct[places]).tolist()), least)
        key = (round(math.log(step), 6), round(start / step % 1, 3) % 1) if step else None
        if step and key and key not in seen:
            seen.add(key)
            yield start, step, 10


def _common(steps: Sequence[float]) -> float:
    """Find the greatest step of which all these are multiples (Euclid), but for a hundredth of it or so."""
    found = 0.0
    for step in steps:
        large, small = max(found, step), min(found, step)
        while small and (rest := abs(math.remainder(large, small))) > 2.0**-7 * small:
            large, small = small, rest
        found = small or large
    return found


def _fitted(distinct: NDArray[np.float64], place: int, step: float, least: int) -> float | None:
    """Fit a step (least squares) to more and more of the values around one of them, if fewer than `least` are off it;
    None where more are, or float32 would not show it.
    """
    start, wide = distinct[place], 4
    while True:
        near = distinct[max(place - wide, 0) : place + wide + 1]
        blur = 2 * _BLUR * np.maximum(np.abs(near), abs(start))
        if step < 8 * blur.max():
            return None
        times = np.round((near - start) / step)
        is_on = np.abs(near - start - times * step) <= blur
        if (~is_on).sum() >= least or not times[is_on].any():
            return None
        step = float((near - start)[is_on] @ times[is_on] / np.square(times[is_on]).sum())
        if wide >= min(len(distinct), _WIDEST):
            return step
        wide *= 2
