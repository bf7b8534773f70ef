"""Idle figures from a run's records, on stories that a reader can recompute."""

from __future__ import annotations

import pytest

from hierfl.monitor.idle import IdleTime
from hierfl.monitor.records import Evaluated, Phase, RoundClosed, SiteTrained
from scheduler import Device
from tiers.federation import Federation, Hub, Site

X, Y = Device("x"), Device("y")


def tree(kappa: int = 1) -> Federation:
    us = Hub("us", (Site("a"), Site("b")), rounds=kappa)
    return Federation(Hub("world", (us, Site("c"))))


def trained(idle: IdleTime, worker: str, site: str, start_s: float, end_s: float, number: int = 1) -> None:
    idle.on(Phase(end_s, worker, "train", start_s, end_s, [site], 1))
    idle.on(SiteTrained(end_s, site, number, worker, end_s - start_s, 10, 1, 0.5))


def closed(node: str, number: int, members: list[str], opened_s: float, time_s: float) -> RoundClosed:
    return RoundClosed(time_s, node, number, "all reported", members, {}, time_s - opened_s, 0)


def test_a_round_by_hand() -> None:
    """Jobs of 3, 2 and 4 s on two devices, in 6 s: W = 9, LB = max(4.5, 4, 2 + 3) = 5; busy 9 of 12."""
    idle = IdleTime(tree(), {"x": X, "y": Y}, {})
    trained(idle, "x", "world/us/a", 0, 3)
    trained(idle, "y", "world/us/b", 0, 2)
    idle.on(closed("world/us", 1, ["a", "b"], 0, 3))
    trained(idle, "y", "world/c", 2, 6)
    idle.on(closed("world", 1, ["us", "c"], 0, 6))
    found = idle.last()
    assert found.busy == {"x": pytest.approx(0.5), "y": pytest.approx(1.0)}
    assert found.idle == pytest.approx(3 / 12) and found.makespan_s == 6
    assert found.efficiency == pytest.approx(4.5 / 6), "the three are of two hubs: only their sum bounds, 9 / 2"
    assert found.floor == pytest.approx(0.0) and found.goodput == pytest.approx(9 / 12)
    world = idle.hubs()["world"]
    assert (world.idle, world.floor) == (pytest.approx(3 / 12), pytest.approx(0.0)), "its hub's work is its own too"
    us = idle.hubs()["world/us"]
    assert us.makespan_s == 3 and us.efficiency == pytest.approx(1.0) and us.idle == us.floor == pytest.approx(1 / 6)


def test_rounds_of_an_inner_hub_are_a_chain() -> None:
    """Two rounds of 2 s at `us` per round of the world: 4 s, whatever the devices; the floor says so."""
    idle = IdleTime(tree(kappa=2), {"x": X, "y": Y}, {})
    for number in (1, 2):
        trained(idle, "x", "world/us/a", 2.0 * number - 2, 2.0 * number, number)
        trained(idle, "y", "world/us/b", 2.0 * number - 2, 2.0 * number - 1, number)
        idle.on(closed("world/us", number, ["a", "b"], 2.0 * number - 2, 2.0 * number))
    idle.on(closed("world", 1, ["us"], 0, 4))
    found = idle.last()
    assert found.efficiency == pytest.approx(1.0) and found.idle == pytest.approx(2 / 8) == found.floor


def test_residency_is_part_of_the_floor() -> None:
    """Only x may take a and b: 5 s there, while y has but 1 s of work."""
    labels = {"world/us/a": frozenset({"us"}), "world/us/b": frozenset({"us"})}
    idle = IdleTime(tree(), {"x": Device("x", labels=frozenset({"us"})), "y": Y}, labels)
    trained(idle, "x", "world/us/a", 0, 3)
    trained(idle, "x", "world/us/b", 3, 5)
    trained(idle, "y", "world/c", 0, 1)
    idle.on(closed("world/us", 1, ["a", "b"], 0, 5))
    idle.on(closed("world", 1, ["us", "c"], 0, 5))
    assert idle.last().efficiency == pytest.approx(1.0) and idle.last().floor == pytest.approx(4 / 10)
    assert idle.hubs()["world/us"].busy == {"x": pytest.approx(1.0)}, "y may not take its sites and does not count"


def test_workers_that_share_a_device_are_one_device() -> None:
    shared = Device("gpu", places=2)
    idle = IdleTime(Federation(Hub("world", (Site("a"), Site("b")))), {"gpu.0": shared, "gpu.1": shared}, {})
    trained(idle, "gpu.0", "world/a", 0, 2)
    trained(idle, "gpu.1", "world/b", 1, 3)
    idle.on(closed("world", 1, ["a", "b"], 0, 4))
    assert idle.last().busy == {"gpu": pytest.approx(3 / 4)}


def test_a_late_site_is_no_part_of_the_bound_of_the_round_that_closed_without_it() -> None:
    idle = IdleTime(Federation(Hub("world", (Site("a"), Site("b")))), {"x": X, "y": Y}, {})
    trained(idle, "x", "world/a", 0, 2)
    idle.on(closed("world", 1, ["a"], 0, 2))
    assert idle.last().efficiency == pytest.approx(1.0) and idle.last().busy["y"] == 0.0
    trained(idle, "y", "world/b", 0, 5, number=1)
    trained(idle, "x", "world/a", 2, 4, number=2)
    idle.on(closed("world", 2, ["a"], 2, 5))
    found = idle.last()
    assert found.busy == {"x": pytest.approx(2 / 3), "y": pytest.approx(1.0)}, "of b only what lay in this round"
    assert found.efficiency <= 1.0


def test_measuring_counts_in_the_total_alone() -> None:
    idle = IdleTime(Federation(Hub("world", (Site("a"),))), {"x": X, "y": Y}, {})
    trained(idle, "x", "world/a", 0, 2)
    idle.on(closed("world", 1, ["a"], 0, 2))
    idle.on(Phase(4.0, "y", "evaluate", 2.0, 4.0, ["world/a"], 1))
    idle.on(Evaluated(4.0, 1, {}))
    assert idle.last().makespan_s == 2 and idle.total().makespan_s == pytest.approx(4)
    assert idle.total().busy == {"x": pytest.approx(0.5), "y": pytest.approx(0.5)}


def test_only_what_a_run_had_can_be_idle() -> None:
    """Of 10 s the run had x for 4 and worked 3, and y never: 1 of 4 device-seconds was idle; then x for all of 2 s."""
    held = {"x": 4.0}
    idle = IdleTime(Federation(Hub("world", (Site("a"),))), {"x": X, "y": Y}, {}, held_s=lambda: dict(held))
    trained(idle, "x", "world/a", 0, 3)
    idle.on(closed("world", 1, ["a"], 0, 10))
    assert idle.last().idle == pytest.approx(0.25)
    assert idle.last().busy == {"x": pytest.approx(0.75), "y": 0.0}
    held["x"] = 6.0
    trained(idle, "x", "world/a", 10, 12, number=2)
    idle.on(closed("world", 2, ["a"], 10, 12))
    assert idle.last().idle == pytest.approx(0.0)
    assert idle.total().idle == pytest.approx(1 / 6)


def test_nothing_has_happened_yet() -> None:
    idle = IdleTime(tree(), {"x": X}, {})
    assert idle.total().idle == 0.0 and idle.last().efficiency == 1.0 and idle.hubs() == {}
