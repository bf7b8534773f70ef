"""Scale: 10,000 made-up sites under 100 hubs, three rounds, of which the second counts; and 1,000 under 10.

Data are made anew at each visit: no contender keeps ten thousand sites. hierfl writes a line for each node and round.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.common import Size, Work
from benchmarks.contenders.setting import Setting
from benchmarks.rounds import LOCAL, RAW_ONE, RAY, case

PER_HUB = 100


def works(size: Size) -> Iterator[Work]:
    for sites in (1000, 10_000) if not size.quick else (20,):
        hubs = max(2, sites // PER_HUB)
        setting = Setting(sites, num_parameters=1000, rounds=3, warm_up=1, hubs=hubs)
        cases = [case(who, setting, memory=True) for who in (RAW_ONE, LOCAL, RAY)]
        yield Work(
            f"scale, {sites:,} sites under {hubs} hubs", "s per round", cases, max_turns=3 if sites <= 1000 else 1
        )
