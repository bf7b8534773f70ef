"""Members that exchange without a centre, on Ray: the bits of threads, also where their processes are killed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from ray_runs import Drivers, Watcher, run, tree, write_config

from hierfl.learning.ring import PartialSum
from hierfl.learning.state import ModelState
from hierfl.monitor.records import Exchanged, Record, SiteTrained
from hierfl.runtime.ray_actors import RayDriver

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


@pytest.mark.slow
def test_peers_have_the_bits_of_threads(tmp_path: Path) -> None:
    federation = tree(strategy="fedavg", topology={"kind": "peer", "graph": "ring", "gossip_steps": 2})
    path = write_config(tmp_path, federation)
    on_ray = run(path, "runtime.kind=ray", "runtime.num_workers=2")
    assert on_ray["model_digest"] == run(path, "runtime.kind=local")["model_digest"]


@pytest.mark.parametrize("kind", [pytest.param("swarm", marks=pytest.mark.slow), "allreduce"])
def test_members_exchange_to_the_bits_that_a_star_has_in_threads(kind: str, tmp_path: Path) -> None:
    path = config(tmp_path, kind)
    on_ray = run(path, "runtime.kind=ray", "runtime.num_workers=2")
    assert on_ray["model_digest"] == run(config(tmp_path, "star"), "runtime.kind=local")["model_digest"]


@pytest.mark.parametrize("kind", ["peer", pytest.param("allreduce", marks=pytest.mark.slow)])
def test_hubs_exchange_without_a_centre_no_vector_comes_to_the_coordinator(
    kind: str, tmp_path: Path, drivers: Drivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four hubs; all that the run's own process takes out of Ray is looked at, and what the root's is handed."""
    hubs = [{"name": f"hub-{pair}", "members": [{"name": site} for site in pair]} for pair in ("ab", "cd", "ef", "gh")]
    topology = {"kind": "peer", "graph": "ring"} if kind == "peer" else kind
    path = write_config(
        tmp_path, {"name": "world", "rounds": 2, "topology": topology, "members": hubs}, evaluation={"auc": "none"}
    )
    taken: list[Any] = []
    handed: list[tuple[str, str, int]] = []
    get, call = ray.get, RayDriver.call

    def watched(refs: Any, **options: Any) -> Any:
        taken.append(get(refs, **options))
        return taken[-1]

    def passed_on(self: RayDriver, actor: str, method: str, *arguments: Any) -> int:
        handed.append((actor, method, sum(isinstance(one, ray.ObjectRef) for one in arguments)))
        return call(self, actor, method, *arguments)

    monkeypatch.setattr(ray, "get", watched)
    monkeypatch.setattr(RayDriver, "call", passed_on)
    ran = run(path, "runtime.kind=ray", "runtime.num_workers=2")
    assert len(taken) > 50 and not any(vectors(one) for one in taken)
    assert sum(num for actor, _, num in handed if actor == "world") == 0, "what serves the root is handed headers"
    mixers = {actor: num for actor, method, num in handed if method in ("mix", "add")}
    assert len(mixers) == 4 and len({drivers.last._slot(actor) for actor in mixers}) == 4, "each hub in its own process"
    if kind == "peer":
        assert set(mixers.values()) == {6}, "a model and an update of itself and of two neighbours: nobody has all four"
    monkeypatch.undo()
    assert ran["model_digest"] == run(path, "runtime.kind=local")["model_digest"]


def vectors(value: Any) -> bool:
    """Say whether there is a model or a sum anywhere in what was taken."""
    if isinstance(value, ModelState | PartialSum):
        return True
    if isinstance(value, Mapping):
        return any(map(vectors, value.values()))
    if isinstance(value, list | tuple | set):
        return any(map(vectors, value))
    if is_dataclass(value) and not isinstance(value, type):
        return any(vectors(getattr(value, field.name)) for field in fields(value))
    return False


@pytest.mark.slow
def test_four_tiers_of_mixed_topologies_have_the_bits_of_threads(tmp_path: Path) -> None:
    """A cycle and an allreduce among peers, beside a swarm, under a star; one to three rounds in one above."""
    mixed = Path(__file__).parents[2] / "configs" / "mixed.yaml"
    quick = ("federation.rounds=2", f"output.dir={tmp_path}", "output.tensorboard=false")
    on_ray = run(mixed, *quick, "runtime.kind=ray", "runtime.num_workers=2")
    assert on_ray["model_digest"] == run(mixed, *quick, "runtime.num_workers=1")["model_digest"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["peer", "allreduce"])
def test_who_dies_again_and_again_is_missing_and_comes_back_with_the_bits_of_threads(kind: str, tmp_path: Path) -> None:
    """`f` has its place in another's process, which ends with it: that one is asked again, and does its part."""
    topology = {"kind": "peer", "graph": "ring", "gossip_steps": 2} if kind == "peer" else kind
    federation = tree(strategy="fedavg", topology=topology, on_failure="continue", quorum=0.5)
    faults = [
        {"kind": "kill", "node": "world/us", "step": "exchange", "round": 1, "times": 2},
        {"kind": "kill", "node": "world/f", "step": "exchange", "round": 2, "times": 3},
        {"kind": "kill", "node": "world/eu", "step": "exchange", "round": 3, "times": 3},
    ]
    path = write_config(tmp_path, federation, faults=faults)
    watcher = Watcher()
    on_ray = run(path, "runtime.kind=ray", "runtime.num_workers=2", watcher=watcher)
    left = {one.round_number: list(one.missing) for one in watcher.records if isinstance(one, Exchanged)}
    assert left == {1: [], 2: ["f"], 3: ["eu"]}
    assert on_ray["model_digest"] == run(path, "runtime.kind=local")["model_digest"]
    assert on_ray["model_digest"] != run(path, "runtime.kind=local", "faults=[]")["model_digest"]


@pytest.mark.slow
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
