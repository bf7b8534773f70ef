"""W1: many small sites. An MLP of 1e5 parameters, one SGD step on 32 samples at each of N sites: seconds per round."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

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
    case,
    in_turns,
)

LIMITS_RAY_S = {8: 0.04, 32: 0.06, 128: 0.2}
RAW_S = {8: 0.007, 32: 0.023, 128: 0.09}
"""What the raw loop took where these limits were set."""
LIMIT_LOCAL = 1.5

TURNS = {8: (22, 10), 32: (12, 10), 128: (10, 3)}
"""How often hierfl's `local` and the raw loop take turns in one process, and of how many rounds."""


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
        turns, turn = (4, 2) if size.quick else TURNS[sites]
        beside = replace(setting, turn=turn, rounds=turns * turn)
        limits = {"limit_s": LIMITS_RAY_S[sites], "first_s": RAW_S[sites]} if sites in LIMITS_RAY_S else {}
        yield Work(
            f"W1, {sites} sites",
            "s per round",
            [
                *(case(who, setting) for who in (RAW, RAW_ONE, POOL, POOL_SUMS)),
                *(case(in_turns(who), beside, limit_ratio=LIMIT_LOCAL) for who in (LOCAL, LOCAL_ONE)),
                case(in_turns(LOCAL_KEPT), beside),
                case(RAY, setting, **limits),
                *(case(who, setting) for who in (RAY_KEPT, RAY_TWO, RAY_VOTE)),
            ],
        )
