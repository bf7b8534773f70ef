"""On which node a process of hubs goes, where one of the nodes may be gone and Ray does not say so yet."""

from __future__ import annotations

from typing import Any

import pytest

from hierfl.runtime import ray_nodes
from hierfl.runtime.ray_rooms import HUB, Rooms


class Cluster:
    """The nodes of a cluster as Ray knows them; the run is on the first."""

    def __init__(self, *nodes: str) -> None:
        self.alive = dict.fromkeys(nodes, True)
        self.listens = set(nodes)
        self.clock_s = 0.0

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "NodeID": node,
                "NodeManagerHostname": node,
                "NodeManagerAddress": node,
                "NodeManagerPort": 1,
                "Alive": alive,
            }
            for node, alive in self.alive.items()
        ]

    def create_connection(self, address: tuple[str, int], timeout: float) -> Cluster:
        if address[0] not in self.listens:
            raise ConnectionRefusedError(address)
        return self

    def close(self) -> None: ...

    def monotonic(self) -> float:
        return self.clock_s

    def get_runtime_context(self) -> Cluster:
        return self

    def get_node_id(self) -> str:
        return next(iter(self.alive))


def rooms_of(patch: pytest.MonkeyPatch, *nodes: str) -> tuple[Rooms, Cluster]:
    cluster = Cluster(*nodes)
    patch.setattr(ray_nodes, "ray", cluster)
    patch.setattr(ray_nodes, "socket", cluster)
    patch.setattr(ray_nodes, "time", cluster)
    return Rooms(None, 2), cluster


HUB_0, HUB_1, HUB_2, HUB_3 = (f"{HUB}{number}" for number in range(4))


def test_nobody_goes_to_a_node_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms, _ = rooms_of(monkeypatch, "head", "second", "third")
    assert [rooms.place(room) for room in (HUB_0, f"{HUB_0}.1", HUB_1)] == ["head", "second", "third"]
    assert rooms.doubt(f"{HUB_0}.1") == []
    assert [rooms.place(room) for room in (f"{HUB_0}.1", HUB_2)] == ["third", "head"]


def test_a_sign_of_life_is_worth_more_than_a_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms, _ = rooms_of(monkeypatch, "head", "second")
    assert [rooms.place(room) for room in (HUB_0, HUB_1, HUB_2, HUB_3)] == ["head", "second", "head", "second"]
    rooms.doubt(HUB_1)
    assert rooms.place(HUB_1) == "head"
    rooms.found(HUB_3, "second")
    assert rooms.place(HUB_1) == "second"


def test_whoever_is_missed_goes_where_a_process_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms, cluster = rooms_of(monkeypatch, "head", "second")
    assert [rooms.place(room) for room in (HUB_0, HUB_1, f"{HUB_0}.1")] == ["head", "second", "second"]
    assert rooms.place(HUB_1, {"head"}) == "head"
    assert rooms.place(HUB_0, {"second"}) == "head", "its other replica is there"
    cluster.listens.remove("second")
    assert rooms.place(HUB_1, {"second"}) == "head"


@pytest.mark.parametrize("listens", [True, False])
def test_a_doubt_lapses_where_the_node_takes_connections(monkeypatch: pytest.MonkeyPatch, listens: bool) -> None:
    rooms, cluster = rooms_of(monkeypatch, "head", "second")
    assert [rooms.place(room) for room in (HUB_0, HUB_1)] == ["head", "second"]
    rooms.doubt(HUB_1)
    if not listens:
        cluster.listens.remove("second")
    cluster.clock_s = ray_nodes.DOUBT_S - 1.0
    assert rooms.place(HUB_1) == "head"
    cluster.clock_s += 1.0
    assert rooms.place(HUB_1) == ("second" if listens else "head")
    if not listens:
        cluster.listens.add("second")
        assert rooms.place(HUB_1) == "head", "it was not there just now"
        cluster.clock_s += ray_nodes.DOUBT_S
        assert rooms.place(HUB_1) == "second"


