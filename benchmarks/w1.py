"""W1: many small sites. An MLP of 1e5 parameters, one SGD step on 32 samples at each of N sites: seconds per round."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.common import Size, Work
from benchmarks.contenders.setting import Setting
from benchmarks.rounds import (
    LOCAL,
    LOCAL_KEPT,
    LOCAL_ONE,
    POOL,
    POOL_SUMS,
    RAW,
    RAW_ONE,
    RAY,
    RAY_KEPT,
    RAY_TWO,
    RAY_VOTE,
    Contender,
    case,
)

LIMITS_RAY_S = {8: 0.04, 32: 0.06, 128: 0.2}
RAW_S = {8: 0.007, 32: 0.023, 128: 0.09}
"""What the raw loop took where these limits were set."""
LIMIT_LOCAL = 1.5

MIN_TURNS = {8: 15, 32: 9, 128: 5}
"""A turn is a second of rounds of milliseconds: on a shared machine one turn's ratio is half as much as another's."""

IN_ONE_PROCESS = (RAW, RAW_ONE, LOCAL, LOCAL_ONE, LOCAL_KEPT)
ON_RAY = (RAW, POOL, POOL_SUMS, RAY, RAY_KEPT, RAY_TWO, RAY_VOTE)
"""Apart, so that the raw loop and what is to be near it run one right after the other."""


def works(size: Size) -> Iterator[Work]:
    for sites in (8, 32, 128) if not size.quick else (2,):
        setting = Setting(
            sites=sites,
            num_parameters=size.pick(100_000, 5000),
            rounds=size.pick({8: 50, 32: 20, 128: 12}.get(sites, 0), 4),
            warm_up=size.pick(3, 1),
            network="mlp",
            num_features=size.pick(784, 20),
        )
        limits: dict[Contender, dict[str, float]] = {
            LOCAL: {"limit_ratio": LIMIT_LOCAL},
            LOCAL_ONE: {"limit_ratio": LIMIT_LOCAL},
            RAY: {"limit_s": LIMITS_RAY_S[sites], "first_s": RAW_S[sites]} if sites in LIMITS_RAY_S else {},
        }
        for name, several, min_turns in (
            (f"W1, {sites} sites", IN_ONE_PROCESS, size.pick(MIN_TURNS.get(sites, 0), 1)),
            (f"W1, {sites} sites, on Ray", ON_RAY, 1),
        ):
            cases = [case(who, setting, **limits.get(who, {})) for who in several]
            yield Work(name, "s per round", cases, min_turns=min_turns)
