"""Hubs without a centre whose members are in several institutions, without a network: the bits of the simulation, and
no vector at who convenes them.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from link_inside import Inside, records_in, several_runs  # noqa: F401
from link_members import Pki
from small_runs import Listener, config_of, hub, site

from hierfl.errors import ConfigError, OutputError, RoundFailed
from hierfl.lifecycle import evaluate, run
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.approval import plan_of
from hierfl.link.chunks import decode
from hierfl.link.identity import parties, peers_of
from hierfl.link.log import Log
from hierfl.link.serving import Serving
from hierfl.monitor.records import Consensus, Exchanged, RoundCommitted

pytestmark = pytest.mark.usefixtures("several_runs")


def link(port: int) -> dict[str, Any]:
    return {"address": "hub.example.org:8443", "peers": f"ward.example.org:{port}"}


def wards(*, local: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """A hub of two sites and two sites, each in an institution of its own but for those that are local."""
    members = [
        hub("north", "a", site("b", n=20), link=link(1)),
        {**site("c", n=9), "link": link(2)},
        {**site("d", n=14), "link": link(3)},
    ]
    return [{key: value for key, value in one.items() if key != "link" or one["name"] not in local} for one in members]


CASES: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "fedavgm": {"strategy": {"kind": "fedavgm", "momentum": 0.9}},
    "scaffold": {"strategy": "scaffold"},
    "uniform": {"strategy": {"kind": "fedavg", "weights": "uniform"}},
    "sample": {"strategy": {"kind": "fedavgm"}, "participation": {"kind": "sample", "fraction": 0.6}},
}


@pytest.mark.parametrize(
    ("name", "topology"), [*((name, "allreduce") for name in CASES), ("fedavgm", "swarm"), ("scaffold", "swarm")]
)
def test_institutions_that_exchange_have_the_bits_of_the_simulation(tmp_path: Path, name: str, topology: str) -> None:
    tree = hub("world", *wards(), rounds=3, topology=topology, **CASES[name])
    config = config_of(tmp_path / "runs", tree)
    inside = Inside(config, tmp_path / "linked")
    linked, simulated = inside.go(), run(config)
    assert linked["model_digest"] == simulated["model_digest"]
    for path in ("world", "world/north", "world/c", "world/d"):
        assert linked["nodes"][path] == simulated["nodes"][path], path


@pytest.mark.parametrize(
    "topology",
    [
        {"kind": "peer", "graph": "ring", "gossip_steps": 2},
        {"kind": "peer", "graph": "given", "weights": "given", "edges": {"north": {"c": 0.5}, "c": {"d": 0.25}}},
    ],
)
@pytest.mark.parametrize("local", [(), ("c",)])
def test_peers_in_several_institutions_keep_the_models_that_they_have_in_the_simulation(
    tmp_path: Path, topology: dict[str, Any], local: tuple[str, ...]
) -> None:
    config = config_of(tmp_path / "runs", hub("world", *wards(local=local), rounds=3, topology=topology))
    heard, simulated = Listener(), Listener()
    linked = Inside(config, tmp_path / "linked").go(heard)
    assert linked["model_digest"] == run(config, [simulated])["model_digest"]
    distances = [[one.distance for one in each.of(Consensus)] for each in (heard, simulated)]
    assert distances[0] == distances[1] and len(distances[0]) == 3


def test_a_peer_that_is_not_asked_keeps_its_model(tmp_path: Path) -> None:
    some = {"participation": {"kind": "sample", "fraction": 0.6}}
    config = config_of(tmp_path / "runs", hub("world", *wards(), rounds=4, topology="peer", **some))
    assert Inside(config, tmp_path / "linked").go()["model_digest"] == run(config)["model_digest"]


@pytest.mark.parametrize(
    ("local", "topology"), [(("north",), "allreduce"), (("c", "d"), "swarm"), (("d",), "allreduce")]
)
def test_members_beside_the_hub_exchange_with_those_elsewhere(
    tmp_path: Path, local: tuple[str, ...], topology: str
) -> None:
    tree = hub("world", *wards(local=local), rounds=2, topology=topology, strategy="fedavgm")
    config = config_of(tmp_path / "runs", tree)
    assert Inside(config, tmp_path / "linked").go()["model_digest"] == run(config)["model_digest"]


def test_who_convenes_is_handed_no_vector_and_members_take_slices(tmp_path: Path) -> None:
    """Of all that crosses to the hub nothing is a vector; between members go slices, and never a whole update."""
    config = config_of(tmp_path / "runs", hub("world", *wards(), rounds=3, topology="allreduce", strategy="fedavgm"))
    inside = Inside(config, tmp_path / "linked")
    inside.go()
    assert len(inside.up) > 20 and max(map(len, inside.up)) < 2000
    said = [wire.MemberSays.FromString(content).answer for content in inside.up]
    assert {one.WhichOneof("what") for one in said} == {"prepared", "described", "trained", "evaluated", "placed"}
    model = next(one for one in said if one.WhichOneof("what") == "trained").trained.update
    whole = model.num_floats * 4 + model.num_ints * 8
    assert inside.down and {len(decode(chunk).data) for chunk in inside.down} == {whole}, "the first model went down"
    assert len(inside.across) == 6, "everybody takes from everybody"
    handed = b"".join(chunk for chunks in inside.across.values() for chunk in chunks)
    assert not records_in(b"".join(inside.up) + handed, {"a": 18, "b": 26, "c": 15, "d": 20})
    assert max(len(decode(chunk).data) for chunks in inside.across.values() for chunk in chunks) <= whole // 3 + 8


@pytest.mark.parametrize(
    ("topology", "settings"),
    [
        ("allreduce", {"strategy": "fedavgm"}),
        ("swarm", {"strategy": "scaffold"}),
        ({"kind": "peer", "graph": "ring"}, {"participation": {"kind": "sample", "fraction": 0.6}}),
    ],
)
def test_a_run_goes_on_from_what_its_members_have_committed(
    tmp_path: Path, topology: Any, settings: dict[str, Any]
) -> None:
    """The hub and all members end after the second round; the others begin again with what lies on their disks."""
    tree = hub("world", *wards(), rounds=4, topology=topology, **settings)
    config = config_of(tmp_path / "runs", tree, output={"dir": str(tmp_path / "runs"), "tensorboard": False, "keep": 1})
    with pytest.raises(KeyboardInterrupt):
        Inside(config, tmp_path / "linked").go(Listener(until=(RoundCommitted, 2)))
    [run_dir] = (tmp_path / "runs").iterdir()
    with pytest.raises(OutputError, match=r"lies with the members .*world/c.*model.safetensors in its --state folder"):
        evaluate(run_dir)
    linked = Inside(config, tmp_path / "linked").go(resumed=run_dir)
    assert linked["model_digest"] == run(config)["model_digest"]
    for name in ("north", "c", "d"):
        assert len(list((tmp_path / "linked" / f"world__{name}" / "place").glob("*.object"))) < 8, "nothing piles up"
    with pytest.raises(OutputError, match="has done its 4 rounds"):
        Inside(config, tmp_path / "linked").go(resumed=run_dir)


@pytest.mark.parametrize("keeps_going", [True, False])
def test_a_member_whose_place_others_do_not_reach_leaves_the_exchange(tmp_path: Path, keeps_going: bool) -> None:
    settings = {"on_failure": "continue", "quorum": 0.5} if keeps_going else {}
    config = config_of(tmp_path / "runs", hub("world", *wards(), rounds=2, topology="allreduce", **settings))
    inside, listener = Inside(config, tmp_path / "linked"), Listener()
    inside.away.add("world/d")
    if not keeps_going:
        with pytest.raises(RoundFailed, match="has not reached world/d"):
            inside.go(listener)
        return
    assert inside.go(listener)["status"] == "finished"
    assert [(one.round_number, list(one.missing)) for one in listener.of(Exchanged)] == [(1, ["d"]), (2, ["d"])]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"strategy": {"kind": "fedavgm"}},
        {"rounds": 2, "strategy": {"kind": "fedavg", "weights": "uniform"}},
        {"link": {"address": "hub.example.org:8443"}, "strategy": {"kind": "fedavgm"}},
        {"compression": {"kind": "top_k", "fraction": 0.5}, "strategy": {"kind": "fedavgm"}},
        {"topology": "swarm"},
        {"topology": "peer", "rounds": 2},
        {"topology": {"kind": "swarm", "leader": "drawn"}, "strategy": {"kind": "fedavgm"}, "rounds": 2},
    ],
)
def test_an_inner_hub_of_institutions_hands_up_what_it_would_in_the_simulation(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Convened by the root's process, or by a member of its own; it hands up its sum, or its change."""
    tree = hub("world", hub("ring", *wards(), **{"topology": "allreduce", **settings}), "e", rounds=2)
    config = config_of(tmp_path / "runs", tree)
    assert Inside(config, tmp_path / "linked").go()["model_digest"] == run(config)["model_digest"]


