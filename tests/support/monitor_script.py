"""A scripted run for the tests of the monitors: the heart federation, or a wide one, as a stream of records."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from hierfl.config.schema import (
    Arithmetic,
    Evaluation,
    HubSettings,
    Output,
    RunConfig,
    Runtime,
    SiteSettings,
    Stopping,
    Training,
)
from hierfl.monitor.records import (
    Evaluated,
    NodesChanged,
    Notice,
    Phase,
    Record,
    RoundClosed,
    RoundCommitted,
    RunEnded,
    RunStarted,
    SiteTrained,
)
from tiers.federation import Federation, Hub, Site

ROUNDS = 15
SAMPLES = {"cleveland": 199, "long_beach": 85, "budapest": 172, "zurich_basel": 30}
WORKERS = ("worker-0", "worker-1")


def _figures(idle: float, floor: float) -> dict[str, float | None]:
    given = {"idle_fraction": idle, "idle_floor": floor, "idle_avoidable": idle - floor}
    return given | {"efficiency": (1 - idle) / (1 - floor), "goodput": 1 - idle}


DEVICES = {"worker-0": _figures(0.2, 0.1), "worker-1": _figures(0.4, 0.1)}
HUBS = {"world": _figures(0.3, 0.1), "world/us": _figures(0.55, 0.5)}


@dataclass(frozen=True)
class FedAvg:
    """Stands in for a strategy: the monitors only name it."""

    linear: ClassVar[bool] = True
    weights: str = "samples"


def heart() -> Federation:
    us = Hub("us", (Site("cleveland"), Site("long_beach")))
    hungary = Hub("hungary", (Site("budapest"),))
    switzerland = Hub("switzerland", (Site("zurich_basel"),))
    return Federation(Hub("world", (us, hungary, switzerland), rounds=ROUNDS))


def wide(num_hubs: int, sites_per_hub: int, rounds: int = 3) -> Federation:
    hubs = tuple(
        Hub(f"hub-{h:03d}", tuple(Site(f"site-{h:03d}-{s:03d}") for s in range(sites_per_hub))) for h in range(num_hubs)
    )
    return Federation(Hub("world", hubs, rounds=rounds))


def config(federation: Federation, **resolved: Any) -> RunConfig:
    """A RunConfig around a tree; strategy and task are stand-ins that no monitor calls."""
    return RunConfig(
        name="heart",
        seed=0,
        task=None,  # type: ignore[arg-type]
        task_kind="heart_disease",
        federation=federation,
        hubs={path: HubSettings(FedAvg()) for path in federation.hubs},  # type: ignore[arg-type]
        sites={path: SiteSettings(Training(local_steps=100, batch_size=4), path) for path in federation.sites},
        evaluation=Evaluation(),
        stopping=Stopping(),
        arithmetic=Arithmetic(),
        runtime=Runtime(),
        output=Output(**resolved.pop("output", {})),
        resolved={"name": "heart", "seed": 0, "task": {"kind": "heart_disease"}} | resolved,
    )


def run(federation: Federation, *, first: int = 1, until: int | None = None, run_dir: str = "runs/x") -> list[Record]:
    """All records of a run of `federation`, from round `first` to the last, or cut off after round `until`."""
    return list(stream(federation, first=first, until=until, run_dir=run_dir))


def stream(federation: Federation, *, first: int, until: int | None, run_dir: str) -> Iterator[Record]:
    rounds = federation.root.rounds
    samples = num_samples(federation)
    clock = 0.8
    for place, site in enumerate(federation.sites):  # sites are loaded before the run can tell what it has
        yield Phase(0.5, WORKERS[place % len(WORKERS)], "load", 0.4, 0.5, [site], 0)
    yield RunStarted(clock, "heart", run_dir, "local", WORKERS, rounds, first, 14, samples)
    metrics: dict[str, dict[str, float | None]] = {}
    for number in range(first, (until or rounds) + 1):
        began = clock
        reached = dict.fromkeys(WORKERS, clock)
        busy = 0.0
        for place, path in enumerate(federation.sites):
            worker = min(reached, key=lambda name: reached[name])
            spent = 0.04 + samples[path] / 2000 + 0.01 * ((place + number) % 3)
            start = reached[worker]
            yield NodesChanged(start, (path,), "training", number)
            yield Phase(start + spent, worker, "load", start, start + 0.02, [path], number)
            yield Phase(start + spent, worker, "train", start + 0.02, start + spent, [path], number)
            yield SiteTrained(
                start + spent, path, number, worker, spent, samples[path], 100, 0.7 * math.exp(-number / 9) + 0.3
            )
            reached[worker] = start + spent
            busy += spent
        clock = max(reached.values())
        for hub in reversed(federation.hubs):
            yield NodesChanged(clock, (hub,), "aggregating", number)
            yield Phase(clock + 0.01, hub, "aggregate", clock, clock + 0.01, [hub], number)
            members = federation.members(hub)
            yield RoundClosed(clock, hub, number, f"{len(members)} of {len(members)} reported", members, {}, 0.2, 480)
        clock += 0.01
        for worker in WORKERS:
            yield Phase(clock + 0.03, worker, "evaluate", clock, clock + 0.03, list(federation.sites)[:2], number)
        clock += 0.04
        metrics = {path: _metrics(path, number, samples) for path in federation.nodes}
        yield Evaluated(clock, number, metrics)
        if number == 2:
            yield Notice(clock, "warning", "world/switzerland/zurich_basel", "one class only: AUC is undefined")
        share = (busy + 0.06) / (len(WORKERS) * (clock - began))
        said = f"checkpoints/{number:06d}"
        yield RoundCommitted(clock, number, rounds, clock - began, share, said, 0.1, 0.9, share, DEVICES, HUBS)
    if until is None:
        yield RunEnded(clock, "finished", summary(federation, metrics, clock))


def num_samples(federation: Federation) -> dict[str, int]:
    found = dict.fromkeys(federation.nodes, 0)
    for site in federation.sites:
        path = site
        while path:
            found[path] += SAMPLES.get(site.rpartition("/")[2], 50)
            path = path.rpartition("/")[0]
    return found


def summary(federation: Federation, metrics: dict[str, dict[str, float | None]], wall_s: float) -> dict[str, Any]:
    return {
        "name": "heart",
        "seed": 0,
        "status": "finished",
        "rounds": federation.root.rounds,
        "rounds_planned": federation.root.rounds,
        "model_digest": "3f2a" * 16,
        "num_parameters": 14,
        "wall_s": wall_s,
        "startup_s": 0.8,
        "nodes": metrics,
        "workers": {worker: {"busy_fraction": 0.8, "idle_fraction": 0.2} for worker in WORKERS},
        "busy_fraction": 0.8,
        **DEVICES["worker-0"],
        "schedule": {"devices": DEVICES, "hubs": HUBS},
        "versions": {"hierfl": "0.1.0", "python": "3.11.9", "torch": "2.13.0"},
        "task_code": "5e1f" * 16,
    }


def _metrics(path: str, number: int, samples: dict[str, int]) -> dict[str, float | None]:
    lift = 1 - math.exp(-number / 4)
    offset = (sum(map(ord, path)) % 7) / 60 + 0.02 * math.sin(number * (1 + len(path) % 5))
    return {
        "num_test": samples[path] // 2,
        "accuracy": 0.52 + 0.26 * lift + offset * lift,
        "auc": None if path.endswith(("zurich_basel", "switzerland")) else 0.55 + 0.27 * lift + offset * lift,
        "loss": 0.69 - 0.22 * lift + offset * 0.3,
        "brier": 0.25 - 0.1 * lift,
    }