def test_what_had_not_begun_there_is_lost_too(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms, _ = rooms_of(monkeypatch, "head", "second")
    for room in (HUB_0, HUB_1, f"{HUB_0}.1", f"{HUB_1}.1", HUB_2, f"{HUB_2}.1"):
        rooms.place(room)
    assert [room for room in (HUB_1, f"{HUB_0}.1") if rooms.node(room) == "second"] == [HUB_1, f"{HUB_0}.1"]
    rooms.heard(HUB_1)
    lost = rooms.doubt(HUB_1)
    assert lost is not None
    assert f"{HUB_0}.1" in lost and HUB_1 not in lost and all(rooms.node(room) == "second" for room in lost)


def test_the_runs_own_node_is_beyond_doubt_and_so_is_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms, cluster = rooms_of(monkeypatch, "head", "second")
    assert [rooms.place(HUB_0), rooms.place(HUB_1)] == ["head", "second"]
    assert rooms.doubt(HUB_0) is None
    assert rooms.place(HUB_0) == "head"
    rooms.doubt(HUB_1)
    cluster.alive["head"] = False
    assert rooms.place(HUB_1) == "second", "there is no other"
    cluster.alive["second"] = False
    cluster.alive["third"] = True
    cluster.listens.add("third")
    assert rooms.place(HUB_1) == "third", "Ray has said so"


def test_a_node_that_takes_no_connection_any_more_is_left_out_until_a_sign_of_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rooms, cluster = rooms_of(monkeypatch, "head", "second", "third")
    assert [rooms.place(room) for room in (HUB_0, HUB_1)] == ["head", "second"]
    rooms.heard(HUB_0)
    assert rooms.stranded() == set()
    cluster.listens = {"head"}
    assert [rooms.place(HUB_2), rooms.place(HUB_3)] == ["head", "head"]
    assert rooms.stranded() == {HUB_1}
    cluster.listens.add("third")
    assert rooms.place(HUB_2) == "head", "nobody there has been heard"
    rooms.found(HUB_3, "third")
    assert rooms.place(HUB_2) == "head" and rooms.place(HUB_1) == "third"


def test_one_that_never_took_any_says_nothing_by_that(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms, cluster = rooms_of(monkeypatch, "head", "second")
    cluster.listens = {"head"}
    assert [rooms.place(HUB_0), rooms.place(HUB_1)] == ["head", "second"]
    cluster.alive["third"] = True
    cluster.listens.add("third")
    assert rooms.place(HUB_2) == "third"
    assert rooms.stranded() == set()
    cluster.listens.remove("third")
    assert rooms.stranded() == {HUB_2}


def test_a_node_is_busy_until_those_who_serve_there_have_started(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms, _ = rooms_of(monkeypatch, "head", "second")
    assert [rooms.place(room) for room in (HUB_0, HUB_1, HUB_2)] == ["head", "second", "head"]
    assert rooms.busy([HUB_0, HUB_1]) == {"head", "second"}
    rooms.heard(HUB_0)
    assert rooms.busy([HUB_0, HUB_1]) == {"second"}, "the third serves nobody"
    rooms.place(HUB_0)
    assert rooms.busy([HUB_0, HUB_1]) == {"head", "second"}


def test_nodes_that_come_are_looked_at_before_anybody_goes_there(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms, cluster = rooms_of(monkeypatch, "head", "second")
    assert [rooms.place(room) for room in (HUB_0, HUB_1)] == ["head", "second"]
    assert rooms.look() == {"head", "second"}
    cluster.alive["third"] = True
    cluster.listens.add("third")
    assert rooms.look() == {"head", "second"}
    cluster.listens.remove("third")
    assert rooms.place(HUB_2) == "head", "nobody could have known of the third"
    cluster.alive["second"] = False
    assert rooms.look() == {"head"}