def test_who_may_take_vectors_of_whom_follows_from_the_tree(tmp_path: Path) -> None:
    """Members of each other; who convenes them only where it has work of theirs to do, or a hub above to hand to."""

    def roles(tree: Any) -> dict[str, tuple[str, ...]]:
        return dict(parties(config_of(tmp_path, tree)))

    member = ("member", "peer")
    three = {f"world/{name}": member for name in ("north", "c", "d")}
    assert roles(hub("world", *wards(), topology="peer")) == {"world": ("hub",), **three}
    assert roles(hub("world", *wards(), topology="star"))["world/c"] == ("member",)
    mixed = config_of(tmp_path, hub("world", *wards(local=("c",)), topology="swarm"))
    assert parties(mixed)["world"] == ("hub", "peer")
    assert peers_of(mixed, "world") == ("world/north", "world/d") and peers_of(mixed, "world/d") == ("world/north",)
    inner = config_of(tmp_path, hub("world", hub("ring", *wards(), topology="allreduce"), "e"))
    assert parties(inner)["world"] == ("hub", "peer")
    assert peers_of(inner, "world/ring/d") == ("world/ring/north", "world/ring/c")
    own = {"address": "hub.example.org:8443"}
    below = config_of(tmp_path, hub("world", hub("ring", *wards(), topology="allreduce", link=own), "e"))
    assert parties(below)["world"] == ("hub",) and parties(below)["world/ring"] == ("hub", "member", "peer")


def test_a_member_agrees_to_whom_it_hands_what(tmp_path: Path) -> None:
    for topology, said in (
        (
            "allreduce",
            "to each other member of its hub a slice of it, and the sum of one slice of all members' (north, d)",
        ),
        ("swarm", "to whichever member of its hub leads the round all of it, and from there the model (north, d)"),
        ("peer", "to each neighbour among the members of its hub its own model, whole"),
    ):
        plan = plan_of(config_of(tmp_path, hub("world", *wards(), topology=topology)), "world/c")
        assert any(said in line and "at ward.example.org:2" in line for line in plan.lines()), topology


def test_a_kit_from_before_a_hub_lost_its_centre_is_refused(tmp_path: Path) -> None:
    kit = Pki(tmp_path).kit("world/us")
    members = [{**site(name), "link": link(1)} for name in ("us", "them")]
    config = config_of(tmp_path, hub("world", *members, topology="allreduce"), name="heart")
    with pytest.raises(
        ConfigError,
        match=r"world/us is member, peer in this .* before it was peer: `hierfl provision` again, and `hierfl renew",
    ):
        Serving(config, kit, Log(io.StringIO()))
