"""How numbers read: the same figure has the same words on the screen, in the log and in the report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

__all__ = [
    "FIGURES",
    "UNDEFINED",
    "WHAT_FIGURES_MEAN",
    "WHY_UNDEFINED",
    "count",
    "few",
    "figure",
    "finite",
    "interval",
    "metric",
    "num_bytes",
    "percent",
    "plural",
    "seconds",
    "spoken",
    "told_apart",
]

FIGURES = {
    "idle_fraction": "idle",
    "idle_floor": "floor",
    "idle_avoidable": "avoidable",
    "efficiency": "efficiency",
    "goodput": "goodput",
}
"""The figures of how devices were used, as summary.json names them, and what they read."""

WHAT_FIGURES_MEAN = (
    "Idle is the part of the devices' time in which they neither trained nor measured; floor the part of it that no"
    " order of the work could avoid, avoidable the rest. Efficiency is the least time that the work takes, over the"
    " time that it took; goodput the work, as it takes alone on a device, over the devices' time: above 100% where"
    " jobs share a device and gain by it."
)
"""What the figures are, for a reader of a page who has not read docs/scheduling.md."""

UNDEFINED = "\N{EN DASH}"
"""What stands for a metric that is not defined, here as in the literature: never 0, never NaN."""

WHY_UNDEFINED = f"{UNDEFINED} undefined: AUC needs test samples of both classes at the node."

_NOUGHT = 1e-12
"""What rounding leaves, as of the deviation of figures that are equal, is below this."""


def few(names: Sequence[str]) -> str:
    """Name a few, and count the rest."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def spoken(name: str) -> str:
    """Write a name from a task's code as words."""
    return name.replace("_", " ")


def finite(value: object) -> float | None:
    """Take a number as a float; None for anything that is not one, NaN and infinities included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def metric(value: object) -> str:
    """Write a metric with three decimals ("0.873"), a dash where it is undefined, an exponent where it is large or
    these would say nothing of it ("4.59e-06").
    """
    return figure(value, 3, below=1e3)


def figure(value: object, decimals: int, *, below: float) -> str:
    """Write a number with its decimals, from 0.001 to `below`; any other with an exponent and as many digits."""
    number = finite(value)
    if number is None:
        return UNDEFINED
    if abs(number) < _NOUGHT:
        number = 0.0
    plain = number == 0.0 or 1e-3 <= abs(number) < below
    return f"{number:.{decimals}f}" if plain else f"{number:.{decimals - 1}e}"


def interval(scalars: Mapping[str, object], name: str) -> str:
    """Write the confidence interval of a node's figure behind it (" (0.846-0.915)"); nothing where it has none."""
    found = scalars.get("intervals")
    ends = found.get(name) if isinstance(found, Mapping) else None
    return f" ({metric(ends[0])}-{metric(ends[1])})" if ends else ""


def count(value: object) -> str:
    """Write a count with thousands apart ("10,000"), a dash where there is none."""
    number = finite(value)
    return UNDEFINED if number is None else f"{number:,.0f}"


def plural(number: int, noun: str) -> str:
    """Write how many of what there are ("1 hub", "10,000 sites")."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def percent(fraction: object) -> str:
    """Write a fraction as whole percent ("87%"), a dash where there is none."""
    number = finite(fraction)
    return UNDEFINED if number is None else f"{100 * number:.0f}%"


def gigabytes(num_bytes: float) -> str:
    """Write an amount of memory in GB of 1e9 bytes."""
    return f"{num_bytes / 1e9:.1f} GB"


def num_bytes(value: float) -> str:
    """Write an amount of data in the unit that fits, of 1000 each: "312 B", "4.5 kB", "1.2 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def seconds(value: object) -> str:
    """Write a duration as a person says it: "40 ms", "1.24 s", "3 min 05 s", "2 h 07 min", or a dash."""
    number = finite(value)
    if number is None:
        return UNDEFINED
    if number < 0.0995:
        return f"{1000 * number:.0f} ms"
    if number < 59.95:
        return f"{number:.2f} s" if number < 9.995 else f"{number:.1f} s"
    whole = round(number)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def told_apart(names: Sequence[str]) -> list[str]:
    """Make names differ for people: the second "heart" is "heart 2"."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name + (f" {seen[name]}" if seen[name] > 1 else ""))
    return found
