"""W2: a large model. 25e6 float32 parameters, no training: seconds per round, and memory, the same for any N."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.common import GIB, Size, Work
from benchmarks.contenders.setting import Setting
from benchmarks.rounds import LINKS, LOCAL, LOCAL_KEPT, POOL, RAW, RAY, RAY_KEPT, RAY_TWO, RAY_VOTE, Contender, case

LIMIT_S = 0.75
RAW_S = 0.36
"""What the raw loop took where the limit was set."""
LIMIT_BYTES = int(2.5 * GIB)
MANY = 32


def works(size: Size) -> Iterator[Work]:
    for sites in (8, MANY) if not size.quick else (2,):
        setting = Setting(
            sites=sites,
            num_parameters=size.pick(25_000_000, 100_000),
            rounds=size.pick(10 if sites == 8 else 6, 4),
            warm_up=size.pick(2, 1),
            local_steps=0,
        )
        several = (RAW, POOL, LOCAL, LOCAL_KEPT, RAY, RAY_KEPT, RAY_TWO, RAY_VOTE)
        limits: dict[Contender, dict[str, Any]] = {
            LOCAL: {"limit_bytes": LIMIT_BYTES},
            RAY: {"limit_bytes": LIMIT_BYTES, **({"limit_s": LIMIT_S, "first_s": RAW_S} if sites == 8 else {})},
            LINKS: {"limit_s": 2 * LIMIT_S, "first_s": RAW_S},
        }
        yield Work(
            f"W2, {sites} sites",
            "s per round",
            [
                case(who, setting, memory=True, **limits.get(who, {}))
                for who in (several if sites == MANY else (*several, LINKS))
            ],
        )
