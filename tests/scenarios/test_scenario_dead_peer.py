"""A member's place whose process dies as the members exchange: it is asked again, and without it they go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from least_squares import (
    EAST,
    NORTH,
    RING,
    SIZES,
    SOUTH,
    START,
    WEST,
    Models,
    Weights,
    close,
    gossip,
    local,
    mean,
    trained,
)
from small_runs import Ran, events, go, hub

from hierfl.errors import RoundFailed
from hierfl.monitor.records import Exchanged, NodesChanged, Notice

GOES_ON = {"on_failure": "continue", "quorum": 0.5}
SITES = (NORTH, SOUTH, EAST, WEST)
KINDS: Mapping[str, Any] = {
    "swarm": "swarm",
    "allreduce": "allreduce",
    "peer": {"kind": "peer", "graph": "ring", "gossip_steps": 2},
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def kill(node: str, number: int | None = 2, times: int = 3) -> dict[str, Any]:
    return {"kind": "kill", "node": node, "step": "exchange", "round": number, "times": times}


def deep(folder: Path, kind: str, *faults: dict[str, Any], **root: Any) -> Ran:
    """Two hubs and two sites that exchange, one of the hubs' own members, too."""
    members = hub("in", "a", "b", "c", rounds=2, topology=KINDS[kind]), hub("on", "x", "y"), "e", "f"
    whole = hub("world", *members, rounds=3, topology=KINDS[kind], **root)
    return go(folder, whole, "ward_tasks:Deep", faults=list(faults))


@each_kind
def test_who_dies_and_does_its_part_when_it_is_asked_again_leaves_the_bits(kind: str, tmp_path: Path) -> None:
    nodes = ("world/in", "world/e", "world/in/b")
    ran = deep(tmp_path / "struck", kind, *(kill(node, None, 2) for node in nodes), **GOES_ON)
    assert ran.digest == deep(tmp_path / "whole", kind).digest
    deaths = 2 * (3 + (3 if kind != "swarm" else 1) + 6) if kind != "swarm" else len(ran.summary["faults"]["injected"])
    assert len(ran.summary["faults"]["injected"]) == deaths >= 6
    assert not any(record.missing for record in ran.monitor.of(Exchanged))


def without(kind: str, who: str, rounds: int, gone: int) -> Weights:
    """By hand: in one of the rounds a member has no part in the exchange, in all others it has."""
    models: Models = dict.fromkeys(SIZES, START)
    weights = dict(SIZES)
    for number in range(1, rounds + 1):
        here = [name for name in SIZES if number != gone or name != who]
        z = {name: local(models[name], name) for name in here}
        if kind != "peer":
            models = dict.fromkeys(SIZES, mean(z, SIZES))
            continue
        neighbours = {name: tuple(other for other in RING[name] if other in here) for name in here}
        for _ in range(2):
            z = dict(gossip(z, neighbours))
        models = {**models, **z}
        weights = {name: SIZES[name] for name in here}
    return mean({name: models[name] for name in weights}, SIZES)


@each_kind
@pytest.mark.parametrize("gone", [1, 2, 3])
def test_who_dies_again_and_again_is_missing_for_the_round_and_comes_back(kind: str, gone: int, tmp_path: Path) -> None:
    """Against a loop by hand; a member that leads a swarm or measures for all others is no other one."""
    who = list(SIZES)[gone - 1]
    root = hub("world", *SITES, rounds=3, topology=KINDS[kind], **GOES_ON)
    assert close(trained(tmp_path, root, faults=[kill(f"world/{who}", gone)]), without(kind, who, 3, gone))


def test_it_is_named_wherever_a_lost_member_is(tmp_path: Path) -> None:
    ran = deep(tmp_path, "peer", kill("world/in"), **GOES_ON)
    reason = "the process of its place died 3 times while it did its part"
    found = [record.missing for record in ran.monitor.of(Exchanged) if record.node == "world"]
    assert found == [{}, {"in": reason}, {}]
    assert [one["missing"] for one in events(ran.folder) if one["event"] == "exchanged" and one["node"] == "world"] == (
        found
    )
    [said] = [n for n in ran.monitor.of(Notice) if n.node == "world/in" and n.level == "error"]
    assert said.message == f"has left the exchange of round 2: {reason}"
    states = [record.state for record in ran.monitor.of(NodesChanged) if "world/in" in record.nodes]
    assert states[-4:] == ["done", "failed", "training", "done"]


@each_kind
def test_nobody_leaves_where_nobody_may_be_spared(kind: str, tmp_path: Path) -> None:
    with pytest.raises(
        RoundFailed, match="world: the round cannot be closed: on: the process of its place died 3 times"
    ):
        deep(tmp_path / "stop", kind, kill("world/on"))
    two = [kill(f"world/{name}") for name in ("e", "on")]
    with pytest.raises(RoundFailed, match="below the quorum of 3 of 4 members: "):
        deep(tmp_path / "few", kind, *two, on_failure="continue", quorum=0.75)


def test_an_exchange_below_goes_on_and_its_hub_hands_up_what_is_left(tmp_path: Path) -> None:
    """`in` passes its raw sum up: as if b had been lost before."""
    members = hub("in", NORTH, SOUTH, EAST, topology="allreduce", **GOES_ON), WEST
    root = hub("world", *members, rounds=2)
    w = mean({name: local(START, name) for name in SIZES}, SIZES)
    w = mean({name: local(w, name) for name in ("north", "east", "west")}, SIZES)
    assert close(trained(tmp_path, root, faults=[kill("world/in/south")]), w)


def test_a_member_that_leaves_in_every_round_keeps_what_it_had_and_the_others_learn(tmp_path: Path) -> None:
    root = hub("world", *SITES, rounds=2, topology=KINDS["peer"], **GOES_ON)
    here = {
        name: tuple(other for other in others if other != "east") for name, others in RING.items() if name != "east"
    }
    models: Models = dict.fromkeys(here, START)
    for _ in range(2):
        models = {name: local(w, name) for name, w in models.items()}
        for _ in range(2):
            models = gossip(models, here)
    assert close(trained(tmp_path, root, faults=[kill("world/east", None)]), mean(models, SIZES))
