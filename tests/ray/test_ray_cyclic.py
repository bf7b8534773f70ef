"""A model that travels on Ray: the bits that it has in threads, also where the hub that passes it on is killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray_runs import Drivers, Watcher, run, tree, write_config

from hierfl.monitor.records import Record, SiteTrained

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("shared_ray")]

CYCLIC = {"kind": "cyclic", "order": "shuffled"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Cycles in a cycle: `us` of three sites and two rounds takes turns with `eu`, a star, and a site."""
    federation: dict[str, Any] = tree(strategy="fedavg", topology=CYCLIC)
    federation["members"][0]["topology"] = CYCLIC
    return write_config(tmp_path, federation)


def trained_in_us(number: int) -> Callable[[Record], bool]:
    """Hold at this report of a site of `us`, counted from 1: its update is on the way to a hub that is at work."""
    seen: list[Record] = []

    def when(record: Record) -> bool:
        seen.extend([record] if isinstance(record, SiteTrained) and record.node.startswith("world/us/") else [])
        return len(seen) == number

    return when


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_cycle_has_the_bits_that_it_has_in_threads(config: Path, num_workers: int) -> None:
    on_ray = run(config, "runtime.kind=ray", f"runtime.num_workers={num_workers}")
    assert on_ray["model_digest"] == run(config, "runtime.kind=local")["model_digest"]


@pytest.mark.slow
def test_hubs_that_die_in_the_middle_of_a_cycle_come_back_to_the_same_model(config: Path, drivers: Drivers) -> None:
    digest = run(config, "runtime.kind=local")["model_digest"]
    strikes = [
        (trained_in_us(2), lambda: drivers.kill("world/us")),
        (trained_in_us(3), lambda: drivers.kill("world")),
        (trained_in_us(3), lambda: drivers.kill("world/us")),
    ]
    watcher = Watcher(strikes)
    ran = run(config, "runtime.kind=ray", "runtime.num_workers=2", "runtime.num_aggregators=2", watcher=watcher)
    assert ran["model_digest"] == digest
    said = {notice.node for notice in watcher.notices("warning") if "aggregator died" in notice.message}
    assert watcher.strikes == [] and "world/us" in said and len(drivers.killed) == 3
