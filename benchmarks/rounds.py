"""The contenders of works that count seconds per round."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.common import Case, Sample
from benchmarks.contenders.setting import Setting
from benchmarks.processes import contend

__all__ = [
    "LINKS",
    "LOCAL",
    "LOCAL_KEPT",
    "LOCAL_ONE",
    "POOL",
    "POOL_SUMS",
    "RAW",
    "RAW_ONE",
    "RAY",
    "RAY_KEPT",
    "RAY_TWO",
    "RAY_VOTE",
    "Contender",
    "case",
    "in_turns",
]


@dataclass(frozen=True)
class Contender:
    """A name for the table, the module under contenders/, and what it is told beside the work."""

    name: str
    module: str
    kind: str = "local"
    variant: str = "per site"
    threads: int = 0
    workers: int = 2
    kept: bool = False
    hubs: int = 0
    replicas: int = 1


RAW = Contender("raw PyTorch loop", "raw_loop")
RAW_ONE = Contender("raw PyTorch loop, 1 thread", "raw_loop", threads=1)
POOL = Contender("bare Ray pool", "ray_pool")
POOL_SUMS = Contender("bare Ray pool, pre-aggregated", "ray_pool", variant="pre-aggregated")
LOCAL = Contender("hierfl, local", "engine")
LOCAL_ONE = Contender("hierfl, local, 1 thread", "engine", workers=1)
LOCAL_KEPT = Contender("hierfl, local, all kept", "engine", kept=True)
RAY = Contender("hierfl, Ray", "engine", kind="ray")
RAY_KEPT = Contender("hierfl, Ray, all kept", "engine", kind="ray", kept=True)
LINKS = Contender("hierfl, two institutions over links", "links", workers=1, hubs=2)
RAY_TWO = Contender("hierfl, Ray, 2 replicas", "engine", kind="ray", replicas=2)
RAY_VOTE = Contender("hierfl, Ray, 3 replicas that vote", "engine", kind="ray", replicas=3)


def in_turns(who: Contender) -> Contender:
    """Let hierfl's `local` and the raw loop take turns in one process."""
    return replace(who, module="in_turns")


def case(who: Contender, setting: Setting, **limits: Any) -> Case:
    """Give a contender its work."""
    told: dict[str, Any] = {"kind": who.kind, "variant": who.variant, "threads": who.threads, "kept": who.kept}
    told["replicas"] = who.replicas
    if who.hubs:
        told["hubs"] = who.hubs
    work = replace(setting, num_workers=who.workers, **told)

    def run(memory: bool) -> Sample:
        said = contend(who.module, work, memory=memory)
        return Sample(statistics.median(said["seconds"]), said.get("peak_bytes"), said.get("ratio"))

    return Case(who.name, run, **limits)
