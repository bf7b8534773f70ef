"""`python -m benchmarks`: measure everything in one run and print one table; it takes about half an hour.

Some comparisons have a table and options of their own: `python -m benchmarks scheduler` (policies in simulated time),
`python -m benchmarks live` (the same on a clock, beside the simulator), `python -m benchmarks participation` (rounds
that do not wait for all), `python -m benchmarks colocation` (small models side by side on one GPU) and `python -m
benchmarks attacks` (rules against bad sites), `python -m benchmarks links` (updates between institutions).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import (
    aggregation,
    attacks,
    colocation,
    links,
    live_schedule,
    participation,
    scale,
    scheduler,
    w1,
    w2,
    w3,
)
from benchmarks.common import GIB, Row, Size, in_words, machine, measure, table
from benchmarks.processes import Failed

WORKS = {"w1": w1, "w2": w2, "w3": w3, "aggregation": aggregation, "scale": scale}
APART = {
    "attacks": attacks,
    "colocation": colocation,
    "links": links,
    "live": live_schedule,
    "participation": participation,
    "scheduler": scheduler,
}
HEADER = ("work", "contender", "time", "x first", "memory", "limit", "held")


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in APART:
        return int(APART[arguments[0]].main(arguments[1:]))
    options = _options(arguments)
    size = Size(options.quick, 1 if options.quick else options.turns)
    said = machine()
    print(in_words(said))
    begun, load = time.time(), os.getloadavg()[0]
    rows: list[Row] = []
    failed = False
    for work in (work for name in options.only or WORKS for work in WORKS[name].works(size)):
        try:
            rows.extend(measure(work, size.turns, lambda text: print(text, file=sys.stderr)))
        except Failed as error:
            print(f"{work.name}: {error}", file=sys.stderr)
            failed = True
        if options.json is not None:  # after each work: what is measured is kept, whatever comes
            _write(options.json, {**said, "quick": size.quick}, rows)
    print(f"{size.turns} turns, {time.time() - begun:.0f} s; load of the machine before: {load:.1f}\n")
    print(table(HEADER, map(_cells, rows)))
    return int(failed)


def _write(path: Path, said: dict[str, Any], rows: Sequence[Row]) -> None:
    """Write what was found so far."""
    found = {**said, "rows": [dataclasses.asdict(row) | {"held": row.held} for row in rows]}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that it works: the figures mean nothing"
    )
    parser.add_argument("--only", action="append", choices=sorted(WORKS), help="this work only; may be repeated")
    parser.add_argument("--turns", type=int, default=3, help="how often the contenders take turns (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args(arguments)
    if options.turns < 1:
        parser.error(f"--turns {options.turns}: 1 or more")
    return options


def _cells(row: Row) -> tuple[str, ...]:
    """Write one row."""
    held = "as ratio" if row.held and row.held_as_ratio else {None: "", True: "yes", False: "NO"}[row.held]
    return (
        *(f"{row.work} ({row.what})", row.contender, _seconds(row.seconds), f"{row.ratio:.2f}"),
        _memory(row.peak_bytes),
        _limits(row.limits),
        held,
    )


def _limits(limits: Mapping[str, float]) -> str:
    """Write a row's limits; seconds and what they were as a ratio are one."""
    said = {"seconds": _seconds, "ratio of seconds": _ratio, "ratio": _ratio, "peak_bytes": _memory}
    words = ", ".join(said[name](limit) for name, limit in limits.items())
    return words.replace(", ", " or ", 1) if "ratio of seconds" in limits else words


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def _ratio(value: float) -> str:
    return f"{value:.3g} x"


def _memory(value: float | None) -> str:
    return "" if value is None else f"{value / GIB:.2f} GiB"


if __name__ == "__main__":
    sys.exit(main())
