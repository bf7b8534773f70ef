"""Whole runs in which each member keeps a model of its own, against loops that a reader can follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from least_squares import EAST, NORTH, RING, SIZES, SOUTH, START, WEST, Models, close, gossip, local, mean, trained
from small_runs import Copied, Ran, config_of, go, hub, site

from hierfl.errors import HierflError
from hierfl.lifecycle import resume, run
from hierfl.members import read
from hierfl.monitor.consensus import apart_in
from hierfl.monitor.plain import closing_lines
from hierfl.monitor.records import Consensus, RoundClosed, RoundCommitted
from hierfl.monitor.report import write_report

GOES_ON = {"on_failure": "continue", "quorum": 0.3}
SITES = (NORTH, SOUTH, EAST, WEST)


def peer(graph: str = "ring", **fields: Any) -> dict[str, Any]:
    return {"kind": "peer", "graph": graph, **fields}


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("gossip_steps", [1, 3])
def test_decentralised_averaging_on_a_ring(gossip_steps: int, width: int, tmp_path: Path) -> None:
    models: Models = dict.fromkeys(SIZES, START)
    for _ in range(4):
        models = {name: local(w, name, steps=2) for name, w in models.items()}
        for _ in range(gossip_steps):
            models = gossip(models, RING)
    root = hub("world", *SITES, rounds=4, topology=peer(gossip_steps=gossip_steps))
    assert close(trained(tmp_path, root, steps=2, arithmetic={"width": width}), mean(models, SIZES))


def test_given_weights_are_taken_as_they_are(tmp_path: Path) -> None:
    w = {("north", "south"): 0.5, ("south", "east"): 0.25, ("east", "west"): 0.125}
    edges = {"north": {"south": 0.5}, "south": {"east": 0.25}, "west": {"east": 0.125}}
    part = {pair: value for (i, j), value in w.items() for pair in ((i, j), (j, i)) for value in (value,)}
    models: Models = dict.fromkeys(SIZES, START)
    for _ in range(3):
        z = {name: local(one, name) for name, one in models.items()}
        rows = {i: {j: part[i, j] for j in SIZES if (i, j) in part} for i in SIZES}
        models = {
            i: (1 - sum(row.values())) * z[i] + sum((value * z[j] for j, value in row.items()), np.zeros(2))
            for i, row in rows.items()
        }
    root = hub("world", *SITES, rounds=3, topology=peer("given", weights="given", edges=edges), strategy="fedavg")
    assert close(trained(tmp_path, root), mean(models, SIZES))


@pytest.mark.parametrize("rounds", [1, 3])
def test_below_a_star_peers_begin_from_its_model_and_hand_up_their_mean(rounds: int, tmp_path: Path) -> None:
    w = START
    for _ in range(2):
        models: Models = dict.fromkeys(SIZES, w)
        for _ in range(rounds):
            models = gossip({name: local(one, name) for name, one in models.items()}, RING)
        w = mean({"all": mean(models, SIZES), "far": local(w, "north")}, {"all": 28, "far": 4})
    inner = hub("all", *SITES, rounds=rounds, topology=peer())
    far = hub("far", {**NORTH, "data": {**NORTH["data"], "key": "north"}})
    assert close(trained(tmp_path, hub("world", inner, far)), w)


def test_peers_that_are_hubs_keep_models_of_their_own(tmp_path: Path) -> None:
    models: Models = {"up": START, "down": START, "east": START}
    sizes = {"up": 4, "down": 12, "east": 7}
    ring = {"up": ("down", "east"), "down": ("east", "up"), "east": ("up", "down")}
    for _ in range(3):
        z = {"up": local(models["up"], "north"), "down": models["down"], "east": local(models["east"], "east")}
        for _ in range(2):
            z["down"] = local(z["down"], "south")
        models = gossip(z, ring, sizes)
    up, down = hub("up", NORTH), hub("down", SOUTH, rounds=2)
    assert close(trained(tmp_path, hub("world", up, down, EAST, rounds=3, topology=peer())), mean(models, sizes))


def deep(folder: Path, topology: Any, inner: Any = "star", *, rounds: int = 1, **settings: Any) -> Ran:
    """Three tiers, batch norm, dropout and mini-batches."""
    own = {key: settings.pop(key) for key in ("strategy",) if key in settings}
    members = hub("in", "a", "b", "c", rounds=rounds, topology=inner), hub("on", "x", "y"), "e", "f"
    return go(folder, hub("world", *members, rounds=4, topology=topology, **own), "ward_tasks:Deep", **settings)


@pytest.mark.parametrize("strategy", ["fedavg", {"kind": "fedavg", "weights": "uniform"}, "fedprox", "fedbn"])
def test_a_complete_graph_with_one_step_has_the_bits_of_a_star(strategy: Any, tmp_path: Path) -> None:
    star = deep(tmp_path / "star", "star", rounds=2, strategy=strategy)
    complete = deep(tmp_path / "peer", "peer", rounds=2, strategy=strategy)
    assert complete.digest == star.digest
    assert {record.distance for record in complete.monitor.of(Consensus)} == {0.0}
    assert deep(tmp_path / "below", "star", "peer", rounds=2, strategy=strategy).digest == star.digest


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("width", [32, 64])
def test_so_it_has_in_every_arithmetic(width: int, dtype: str, tmp_path: Path) -> None:
    star, complete = (
        go(
            tmp_path / kind,
            hub("world", "a", "b", "c", topology=kind),
            {"kind": "ward_tasks:Deep", "dtype": dtype},
            arithmetic={"width": width},
        )
        for kind in ("star", "peer")
    )
    assert complete.digest == star.digest


def test_the_bits_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    one, three = (
        deep(tmp_path / str(n), peer("torus"), peer(gossip_steps=2), runtime={"kind": "local", "num_workers": n})
        for n in (1, 3)
    )
    assert one.digest == three.digest != deep(tmp_path / "ring", peer(gossip_steps=2)).digest


@pytest.mark.slow
def test_more_gossip_brings_the_members_together(tmp_path: Path) -> None:
    names = [f"s{i}" for i in range(9)]
    found = []
    for number, steps in enumerate((1, 3, 9)):
        ran = go(tmp_path / str(number), hub("world", *names, topology=peer(gossip_steps=steps)), "ward_tasks:Deep")
        found.append(ran.monitor.of(Consensus)[-1].distance)
        rows = [json.loads(line) for line in (ran.folder / "metrics.jsonl").read_text().splitlines()]
        assert [row["consensus_distance"] for row in rows if row["node"] == "world"][-1] == found[-1]
        said = f"{found[-1]:.3g}"
        assert f"peers    consensus distance world {said}" in closing_lines("finished", ran.summary, "")
        page = write_report(ran.folder).read_text()
        assert "<th>consensus distance</th>" in page and f"<td>{said}</td>" in page
    assert found[0] > 1.5 * found[1] > 1.5 * found[2] > 0


@pytest.mark.parametrize("bad", ["north", "east"])
def test_who_is_lost_keeps_its_model_and_the_others_mix_without_it(bad: str, tmp_path: Path) -> None:
    here = {name: tuple(other for other in others if other != bad) for name, others in RING.items() if name != bad}
    models: Models = dict.fromkeys(SIZES, START)
    for _ in range(2):
        z = {name: local(w, name) for name, w in models.items() if name != bad}
        models = {**models, **gossip(z, here)}
    members = [
        site(name, n=SIZES[name], shift=float("nan")) if name == bad else good
        for name, good in zip(SIZES, SITES, strict=True)
    ]
    root = hub("world", *members, topology=peer(), **GOES_ON)
    assert close(trained(tmp_path, root), mean(models, SIZES))


def test_models_that_drift_apart_over_the_clip_end_the_run_by_name(tmp_path: Path) -> None:
    edges = {"north": {"south": 1e-6}, "south": {"east": 1e-6}, "east": {"west": 1e-6}}
    root = hub("world", *SITES, rounds=20, topology=peer("given", weights="given", edges=edges))
    with pytest.raises(
        HierflError, match=r"world: .*apart by more than the clip of 2; .*\n  in detail: weight\[0, [01]\] is .* apart"
    ):
        trained(tmp_path, root, arithmetic={"clip": 2.0})


def test_each_member_writes_its_own_model_into_the_checkpoint(tmp_path: Path) -> None:
    ran = deep(tmp_path, peer())
    [*_, newest] = sorted((ran.folder / "checkpoints").iterdir())
    found = {unquote(file.stem): read(file) for file in (newest / "members").iterdir()}
    assert set(found) == {"world/in", "world/on", "world/e", "world/f"}
    assert len({model.floats.tobytes() for model in found.values()}) == 4
    assert not list((ran.folder / "checkpoints").glob(".*")), "nothing is left half written"


@pytest.mark.parametrize("stop", [(RoundClosed, 2), (RoundClosed, 3)])
def test_a_resumed_run_has_the_bits_of_the_whole_one(stop: tuple[type, int], tmp_path: Path) -> None:
    whole = deep(tmp_path / "whole", peer(), peer(), rounds=2)
    with pytest.raises(KeyboardInterrupt):
        deep(tmp_path / "cut", peer(), peer(), rounds=2, until=stop)
    [folder] = (tmp_path / "cut").iterdir()
    assert resume(folder, [])["model_digest"] == whole.digest


@pytest.mark.parametrize("asked", ["all", {"kind": "sample", "fraction": 0.5}])
@pytest.mark.parametrize("number", [2, 4])
def test_a_run_that_was_killed_says_how_far_apart_models_are_as_the_unbroken_one_does(
    number: int, asked: Any, tmp_path: Path
) -> None:
    """Also where that hub was not asked since, or no round is left."""
    monitor = Copied(
        tmp_path / "runs", lambda record: isinstance(record, RoundCommitted) and record.round_number == number
    )
    near, far = (hub(name, f"{name}-a", f"{name}-b", f"{name}-c", topology=peer(gossip_steps=1)) for name in "nf")
    root = hub("world", near, far, rounds=4, topology=peer() if asked == "all" else "star", participation=asked)
    task = "ward_tasks:Deep"
    whole = run(config_of(tmp_path / "runs", root, task), [monitor])
    again = resume(monitor.copy)
    assert again["model_digest"] == whole["model_digest"]
    found = apart_in(whole["nodes"])
    assert apart_in(again["nodes"]) == found and {"world/n", "world/f"} <= found.keys()
