"""Members that exchange without a centre, on Ray: the bits of threads, also where their processes are killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray_runs import Drivers, Watcher, run, tree, write_config

from hierfl.monitor.records import Exchanged, Record, SiteTrained

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("shared_ray")]


def config(folder: Path, kind: str) -> Path:
    """`us` of three sites and two rounds, `eu` that passes its sum up, and a site, under a server optimiser."""
    federation: dict[str, Any] = tree(topology=kind)
    for member in federation["members"][:2]:
        member["topology"] = kind
    return write_config(folder, federation)


def at(kind: type, number: int, node: str) -> Callable[[Record], bool]:
    """Hold at the record of a node's round."""

    def when(record: Record) -> bool:
        return isinstance(record, kind) and (record.node, record.round_number) == (node, number)  # type: ignore[attr-defined]

    return when


def test_peers_have_the_bits_of_threads(tmp_path: Path) -> None:
    federation = tree(strategy="fedavg", topology={"kind": "peer", "graph": "ring", "gossip_steps": 2})
    path = write_config(tmp_path, federation)
    on_ray = run(path, "runtime.kind=ray", "runtime.num_workers=2")
    assert on_ray["model_digest"] == run(path, "runtime.kind=local")["model_digest"]


@pytest.mark.parametrize("kind", ["swarm", "allreduce"])
def test_members_exchange_to_the_bits_that_a_star_has_in_threads(kind: str, tmp_path: Path) -> None:
    path = config(tmp_path, kind)
    on_ray = run(path, "runtime.kind=ray", "runtime.num_workers=2")
    assert on_ray["model_digest"] == run(config(tmp_path, "star"), "runtime.kind=local")["model_digest"]


def test_four_tiers_of_mixed_topologies_have_the_bits_of_threads(tmp_path: Path) -> None:
    """A cycle and an allreduce among peers, beside a swarm, under a star; one to three rounds in one above."""
    mixed = Path(__file__).parents[2] / "configs" / "mixed.yaml"
    quick = ("federation.rounds=2", f"output.dir={tmp_path}", "output.tensorboard=false")
    on_ray = run(mixed, *quick, "runtime.kind=ray", "runtime.num_workers=2")
    assert on_ray["model_digest"] == run(mixed, *quick, "runtime.num_workers=1")["model_digest"]


def test_hubs_that_die_while_they_exchange_come_back_to_the_same_model(tmp_path: Path, drivers: Drivers) -> None:
    digest = run(config(tmp_path, "star"), "runtime.kind=local")["model_digest"]
    strikes = [
        (at(Exchanged, 1, "world/us"), lambda: drivers.kill("world/us")),
        (at(Exchanged, 2, "world/us"), lambda: drivers.kill("world/eu")),
        (at(Exchanged, 1, "world"), lambda: drivers.kill("world")),
        (at(SiteTrained, 2, "world/eu/e"), lambda: drivers.kill("world/eu")),
    ]
    watcher = Watcher(strikes)
    ran = run(config(tmp_path, "allreduce"), "runtime.kind=ray", "runtime.num_workers=2", watcher=watcher)
    assert ran["model_digest"] == digest
    assert watcher.strikes == [] and len(drivers.killed) == 4
